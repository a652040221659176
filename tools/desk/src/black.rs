//! Black's formula on a forward: price, vega, and the volatility that a price implies.
//!
//! Everything is in terms of the *total* standard deviation `sd = vol·√years`. Prices are normalised by
//! `discount·√(forward·strike)`, and only the out-of-the-money side is inverted: there the price is all time
//! value, so no digits are lost. The form with scaled complementary error functions and the idea to change the
//! objective by region are from P. Jäckel, "Let's be rational" (2013); the iteration here is a bracketed Newton.

pub mod normal;

use crate::chain::Right;
use normal::{cdf, erf, erfcx};
use std::f64::consts::{FRAC_1_SQRT_2, PI, SQRT_2};
use thiserror::Error;

/// Largest total standard deviation that [`implied_sd`] looks for. Above the inflection of any price, which is at most
/// 54 for numbers that a double can hold.
pub const SD_MAX: f64 = 100.0;

/// Why a price has no implied volatility.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
#[non_exhaustive]
pub enum Refused {
    /// No positive, finite price.
    #[error("no price")]
    NoPrice,
    /// A price carried over from an earlier day.
    #[error("stale price")]
    Stale,
    /// In the money: its out-of-the-money twin is used.
    #[error("in the money")]
    InTheMoney,
    /// Below the discounted intrinsic value.
    #[error("below intrinsic value")]
    BelowIntrinsic,
    /// At or above the largest value an option can have: the discounted forward (call) or strike (put).
    #[error("above the arbitrage bound")]
    AboveBound,
    /// Below one tick: nothing but rounding.
    #[error("below one tick")]
    TooSmall,
    /// Dearer than quotes nearer to the money.
    #[error("dearer than a nearer strike")]
    NotMonotone,
    /// The call and the put of the strike disagree by more than parity allows.
    #[error("breaks put-call parity")]
    ParityBroken,
    /// The expiry is not after the date.
    #[error("expired")]
    Expired,
    /// The forward, strike, discount or time is not a positive number.
    #[error("bad input")]
    BadInput,
}

impl Refused {
    /// All reasons, in the order in which reports list them.
    pub const ALL: [Refused; 10] = [
        Refused::NoPrice,
        Refused::Stale,
        Refused::InTheMoney,
        Refused::BelowIntrinsic,
        Refused::AboveBound,
        Refused::TooSmall,
        Refused::NotMonotone,
        Refused::ParityBroken,
        Refused::Expired,
        Refused::BadInput,
    ];
}

/// Normalised price of the out-of-the-money option at log-moneyness `x = -|ln(forward/strike)|`.
fn normalised(x: f64, sd: f64) -> f64 {
    if sd <= 0.0 {
        return 0.0;
    }
    if x == 0.0 {
        return erf(0.5 * FRAC_1_SQRT_2 * sd);
    }
    let (h, t) = (x / sd, 0.5 * sd);
    if h + t < 0.0 {
        let scale = 0.5 * (-0.5 * (h * h + t * t)).exp();
        scale * (erfcx(-(h + t) * FRAC_1_SQRT_2) - erfcx(-(h - t) * FRAC_1_SQRT_2))
    } else {
        ((0.5 * x).exp() * cdf(h + t) - (-0.5 * x).exp() * cdf(h - t)).max(0.0)
    }
}

/// What is missing from [`normalised`] to its bound `exp(x/2)`, without cancellation.
fn complement(x: f64, sd: f64) -> f64 {
    let (h, t) = (x / sd, 0.5 * sd);
    (0.5 * x).exp() * cdf(-h - t) + (-0.5 * x).exp() * cdf(h - t)
}

/// Derivative of [`normalised`] with respect to `sd`.
fn normalised_vega(x: f64, sd: f64) -> f64 {
    let (h, t) = (x / sd, 0.5 * sd);
    (-0.5 * (h * h + t * t)).exp() / (SQRT_2 * PI.sqrt())
}

/// Price of a European option.
///
/// `sd` is the total standard deviation. Inputs that are not positive give the discounted intrinsic value.
pub fn price(right: Right, forward: f64, strike: f64, sd: f64, discount: f64) -> f64 {
    let intrinsic = discount * right.intrinsic(forward, strike);
    if !(forward > 0.0 && strike > 0.0 && sd > 0.0) {
        return intrinsic;
    }
    let x = -(forward / strike).ln().abs();
    intrinsic + discount * (forward * strike).sqrt() * normalised(x, sd)
}

/// Change of the price for a change of the volatility of 1.00 (100 vol points).
pub fn vega(forward: f64, strike: f64, vol: f64, years: f64, discount: f64) -> f64 {
    let sd = vol * years.sqrt();
    if !(forward > 0.0 && strike > 0.0 && sd > 0.0) {
        return 0.0;
    }
    discount * (forward * strike).sqrt() * years.sqrt() * normalised_vega((forward / strike).ln(), sd)
}

/// Undiscounted forward delta: `N(d1)` for a call, `N(d1) − 1` for a put.
pub fn delta(right: Right, forward: f64, strike: f64, sd: f64) -> f64 {
    if !(forward > 0.0 && strike > 0.0 && sd > 0.0) {
        return 0.0;
    }
    let d1 = (forward / strike).ln() / sd + 0.5 * sd;
    match right {
        Right::Call => cdf(d1),
        Right::Put => -cdf(-d1),
    }
}

/// The total standard deviation that a price implies.
///
/// In-the-money prices are taken down to their time value first, which loses the digits of the intrinsic value;
/// where both sides are quoted, invert the other one.
///
/// # Errors
/// [`Refused::BadInput`] for a forward, strike or discount that is not positive, [`Refused::NoPrice`] for a price
/// that is not a positive number, [`Refused::BelowIntrinsic`] and [`Refused::AboveBound`] outside the bounds.
pub fn implied_sd(
    right: Right,
    forward: f64,
    strike: f64,
    price: f64,
    discount: f64,
) -> Result<f64, Refused> {
    let sane = |v: f64| v > 0.0 && v.is_finite();
    if !(sane(forward) && sane(strike) && sane(discount)) {
        return Err(Refused::BadInput);
    }
    if !sane(price) {
        return Err(Refused::NoPrice);
    }
    let time_value = price / discount - right.intrinsic(forward, strike);
    if time_value <= 0.0 {
        return Err(Refused::BelowIntrinsic);
    }
    let x = -(forward / strike).ln().abs();
    let target = time_value / (forward * strike).sqrt();
    if target >= (0.5 * x).exp() {
        return Err(Refused::AboveBound);
    }
    // Products of extreme numbers can leave the range of a double.
    if !(x.is_finite() && sane(target)) {
        return Err(Refused::BadInput);
    }
    solve(x, target)
}

/// The volatility that a price implies: [`implied_sd`] per square root of a year.
///
/// # Errors
/// As [`implied_sd`], and [`Refused::Expired`] where `years` is not positive.
pub fn implied_vol(
    right: Right,
    forward: f64,
    strike: f64,
    price: f64,
    discount: f64,
    years: f64,
) -> Result<f64, Refused> {
    if !(years > 0.0 && years.is_finite()) {
        return Err(Refused::Expired);
    }
    Ok(implied_sd(right, forward, strike, price, discount)? / years.sqrt())
}

/// Inverts [`normalised`]: Newton on the logarithm of the price, or of what is missing to the bound where the
/// price is above the inflection, kept inside a bracket by bisection.
fn solve(x: f64, target: f64) -> Result<f64, Refused> {
    let bound = (0.5 * x).exp();
    let inflection = (2.0 * x.abs()).sqrt();
    let upper = target > normalised(x, inflection);
    // Each objective increases in `sd` and has its root at the answer; the pair is (value, slope).
    let objective = |sd: f64| -> (f64, f64) {
        let slope = normalised_vega(x, sd);
        if upper {
            let rest = complement(x, sd);
            (((bound - target) / rest).ln(), slope / rest)
        } else {
            let value = normalised(x, sd);
            ((value / target).ln(), slope / value)
        }
    };
    let (mut low, mut high) = if upper { (inflection, SD_MAX) } else { (0.0, inflection) };
    // Where x = 0 the inflection is at zero, so the upper branch covers everything.
    let mut sd = if upper {
        (inflection + SQRT_2 * PI.sqrt() * (target - normalised(x, inflection))).clamp(low, high)
    } else {
        // The tail behaves as exp(-x²/2sd²).
        (x.abs() / (-2.0 * target.ln()).max(1e-300).sqrt()).clamp(0.0, inflection)
    };
    if !(sd > low && sd < high) {
        sd = 0.5 * (low + high);
    }
    for _ in 0..200 {
        let (value, slope) = objective(sd);
        if value == 0.0 {
            return Ok(sd);
        }
        if value > 0.0 {
            high = sd;
        } else {
            // Also where the price underflows: the logarithm is −∞ there.
            low = sd;
        }
        let step = value / slope;
        let newton = sd - step;
        let next =
            if newton > low && newton < high && step.is_finite() { newton } else { 0.5 * (low + high) };
        if (next - sd).abs() <= 1e-15 * sd || high - low <= 1e-15 * high {
            return Ok(next);
        }
        sd = next;
    }
    // The bracket halves at worst, so this is the limit of the arithmetic.
    if sd < SD_MAX * 0.999_999 { Ok(sd) } else { Err(Refused::AboveBound) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn textbook_price() {
        // Hull, "Options, Futures, and Other Derivatives", example of Black's model: a put on a futures price.
        let value =
            price(Right::Put, 20.0, 20.0, 0.25 * (4.0f64 / 12.0).sqrt(), (-0.09f64 * 4.0 / 12.0).exp());
        assert!((value - 1.12).abs() < 0.005, "{value}");
    }

    #[test]
    fn refusals_name_the_reason() {
        let sd = |price| implied_sd(Right::Call, 100.0, 90.0, price, 1.0);
        assert_eq!(sd(0.0), Err(Refused::NoPrice));
        assert_eq!(sd(f64::NAN), Err(Refused::NoPrice));
        assert_eq!(sd(9.0), Err(Refused::BelowIntrinsic));
        assert_eq!(sd(10.0), Err(Refused::BelowIntrinsic));
        assert_eq!(sd(100.0), Err(Refused::AboveBound));
        assert_eq!(implied_sd(Right::Put, 100.0, 90.0, 90.0, 1.0), Err(Refused::AboveBound));
        assert_eq!(implied_sd(Right::Put, -1.0, 90.0, 9.0, 1.0), Err(Refused::BadInput));
        assert_eq!(implied_vol(Right::Put, 100.0, 90.0, 1.0, 1.0, 0.0), Err(Refused::Expired));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// From 0.1 % to 800 % of total standard deviation and 30 of them out of the money.
        #[test]
        fn prices_and_volatilities_round_trip(
            log_sd in (0.001f64.ln())..(8.0f64.ln()),
            sds in -30.0f64..30.0,
            discount in 0.5f64..1.0,
            forward in 0.01f64..10_000.0,
        ) {
            let sd = log_sd.exp();
            let strike = forward * (sds * sd).clamp(-60.0, 60.0).exp();
            let right = if strike >= forward { Right::Call } else { Right::Put };
            let value = price(right, forward, strike, sd, discount);
            let bound = discount * match right { Right::Call => forward, Right::Put => strike };
            prop_assume!(value > 1e-290 && value < bound);
            let found = implied_sd(right, forward, strike, value, discount).unwrap();
            // One unit in the last place of the price, or of what is missing to its bound, moves the answer by this.
            let x = -(forward / strike).ln().abs();
            let scale = discount * (forward * strike).sqrt();
            let noise = 1e-13 * value / (scale * normalised_vega(x, sd));
            prop_assert!((found - sd).abs() <= 1e-10 * sd + 10.0 * noise, "sd {sd} found {found} x {x} noise {noise}");
        }

        #[test]
        fn any_price_is_inverted_or_refused(
            forward in prop::num::f64::ANY, strike in prop::num::f64::ANY,
            value in prop::num::f64::ANY, discount in prop::num::f64::ANY,
        ) {
            for right in [Right::Call, Right::Put] {
                // Raw bits are rarely all positive.
                let [forward, strike, value, discount] = [forward, strike, value, discount].map(f64::abs);
                if let Ok(sd) = implied_sd(right, forward, strike, value, discount) {
                    prop_assert!(sd > 0.0 && sd <= SD_MAX);
                }
            }
        }

        #[test]
        fn parity_holds_and_vega_is_the_slope(
            strike in 50.0f64..200.0, vol in 0.05f64..2.0, years in 0.01f64..3.0, discount in 0.8f64..1.0,
        ) {
            let sd = |vol: f64| vol * years.sqrt();
            let call = price(Right::Call, 100.0, strike, sd(vol), discount);
            let put = price(Right::Put, 100.0, strike, sd(vol), discount);
            prop_assert!((call - put - discount * (100.0 - strike)).abs() < 1e-11);
            let h = 1e-5;
            let slope = (price(Right::Call, 100.0, strike, sd(vol + h), discount)
                - price(Right::Call, 100.0, strike, sd(vol - h), discount)) / (2.0 * h);
            prop_assert!((slope - vega(100.0, strike, vol, years, discount)).abs() < 1e-5 * (1.0 + slope));
        }
    }
}
