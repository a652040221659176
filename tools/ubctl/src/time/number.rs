//! Numbers as instants, in whole-number arithmetic throughout.

use underbelly::Timestamp;

use super::Unit;

/// Digits of a mantissa, beyond which no instant is written.
const DIGITS_MAX: usize = 36;

/// A decimal number: `mantissa * 10^exponent`.
struct Decimal {
    mantissa: i128,
    exponent: i64,
}

fn decimal(text: &str) -> Option<Decimal> {
    let bytes = text.as_bytes();
    let (negative, mut rest) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (mut mantissa, mut digits, mut scale, mut point) = (0i128, 0usize, 0i64, false);
    while let [byte, tail @ ..] = rest {
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                if digits > DIGITS_MAX {
                    return None;
                }
                mantissa = mantissa * 10 + i128::from(byte - b'0');
                scale -= i64::from(point);
            }
            b'.' if !point => point = true,
            _ => break,
        }
        rest = tail;
    }
    if digits == 0 {
        return None;
    }
    let exponent = match rest {
        [] => 0,
        [b'e' | b'E', tail @ ..] => {
            let text = std::str::from_utf8(tail).ok()?;
            i64::from(text.parse::<i32>().ok()?)
        }
        _ => return None,
    };
    Some(Decimal { mantissa: if negative { -mantissa } else { mantissa }, exponent: exponent + scale })
}

/// Whether a text is a decimal number.
pub(crate) fn is_number(text: &str) -> bool {
    decimal(text).is_some()
}

/// The same as [`parse`] for whole numbers that fit, which most are.
pub(super) fn whole(text: &str, unit: Unit) -> Option<Timestamp> {
    let count: i64 = text.parse().ok()?;
    let factor = 10i64.checked_pow(u32::try_from(unit.exponent()).ok()?)?;
    count.checked_mul(factor).map(Timestamp)
}

/// The instant that lies so many units after 1970 UTC. What is finer than a nanosecond is rounded to the nearest.
pub(super) fn parse(text: &str, unit: Unit) -> Result<Timestamp, String> {
    let Some(Decimal { mantissa, exponent }) = decimal(text) else {
        return Err(format!("{text:?} is no number; correct it"));
    };
    rounded(mantissa, exponent + unit.exponent()).map(Timestamp).ok_or_else(|| {
        let unit = unit.plural();
        format!(
            "{text} is outside the years 1677 to 2262 as a number of {unit}; say what it counts with --unit"
        )
    })
}

/// The same of a scaled integer with so many digits behind the point; `None` outside the years 1677 to 2262.
pub(crate) fn of_decimal(unscaled: i64, scale: u8, unit: Unit) -> Option<Timestamp> {
    rounded(unscaled.into(), unit.exponent() - i64::from(scale)).map(Timestamp)
}

/// `mantissa * 10^exponent` as the nearest whole number.
fn rounded(mantissa: i128, exponent: i64) -> Option<i64> {
    let power = |exponent: i64| u32::try_from(exponent).ok().and_then(|e| 10i128.checked_pow(e));
    let whole = if mantissa == 0 {
        0
    } else if exponent >= 0 {
        power(exponent).and_then(|factor| mantissa.checked_mul(factor))?
    } else {
        match power(-exponent) {
            Some(divisor) => {
                let half = divisor / 2 * mantissa.signum();
                (mantissa + half) / divisor
            }
            None => 0,
        }
    };
    i64::try_from(whole).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_exactly() {
        let parse = |text, unit| parse(text, unit).unwrap().0;
        assert_eq!(parse("1381132800688000001", Unit::Ns), 1_381_132_800_688_000_001);
        assert_eq!(parse("1381132800.688000001", Unit::S), 1_381_132_800_688_000_001);
        assert_eq!(parse("42.4312", Unit::Ms), 42_431_200);
        assert_eq!(parse("-1.5", Unit::S), -1_500_000_000);
        assert_eq!(parse("1.381132800152e+18", Unit::Ns), 1_381_132_800_152_000_000);
        assert_eq!(parse("0.0000000005", Unit::S), 1);
        assert_eq!(parse("-0.0000000005", Unit::S), -1);
        assert_eq!(parse("0.00000000049", Unit::S), 0);
        assert_eq!(parse("5e-99999", Unit::S), 0);
        assert_eq!(parse("0e99999", Unit::S), 0);
    }

    #[test]
    fn decimals_count_units() {
        assert_eq!(of_decimal(1_401_715_800_500, 3, Unit::S), Some(Timestamp(1_401_715_800_500_000_000)));
        assert_eq!(of_decimal(-15, 1, Unit::Ns), Some(Timestamp(-2)));
        assert_eq!(of_decimal(14, 1, Unit::Ns), Some(Timestamp(1)));
        assert_eq!(of_decimal(i64::MIN, 0, Unit::Ns), Some(Timestamp(i64::MIN)));
        assert_eq!(of_decimal(i64::MAX, 8, Unit::S), None);
    }

    #[test]
    fn what_is_no_number_or_does_not_fit_is_refused() {
        for text in ["", ".", "-", "1e", "1e5e5", "0x10", "1_000", "١", "1 2", "nan", "9".repeat(40).as_str()]
        {
            assert!(!is_number(text), "{text:?}");
        }
        let error = parse("1381132800688", Unit::S).unwrap_err();
        assert!(error.contains("seconds") && error.contains("--unit"), "{error}");
        assert!(parse("1e2000000000", Unit::S).is_err());
        assert!(parse("9223372036854775808", Unit::Ns).is_err());
    }

    proptest! {
        #[test]
        fn every_nanosecond_survives(ns: i64) {
            prop_assert_eq!(parse(&ns.to_string(), Unit::Ns), Ok(Timestamp(ns)));
            prop_assert_eq!(whole(&ns.to_string(), Unit::Ns), Some(Timestamp(ns)));
            prop_assert_eq!(whole(&ns.to_string(), Unit::Ms), parse(&ns.to_string(), Unit::Ms).ok());
            let sign = if ns < 0 { "-" } else { "" };
            let (secs, rest) = (ns.unsigned_abs() / 1_000_000_000, ns.unsigned_abs() % 1_000_000_000);
            prop_assert_eq!(parse(&format!("{sign}{secs}.{rest:09}"), Unit::S), Ok(Timestamp(ns)));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text, Unit::S);
        }
    }
}
