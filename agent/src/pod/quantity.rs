//! Kubernetes' resource quantities (`100m`, `1.5Gi`, `2e3`), read exactly.

use std::ops::Add;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuantityError {
    /// It does not have the form of a number with a suffix.
    #[error(
        "{0:?} is not a quantity: a number with one of the suffixes n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei or an exponent (1e3) is expected"
    )]
    Malformed(String),
    /// It is a number that no resource of a node comes near.
    #[error("the quantity {0:?} is too large")]
    TooLarge(String),
}

/// An amount of a resource, in units of 10^-9: the smallest step that Kubernetes knows. What is finer is
/// rounded up, so that a little of something never becomes none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount(i128);

const NANOS: i128 = 1_000_000_000;

impl Amount {
    /// No amount at all.
    pub(crate) const ZERO: Amount = Amount(0);
    /// One of the resource's unit.
    pub(crate) const ONE: Amount = Amount(NANOS);

    /// So many thousandths of the unit.
    pub(crate) fn from_milli(milli: i64) -> Amount {
        Amount(i128::from(milli) * (NANOS / 1000))
    }

    /// So many whole units.
    pub(crate) fn from_units(units: i64) -> Amount {
        Amount(i128::from(units) * NANOS)
    }

    /// Reads a quantity as Kubernetes writes it.
    pub(crate) fn parse(text: &str) -> Result<Amount, QuantityError> {
        let malformed = || QuantityError::Malformed(text.to_owned());
        let too_large = || QuantityError::TooLarge(text.to_owned());

        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let number_end = unsigned
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(malformed());
        }
        let (factor, exponent) = scale(suffix).ok_or_else(malformed)?;

        // value = digits * factor * 10^(exponent - length of the fraction), wanted in nanos.
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let mantissa: i128 = match digits {
            "" => return Ok(Amount::ZERO),
            digits => digits.parse().map_err(|_| too_large())?,
        };
        let mantissa = mantissa.checked_mul(factor).ok_or_else(too_large)?;
        let power = i64::from(exponent) + 9 - i64::try_from(fraction.len()).map_err(|_| too_large())?;
        let ten_to = |power: i64| {
            u32::try_from(power)
                .ok()
                .and_then(|power| 10_i128.checked_pow(power))
        };
        let nanos = if power >= 0 {
            ten_to(power)
                .and_then(|scale| mantissa.checked_mul(scale))
                .ok_or_else(too_large)?
        } else {
            // A divisor beyond i128 leaves less than one nano, which rounds up to one.
            ten_to(-power).map_or(1, |divisor| ceiling_division(mantissa, divisor))
        };
        let amount = Amount(if negative { -nanos } else { nanos });
        if amount.milli_value().is_none() {
            return Err(too_large());
        }
        Ok(amount)
    }

    /// Whole units, rounded up: bytes of memory.
    pub(crate) fn value(self) -> i64 {
        // `parse` lets nothing through whose thousandths do not fit.
        i64::try_from(ceiling_division(self.0, NANOS)).unwrap_or(i64::MAX)
    }

    /// Thousandths, rounded up: processors. `None` if they do not fit.
    fn milli_value(self) -> Option<i64> {
        i64::try_from(ceiling_division(self.0, NANOS / 1000)).ok()
    }

    /// Thousandths, rounded up: processors.
    pub(crate) fn milli(self) -> i64 {
        self.milli_value().unwrap_or(i64::MAX)
    }

    /// How often `divisor` goes into this, rounded up; a divisor of nothing counts as one.
    pub(crate) fn divided_by(self, divisor: Amount) -> i64 {
        let divisor = if divisor == Amount::ZERO {
            Amount::ONE
        } else {
            divisor
        };
        i64::try_from(ceiling_division(self.0, divisor.0)).unwrap_or(i64::MAX)
    }
}

impl Add for Amount {
    type Output = Amount;

    fn add(self, other: Amount) -> Amount {
        Amount(self.0.saturating_add(other.0))
    }
}

impl TryFrom<&Quantity> for Amount {
    type Error = QuantityError;

    fn try_from(quantity: &Quantity) -> Result<Amount, QuantityError> {
        Amount::parse(&quantity.0)
    }
}

/// What a suffix multiplies by: a factor, and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    let decimal = |exponent| Some((1, exponent));
    let binary = |shift: u32| Some((1_i128 << shift, 0));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let exponent: i32 = exponent.parse().ok()?;
            decimal(exponent)
        }
    }
}

/// Division that rounds away from zero.
fn ceiling_division(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend / divisor;
    if dividend % divisor == 0 {
        quotient
    } else if (dividend < 0) == (divisor < 0) {
        quotient + 1
    } else {
        quotient - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_read_exactly() {
        for (text, value, milli) in [
            ("0", 0, 0),
            ("1", 1, 1000),
            ("+1", 1, 1000),
            ("-1", -1, -1000),
            ("100m", 1, 100),
            ("0.1", 1, 100),
            (".5", 1, 500),
            ("1.", 1, 1000),
            ("1k", 1000, 1_000_000),
            ("1Ki", 1024, 1_024_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("0.1Gi", 107_374_183, 107_374_182_400),
            ("128974848", 128_974_848, 128_974_848_000),
            ("129e6", 129_000_000, 129_000_000_000),
            ("129M", 129_000_000, 129_000_000_000),
            ("123Mi", 128_974_848, 128_974_848_000),
            ("1E3", 1000, 1_000_000),
            ("2e-3", 1, 2),
            ("1n", 1, 1),
            ("250u", 1, 1),
            ("1e-30", 1, 1),
            ("007", 7, 7000),
            ("1.50000000000000000000000000000000000000000000", 2, 1500),
        ] {
            let amount = Amount::parse(text).expect(text);
            assert_eq!((amount.value(), amount.milli()), (value, milli), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_with_a_known_suffix_is_refused() {
        for text in [
            "", "-", ".", "m", "1.2.3", "1x", "1 Gi", "1gi", "1mi", "1K", "1e", "1e1.5", "0x10", "Gi", "1Gim",
        ] {
            assert_eq!(
                Amount::parse(text),
                Err(QuantityError::Malformed(text.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_instead_of_wrapping() {
        for text in [
            "10E",
            "10Ei",
            "1e100",
            "123456789012345678901234567890123456789012345",
        ] {
            assert_eq!(
                Amount::parse(text),
                Err(QuantityError::TooLarge(text.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn the_same_amount_in_two_notations_is_equal() {
        assert_eq!(Amount::parse("1000m"), Amount::parse("1"));
        assert_eq!(Amount::parse("1Gi"), Amount::parse("1024Mi"));
        assert!(Amount::parse("1G").expect("1G") < Amount::parse("1Gi").expect("1Gi"));
    }

    #[test]
    fn a_division_rounds_up_and_takes_no_divisor_for_one() {
        let amount = |text| Amount::parse(text).expect(text);
        assert_eq!(amount("1500m").divided_by(amount("1")), 2);
        assert_eq!(amount("1500m").divided_by(amount("1m")), 1500);
        assert_eq!(amount("64Mi").divided_by(amount("1Mi")), 64);
        assert_eq!(amount("2").divided_by(Amount::ZERO), 2);
    }
}
