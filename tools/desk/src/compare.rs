//! Fitted volatilities beside those that the vendor ships.

use crate::black;
use crate::chain::{Expiry, Freshness, Quote, TICK};
use crate::forward::Forward;
use crate::smile::Smile;
use thiserror::Error;

/// Why a quote is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
#[non_exhaustive]
pub enum Skipped {
    /// The vendor gives no volatility, or zero.
    #[error("no vendor volatility")]
    NoVendorVol,
    /// The vendor's volatility is outside of 5 % to 200 %.
    #[error("vendor volatility not sane")]
    NotSane,
    /// The quote did not trade on its date.
    #[error("not traded")]
    NotTraded,
    /// Further from the forward than the smile has quotes.
    #[error("beyond the fitted strikes")]
    BeyondSmile,
    /// The vendor's volatility does not give back the price in its own row within a quarter: it belongs to another
    /// time, or to no solution.
    #[error("contradicts its own price")]
    NotItsPrice,
}

impl Skipped {
    /// All reasons, in the order in which they are looked for.
    pub const ALL: [Skipped; 5] = [
        Skipped::NoVendorVol,
        Skipped::NotSane,
        Skipped::NotTraded,
        Skipped::BeyondSmile,
        Skipped::NotItsPrice,
    ];
}

/// Differences between fitted and vendor volatilities, in vol points (hundredths).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Absolute differences, increasing.
    pub differences: Vec<f64>,
    /// Quotes not compared, by reason.
    pub skipped: Vec<(Skipped, usize)>,
}

/// Vendor volatilities within these are sane.
const SANE: std::ops::RangeInclusive<f64> = 0.05..=2.0;
/// A vendor's volatility belongs to its row where it gives the time value back within this fraction, or two ticks.
const GIVES_BACK: f64 = 0.25;

fn gives_back(quote: &Quote, vol: f64, forward: &Forward) -> bool {
    let Some(mark) = quote.mark() else { return false };
    let (level, strike, discount) = (forward.forward, quote.strike, forward.discount);
    let price = black::price(quote.right, level, strike, vol * forward.years.sqrt(), discount);
    let time_value = price - discount * quote.right.intrinsic(level, strike);
    (price - mark.price).abs() <= (GIVES_BACK * time_value).max(2.0 * TICK)
}

impl Comparison {
    /// Compares the quotes of one expiry with its smile.
    pub fn of(expiry: &Expiry, forward: &Forward, smile: &Smile) -> Comparison {
        let used = smile.residuals.iter().filter(|r| r.used).map(|r| r.k);
        let (low, high) = used.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), k| (l.min(k), h.max(k)));
        let mut out = Comparison::default();
        let mut counts = Skipped::ALL.map(|reason| (reason, 0));
        for quote in &expiry.quotes {
            let k = (quote.strike / smile.forward).ln();
            let reason = match quote.vendor_vol {
                None => Skipped::NoVendorVol,
                Some(vol) if !SANE.contains(&vol) => Skipped::NotSane,
                Some(_) if quote.freshness != Freshness::Live => Skipped::NotTraded,
                Some(_) if !(low..=high).contains(&k) => Skipped::BeyondSmile,
                Some(vol) if !gives_back(quote, vol, forward) => Skipped::NotItsPrice,
                Some(vol) => {
                    out.differences.push(100.0 * (smile.vol(k) - vol).abs());
                    continue;
                }
            };
            for count in counts.iter_mut().filter(|c| c.0 == reason) {
                count.1 += 1;
            }
        }
        out.differences.sort_by(f64::total_cmp);
        out.skipped = counts.into_iter().filter(|c| c.1 > 0).collect();
        out
    }

    /// Both comparisons as one.
    pub fn join(mut self, other: Comparison) -> Comparison {
        self.differences.extend(other.differences);
        self.differences.sort_by(f64::total_cmp);
        for (reason, count) in other.skipped {
            match self.skipped.iter_mut().find(|s| s.0 == reason) {
                Some(found) => found.1 += count,
                None => self.skipped.push((reason, count)),
            }
        }
        self.skipped.sort();
        self
    }

    /// Number of quotes compared.
    pub fn compared(&self) -> usize {
        self.differences.len()
    }

    /// The difference that this share of the quotes does not exceed; `None` where none was compared.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let last = self.differences.len().checked_sub(1)?;
        self.differences.get((share.clamp(0.0, 1.0) * last as f64).round() as usize).copied()
    }

    /// Median absolute difference, in vol points.
    pub fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// 95th percentile of the absolute difference, in vol points.
    pub fn p95(&self) -> Option<f64> {
        self.quantile(0.95)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Date, Quote, Right};
    use crate::smile::{Residual, Svi};

    fn smile() -> Smile {
        let residual = |k: f64| Residual {
            strike: 100.0 * k.exp(),
            right: Right::Call,
            k,
            market: 0.2,
            fitted: 0.2,
            error: 0.01,
            used: true,
        };
        Smile {
            expiry: Date(30),
            years: 1.0,
            forward: 100.0,
            svi: Svi::flat(0.04),
            residuals: vec![residual(-0.3), residual(0.3)],
            used: 2,
            rms: 0.0,
            rms_weighted: 0.0,
            error_max: 0.0,
            g_min: 1.0,
            repaired: false,
        }
    }

    fn forward() -> Forward {
        let expiry = Date(30);
        Forward {
            expiry,
            years: 1.0,
            forward: 100.0,
            discount: 1.0,
            pairs_used: 9,
            rms: 0.0,
            refused: vec![],
        }
    }

    #[test]
    fn differences_are_in_vol_points_and_everything_else_is_counted() {
        let quote = |strike: f64, vendor: Option<f64>| {
            let price = black::price(Right::Call, 100.0, strike, vendor.unwrap_or(0.2), 1.0);
            let mut quote = Quote::from_bid_ask(strike, Right::Call, price - 0.01, price + 0.01, 5);
            quote.vendor_vol = vendor;
            quote
        };
        let mut stale = quote(100.0, Some(0.2));
        stale.freshness = Freshness::Carried;
        let mut elsewhere = quote(100.0, Some(0.2));
        elsewhere.vendor_vol = Some(0.8);
        let quotes = vec![
            quote(90.0, Some(0.21)),
            quote(100.0, Some(0.2)),
            quote(110.0, Some(0.25)),
            quote(100.0, None),
            quote(100.0, Some(3.7)),
            quote(140.0, Some(0.3)),
            stale,
            elsewhere,
        ];
        let one = Comparison::of(&Expiry { expiry: Date(30), quotes }, &forward(), &smile());
        assert_eq!(one.compared(), 3);
        assert!((one.median().unwrap_or(0.0) - 1.0).abs() < 1e-9);
        assert!((one.p95().unwrap_or(0.0) - 5.0).abs() < 1e-9);
        assert_eq!(one.skipped, Skipped::ALL.map(|reason| (reason, 1)));
        let both = one.clone().join(one);
        assert_eq!((both.compared(), both.skipped), (6, Skipped::ALL.map(|reason| (reason, 2)).to_vec()));
        assert_eq!(Comparison::default().median(), None);
    }
}
