//! Names that nobody chose.

/// What a suffix is made of: no vowels and nothing that looks like something else, so that no word comes out.
const CHARACTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// How long the part before the suffix may be, so that the whole is still a DNS label.
const MAX_BASE: usize = 58;

/// `base` with five characters behind it that are drawn from `random`; a base that is too long is cut.
pub(crate) fn with_suffix(base: &str, random: [u8; 5]) -> String {
    let base: String = base.chars().take(MAX_BASE).collect();
    let suffix = random
        .into_iter()
        .map(|byte| char::from(CHARACTERS[usize::from(byte) % CHARACTERS.len()]));
    base.chars().chain(suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_is_never_longer_than_a_dns_label() {
        assert_eq!(with_suffix("web-", [0, 1, 26, 27, 255]), "web-bc9bq");
        assert_eq!(with_suffix(&"a".repeat(100), [0; 5]).len(), 63);
    }
}
