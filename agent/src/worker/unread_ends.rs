//! How often the status of a container that has ended could not be read: only the status says how it ended, so it is asked
//! for again a few times before nobody can say.

use std::collections::{BTreeMap, BTreeSet};

/// How often one that has ended is asked for again.
const TRIES: u32 = 6;

/// The containers of one pod that have ended and whose status could not be read, with the looks in a row at which that was so.
/// The pod's worker owns it.
#[derive(Debug, Default)]
pub(super) struct UnreadEnds(BTreeMap<String, u32>);

impl UnreadEnds {
    /// Takes in one more look, at which these could not be read, and gives back those of them that are still waited for. Each
    /// container has tries of its own.
    pub(super) fn look(&mut self, unread: BTreeSet<String>) -> BTreeSet<String> {
        self.0.retain(|id, _| unread.contains(id));
        let mut awaited = BTreeSet::new();
        for id in unread {
            let tries = self.0.entry(id.clone()).or_default();
            if *tries < TRIES {
                awaited.insert(id);
            }
            *tries = tries.saturating_add(1);
        }
        awaited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
        ids.map(str::to_owned).into()
    }

    #[test]
    fn each_container_is_waited_for_a_few_looks_whatever_became_of_another() {
        let mut ends = UnreadEnds::default();
        for _ in 0..TRIES {
            assert_eq!(ends.look(ids(["a"])), ids(["a"]));
        }
        assert_eq!(ends.look(ids(["a"])), ids([]), "it was asked for often enough");
        for _ in 0..TRIES {
            assert_eq!(ends.look(ids(["a", "b"])), ids(["b"]));
        }
        assert_eq!(ends.look(ids(["a", "b"])), ids([]));
    }

    #[test]
    fn one_that_was_read_meanwhile_is_waited_for_anew() {
        let mut ends = UnreadEnds::default();
        for _ in 0..=TRIES {
            ends.look(ids(["a"]));
        }
        assert_eq!(ends.look(ids([])), ids([]));
        assert_eq!(ends.look(ids(["a"])), ids(["a"]));
    }
}
