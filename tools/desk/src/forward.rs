//! The forward and the discount factor of an expiry, from put-call parity.
//!
//! For European options `C − P = D·(F − K)`: a straight line in the strike. American options on a stock that pays
//! dividends differ from it by their early-exercise premium, which is small near the money and grows into it, so only
//! pairs near the money take part. The line is fitted by iterated reweighting (Tukey's biweight), started from weighted
//! medians (of the slopes between pairs, after Theil and Sen), so that stale and broken pairs do not move it. The slope is held by a prior from the level of
//! interest rates: on short expiries the strikes near the money say next to nothing about the discount.

use crate::chain::{Date, Expiry, Quote};
use thiserror::Error;

/// How [`imply`] works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForwardSettings {
    /// Level of interest rates (continuous, per year) that the prior of the discount is centred on.
    pub rate: f64,
    /// Standard deviation of that level.
    pub rate_sd: f64,
    /// The rate stays within this distance of `rate`.
    pub rate_band: f64,
    /// A guess of the volatility, to turn "near the money" into strikes.
    pub vol_guess: f64,
    /// Pairs within so many standard deviations (by `vol_guess`) of the forward are near the money.
    pub width: f64,
    /// Fewest pairs that give an answer.
    pub pairs_min: usize,
    /// Largest residual rms, as a fraction of the forward.
    pub rms_max: f64,
}

impl Default for ForwardSettings {
    fn default() -> ForwardSettings {
        ForwardSettings {
            rate: 0.002,
            rate_sd: 0.005,
            rate_band: 0.05,
            vol_guess: 0.25,
            width: 1.0,
            pairs_min: 3,
            rms_max: 0.02,
        }
    }
}

/// Why a pair did not take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
#[non_exhaustive]
pub enum PairRefused {
    /// The call or the put is not listed.
    #[error("one side is missing")]
    OneSided,
    /// A side has no price.
    #[error("no price")]
    NoPrice,
    /// A side is carried over from an earlier day.
    #[error("stale price")]
    Stale,
    /// Too far from the forward.
    #[error("far from the money")]
    FarFromMoney,
    /// Disagrees with the line through the others.
    #[error("outlier")]
    Outlier,
}

/// Why an expiry has no forward.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The expiry is over.
    #[error("expiry {expiry}: not after {date}; drop the expiry")]
    Expired {
        /// The expiry.
        expiry: Date,
        /// The date of the chain.
        date: Date,
    },
    /// The underlying's price is no positive number.
    #[error("expiry {expiry}: the underlying's price is {spot}; give a price above 0")]
    NoSpot {
        /// The expiry.
        expiry: Date,
        /// What was given.
        spot: f64,
    },
    /// Not enough pairs near the money.
    #[error(
        "expiry {expiry}: {found} usable call-put pairs near the money, {needed} needed; widen the band or wait for quotes"
    )]
    TooFewPairs {
        /// The expiry.
        expiry: Date,
        /// Pairs found.
        found: usize,
        /// Pairs needed.
        needed: usize,
    },
    /// The pairs contradict one another.
    #[error(
        "expiry {expiry}: the pairs scatter by {rms:.4} around parity, at most {limit:.4} is accepted; check the quotes for stale prices"
    )]
    Scattered {
        /// The expiry.
        expiry: Date,
        /// Residual rms, in the currency of the underlying.
        rms: f64,
        /// Largest accepted.
        limit: f64,
    },
}

/// Forward and discount of one expiry.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// The expiry.
    pub expiry: Date,
    /// Years to the last trading day.
    pub years: f64,
    /// Forward price of the underlying.
    pub forward: f64,
    /// Discount factor.
    pub discount: f64,
    /// Pairs that the line rests on.
    pub pairs_used: usize,
    /// Root mean square of their residuals, in the currency of the underlying.
    pub rms: f64,
    /// Pairs that do not take part: strike and reason.
    pub refused: Vec<(f64, PairRefused)>,
}

/// A pair of one strike: `C − P` and the standard error that its quotes suggest.
#[derive(Clone, Copy)]
struct Pair {
    strike: f64,
    difference: f64,
    error: f64,
}

impl Pair {
    fn is_near(&self, centre: f64, reach: f64) -> bool {
        (self.strike / centre).ln().abs() <= reach
    }
}

/// Bounds of how far from the forward a pair may be, in log-moneyness.
const WIDTH_MIN: f64 = 0.02;
const WIDTH_MAX: f64 = 0.2;
/// Residuals beyond so many robust standard deviations have no weight (Tukey's constant).
const TUKEY: f64 = 4.685;
/// Rounds of reweighting.
const ROUNDS: usize = 30;

/// The forward and discount of `expiry` as of `date`. `spot` only centres the search and may be some per cent off.
///
/// # Errors
/// [`ForwardError`] with the count or the scatter that was not enough.
pub fn imply(
    date: Date,
    expiry: &Expiry,
    spot: f64,
    settings: &ForwardSettings,
) -> Result<Forward, ForwardError> {
    let years = expiry.years(date);
    let day = expiry.expiry;
    if years <= 0.0 {
        return Err(ForwardError::Expired { expiry: day, date });
    }
    if !(spot > 0.0 && spot.is_finite()) {
        return Err(ForwardError::NoSpot { expiry: day, spot });
    }
    let mut refused = Vec::new();
    let mut pairs = Vec::new();
    for (strike, call, put) in expiry.pairs() {
        match pair(strike, call, put, spot) {
            Ok(pair) => pairs.push(pair),
            Err(reason) => refused.push((strike, reason)),
        }
    }
    let discount = (-settings.rate * years).exp();
    let needed = settings.pairs_min.max(2);
    let mut width = (settings.width * settings.vol_guess * years.sqrt()).clamp(WIDTH_MIN, WIDTH_MAX);
    // The underlying's price may be hours away from the quotes, and carries dividends: begin wider and recentre.
    let mut centre = spot;
    for reach in [width + 0.04, width, width] {
        let near: Vec<&Pair> = pairs.iter().filter(|p| p.is_near(centre, reach)).collect();
        if near.len() >= needed {
            centre =
                weighted_median(near.iter().map(|p| (p.strike + p.difference / discount, 1.0 / p.error)));
        }
    }
    // Sparse strikes: look further.
    while width < WIDTH_MAX && pairs.iter().filter(|p| p.is_near(centre, width)).count() < needed {
        width = (1.5 * width).min(WIDTH_MAX);
    }
    let (near, far): (Vec<Pair>, Vec<Pair>) = pairs.into_iter().partition(|p| p.is_near(centre, width));
    refused.extend(far.iter().map(|p| (p.strike, PairRefused::FarFromMoney)));
    if near.len() < needed {
        return Err(ForwardError::TooFewPairs { expiry: day, found: near.len(), needed });
    }
    let low = (-(settings.rate + settings.rate_band) * years).exp();
    let high = (-(settings.rate - settings.rate_band) * years).exp();
    let prior = Prior { discount, sd: (discount * settings.rate_sd * years).max(1e-6), low, high };
    // Two starts, since reweighting ends at the nearest of several optima: the prior's slope, and the pairs' own.
    let line = [discount, middle_slope(&near, discount).max(low).min(high)]
        .map(|start| Line::fit(&near, start, &prior))
        .into_iter()
        .reduce(|a, b| if b.scale < a.scale { b } else { a })
        .ok_or(ForwardError::TooFewPairs { expiry: day, found: 0, needed })?;
    let mut squares = 0.0;
    let mut pairs_used = 0;
    for pair in &near {
        if line.weight(pair) > 0.0 {
            pairs_used += 1;
            squares += line.residual(pair).powi(2);
        } else {
            refused.push((pair.strike, PairRefused::Outlier));
        }
    }
    if pairs_used < needed {
        return Err(ForwardError::TooFewPairs { expiry: day, found: pairs_used, needed });
    }
    let rms = (squares / pairs_used as f64).sqrt();
    let limit = settings.rms_max * line.forward;
    if !(rms <= limit && line.forward > 0.0) {
        return Err(ForwardError::Scattered { expiry: day, rms, limit });
    }
    refused.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(Forward {
        expiry: day,
        years,
        forward: line.forward,
        discount: line.discount,
        pairs_used,
        rms,
        refused,
    })
}

fn pair(strike: f64, call: Option<&Quote>, put: Option<&Quote>, spot: f64) -> Result<Pair, PairRefused> {
    let (Some(call), Some(put)) = (call, put) else { return Err(PairRefused::OneSided) };
    let (Some(c), Some(p)) = (call.mark(), put.mark()) else { return Err(PairRefused::NoPrice) };
    if !(call.is_usable() && put.is_usable()) {
        return Err(PairRefused::Stale);
    }
    // A move of the underlying since either trade shows in full in the difference.
    let spread = c.half_spread.hypot(p.half_spread);
    let error = spread.hypot(spot * c.drift.hypot(p.drift));
    Ok(Pair { strike, difference: c.price - p.price, error })
}

/// The line `C − P = discount·(forward − K)` with the scale of its robust weights.
struct Line {
    forward: f64,
    discount: f64,
    /// Residuals in units of their pair's error count against this.
    scale: f64,
}

impl Line {
    fn residual(&self, pair: &Pair) -> f64 {
        pair.difference - self.discount * (self.forward - pair.strike)
    }

    fn weight(&self, pair: &Pair) -> f64 {
        let u = self.residual(pair) / (pair.error * self.scale * TUKEY);
        if u.abs() < 1.0 { (1.0 - u * u).powi(2) / (pair.error * pair.error) } else { 0.0 }
    }

    /// Median absolute residual in units of each pair's error, as a standard deviation; not so small that prices on
    /// whole ticks look like outliers.
    fn rescale(&mut self, pairs: &[Pair]) {
        let scaled = pairs.iter().map(|p| (self.residual(p).abs() / p.error, 1.0));
        self.scale = (1.4826 * weighted_median(scaled)).max(0.7);
    }

    /// Reweights from the slope `-discount` until nothing moves.
    fn fit(pairs: &[Pair], discount: f64, prior: &Prior) -> Line {
        let forwards = pairs.iter().map(|p| (p.strike + p.difference / discount, 1.0 / p.error));
        let mut line = Line { forward: weighted_median(forwards), discount, scale: 1.0 };
        for _ in 0..ROUNDS {
            line.rescale(pairs);
            let (mut w, mut wk, mut wy) = (0.0, 0.0, 0.0);
            for pair in pairs {
                let weight = line.weight(pair);
                w += weight;
                wk += weight * pair.strike;
                wy += weight * pair.difference;
            }
            if w <= 0.0 {
                break;
            }
            let (strike_mean, y_mean) = (wk / w, wy / w);
            let (mut kk, mut ky) = (0.0, 0.0);
            for pair in pairs {
                let weight = line.weight(pair);
                let k = pair.strike - strike_mean;
                kk += weight * k * k;
                ky += weight * k * (pair.difference - y_mean);
            }
            // The slope is −discount; the prior is one more observation of it, in units of the residual scale.
            let trust = (line.scale / prior.sd).powi(2);
            let next = ((trust * prior.discount - ky) / (trust + kk)).max(prior.low).min(prior.high);
            let forward = strike_mean + y_mean / next;
            let done = (forward - line.forward).abs() <= 1e-10 * forward.abs()
                && (next - line.discount).abs() <= 1e-10;
            line.forward = forward;
            line.discount = next;
            if done {
                break;
            }
        }
        line.rescale(pairs);
        line
    }
}

/// What is known of the discount before any quote.
struct Prior {
    discount: f64,
    sd: f64,
    low: f64,
    high: f64,
}

/// The weighted median of the slopes between any two pairs, as a discount; `otherwise` without any two strikes.
fn middle_slope(pairs: &[Pair], otherwise: f64) -> f64 {
    let mut slopes = Vec::new();
    for (i, a) in pairs.iter().enumerate() {
        for b in pairs.iter().skip(i + 1).filter(|b| b.strike != a.strike) {
            let run = b.strike - a.strike;
            slopes.push(((a.difference - b.difference) / run, run.abs() / a.error.hypot(b.error)));
        }
    }
    if slopes.is_empty() { otherwise } else { weighted_median(slopes.into_iter()) }
}

/// The value at which half of the weight is reached; 0 for no values.
fn weighted_median(values: impl Iterator<Item = (f64, f64)>) -> f64 {
    let mut sorted: Vec<(f64, f64)> = values.collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = 0.5 * sorted.iter().map(|v| v.1).sum::<f64>();
    let mut sum = 0.0;
    for (value, weight) in &sorted {
        sum += weight;
        if sum >= half {
            return *value;
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::black;
    use crate::chain::Right;
    use crate::simulate::Random;
    use proptest::prelude::*;

    /// Quotes around Black prices with the given half spread and noise, some of them far off.
    fn expiry(forward: f64, discount: f64, days: i32, noise: f64, outliers: usize, seed: u64) -> Expiry {
        let mut random = Random::new(seed);
        let sd = 0.3 * (f64::from(days) / 365.0).sqrt();
        let mut quotes = Vec::new();
        for step in -40..=40 {
            let strike = (100.0 * (sd * 0.075 * f64::from(step)).exp() * 100.0).round() / 100.0;
            for right in [Right::Call, Right::Put] {
                let value = black::price(right, forward, strike, sd, discount) + 0.02;
                let bid = value + noise * random.normal() - 0.01;
                quotes.push(Quote::from_bid_ask(strike, right, bid.max(0.001), bid.max(0.001) + 0.02, 1));
            }
        }
        for _ in 0..outliers {
            let at = random.below(quotes.len() as u64) as usize;
            let (strike, right) = (quotes[at].strike, quotes[at].right);
            quotes[at] = Quote::from_bid_ask(strike, right, 20.0, 20.02, 1);
        }
        Expiry { expiry: Date(10_000 + days), quotes }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn noise_and_outliers_do_not_hide_the_forward(
            forward in 95.0f64..105.0, rate in -0.005f64..0.012, days in 5i32..700,
            outliers in 0usize..5, seed in any::<u64>(),
        ) {
            let discount = (-rate * f64::from(days) / 365.0).exp();
            let quotes = expiry(forward, discount, days, 0.005, outliers, seed);
            let found = imply(Date(10_000), &quotes, 100.0, &ForwardSettings::default()).unwrap();
            prop_assert!((found.forward - forward).abs() < 0.03, "{} {forward}", found.forward);
            prop_assert!((found.discount - discount).abs() < 0.012 * f64::from(days) / 365.0 + 1e-4, "{} {discount}", found.discount);
            prop_assert!(found.rms < 0.05);
        }

        #[test]
        fn long_expiries_give_the_discount_too(rate in -0.005f64..0.012, seed in any::<u64>()) {
            let discount = (-rate * 2.0).exp();
            let found = imply(Date(10_000), &expiry(100.0, discount, 730, 0.005, 4, seed), 100.0,
                &ForwardSettings::default()).unwrap();
            prop_assert!((found.discount - discount).abs() < 0.002, "{} {discount}", found.discount);
        }
    }

    #[test]
    fn errors_say_what_was_missing() {
        let settings = ForwardSettings::default();
        let mut quotes = expiry(100.0, 1.0, 30, 0.0, 0, 1);
        assert!(matches!(imply(Date(10_040), &quotes, 100.0, &settings), Err(ForwardError::Expired { .. })));
        assert!(matches!(imply(Date(10_000), &quotes, 0.0, &settings), Err(ForwardError::NoSpot { .. })));
        quotes.quotes.retain(|q| q.right == Right::Call || q.strike < 75.0);
        let error = imply(Date(10_000), &quotes, 100.0, &settings).unwrap_err();
        assert_eq!(error, ForwardError::TooFewPairs { expiry: Date(10_030), found: 0, needed: 3 });
        assert!(error.to_string().contains("0 usable call-put pairs"));
    }

    #[test]
    fn refused_pairs_carry_their_reason() {
        let mut quotes = expiry(100.0, 1.0, 90, 0.0, 0, 1);
        let first = quotes.quotes.iter_mut().find(|q| q.strike == 100.0).unwrap();
        *first = Quote::from_bid_ask(100.0, Right::Call, 0.0, 0.0, 0);
        let found = imply(Date(10_000), &quotes, 100.0, &ForwardSettings::default()).unwrap();
        assert!(found.refused.contains(&(100.0, PairRefused::NoPrice)));
        assert!(found.refused.iter().any(|r| r.1 == PairRefused::FarFromMoney));
        assert_eq!(found.refused.len() + found.pairs_used, 81);
    }
}
