//! The normal distribution, to nearly full double precision and with nothing lost in the tails.

use std::f64::consts::{FRAC_1_SQRT_2, PI, SQRT_2};

const FRAC_2_SQRT_PI: f64 = std::f64::consts::FRAC_2_SQRT_PI;

/// Step of the trapezoidal rule below. Its error is about `exp(-(π/STEP)²)`, 7e-18.
const STEP: f64 = 0.5;
/// Terms of the trapezoidal rule: `exp(-(TERMS·STEP)²)` is below 1e-18.
const TERMS: i32 = 13;
/// Below this the power series of erf is used: the trapezoidal rule would cancel.
const SERIES_BELOW: f64 = 0.75;

/// The error function by its power series, for small `x`.
fn erf_series(x: f64) -> f64 {
    let square = x * x;
    let mut term = x;
    let mut sum = x;
    for n in 1..40 {
        let n = f64::from(n);
        term *= -square / n;
        let part = term / (2.0 * n + 1.0);
        sum += part;
        if part.abs() < 1e-18 * sum.abs() {
            break;
        }
    }
    FRAC_2_SQRT_PI * sum
}

/// `exp(x²)·erfc(x)` for `x ≥ SERIES_BELOW` without its pole term.
fn erfcx_trapezoid(x: f64) -> f64 {
    let square = x * x;
    let mut sum = 0.5 / square;
    for n in 1..=TERMS {
        let node = f64::from(n) * STEP;
        sum += (-node * node).exp() / (square + node * node);
    }
    2.0 * x * STEP / PI * sum
}

/// The scaled complementary error function `exp(x²)·erfc(x)`. Overflows to infinity below about −26.6.
///
/// Away from zero it is the trapezoidal rule with the pole's contribution added, after Chiarella and Reichel
/// (1968) and Matta and Reichel (1971).
pub fn erfcx(x: f64) -> f64 {
    if x < 0.0 {
        let square = x * x;
        return 2.0 * square.exp() - erfcx(-x);
    }
    if x < SERIES_BELOW {
        return (x * x).exp() * (1.0 - erf_series(x));
    }
    let pole = if x < PI / STEP { 2.0 * (x * x).exp() / (2.0 * PI * x / STEP).exp_m1() } else { 0.0 };
    erfcx_trapezoid(x) - pole
}

/// The complementary error function.
pub fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < SERIES_BELOW { 1.0 - erf_series(x) } else { (-x * x).exp() * erfcx(x) }
}

/// The error function, accurate near zero as well.
pub fn erf(x: f64) -> f64 {
    if x.abs() < SERIES_BELOW { erf_series(x) } else { 1.0 - erfc(x) }
}

/// The probability that a standard normal is at most `x`.
pub fn cdf(x: f64) -> f64 {
    0.5 * erfc(-x * FRAC_1_SQRT_2)
}

/// The density of the standard normal.
pub fn pdf(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (SQRT_2 * PI.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        // Abramowitz and Stegun, tables 7.1 and 7.3.
        for (x, value) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_186_953_5),
            (1.0, 0.157_299_207_050_285_13),
            (2.0, 0.004_677_734_981_047_266),
            (3.0, 2.209_049_699_858_544e-5),
            (5.0, 1.537_459_794_428_035e-12),
            (10.0, 2.088_487_583_762_545e-45),
            (-1.0, 1.842_700_792_949_715),
        ] {
            assert!((erfc(x) / value - 1.0).abs() < 5e-15, "erfc({x}) = {} ≠ {value}", erfc(x));
        }
    }

    proptest! {
        #[test]
        fn both_branches_meet_and_the_sides_add_up(x in -6.0f64..6.0) {
            prop_assert!((erf(x) + erfc(x) - 1.0).abs() < 4e-16);
            prop_assert!((cdf(x) + cdf(-x) - 1.0).abs() < 4e-16);
        }

        #[test]
        fn the_derivative_of_cdf_is_pdf(x in -5.0f64..5.0) {
            let h = 1e-5;
            let slope = (cdf(x + h) - cdf(x - h)) / (2.0 * h);
            prop_assert!((slope - pdf(x)).abs() < 1e-9, "{slope} {}", pdf(x));
        }

        #[test]
        fn erfcx_falls_and_keeps_its_asymptote(x in 0.0f64..1e6) {
            prop_assert!(erfcx(x) > erfcx(x * 1.01 + 1e-3));
            if x > 1e4 {
                prop_assert!((erfcx(x) * x * PI.sqrt() - 1.0).abs() < 1e-8);
            }
        }
    }
}
