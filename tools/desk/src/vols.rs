//! From quotes to implied volatilities: each quote of an expiry is inverted, or refused with a reason.

use crate::black::{self, Refused};
use crate::chain::{Date, Expiry, Mark, Quote, Right, TICK};
use crate::forward::Forward;

/// An implied volatility.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VolPoint {
    /// Strike.
    pub strike: f64,
    /// The side that was inverted: out of the money.
    pub right: Right,
    /// Log-moneyness `ln(strike/forward)`.
    pub k: f64,
    /// Volatility per square root of a year (0.25 is 25 %).
    pub vol: f64,
    /// Standard error of `vol` that the quote's spread and age suggest.
    pub error: f64,
}

/// A quote without an implied volatility.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RefusedQuote {
    /// Strike.
    pub strike: f64,
    /// Call or put.
    pub right: Right,
    /// Log-moneyness.
    pub k: f64,
    /// What its price would give, where it gives anything: to draw it, not to use it.
    pub vol: Option<f64>,
    /// Why it is not used.
    pub reason: Refused,
}

/// The volatilities of one expiry.
#[derive(Clone, Debug, PartialEq)]
pub struct Vols {
    /// The expiry.
    pub expiry: Date,
    /// Years to the last trading day.
    pub years: f64,
    /// Forward that moneyness refers to.
    pub forward: f64,
    /// Inverted quotes by strike.
    pub points: Vec<VolPoint>,
    /// All other quotes, by strike.
    pub refused: Vec<RefusedQuote>,
}

impl Vols {
    /// Number of quotes refused for each reason that occurs, in the order of [`Refused::ALL`].
    pub fn refused_by_reason(&self) -> Vec<(Refused, usize)> {
        let count = |reason| self.refused.iter().filter(|quote| quote.reason == reason).count();
        Refused::ALL.into_iter().map(|reason| (reason, count(reason))).filter(|(_, n)| *n > 0).collect()
    }
}

/// The smallest error that any implied volatility is given: 0.1 vol points.
const ERROR_FLOOR: f64 = 0.001;
/// A quote may cost so much more than the dearest of its two nearer neighbours, and one tick.
const MONOTONE_SLACK: f64 = 0.05;
/// Parity may be off by this fraction of the forward, and three times the error of the pair.
const PARITY_SLACK: f64 = 0.01;

/// Inverts the out-of-the-money side of every strike.
///
/// A strike's side is refused where its price has no volatility ([`Refused`]), where it costs more than quotes nearer
/// to the money, or where the other side of the strike, itself live, contradicts it through parity.
pub fn invert(expiry: &Expiry, forward: &Forward) -> Vols {
    let mut vols = Vols {
        expiry: expiry.expiry,
        years: forward.years,
        forward: forward.forward,
        points: Vec::new(),
        refused: Vec::new(),
    };
    let pairs = expiry.pairs();
    let split = pairs.partition_point(|pair| pair.0 < forward.forward);
    let (puts, calls) = pairs.split_at(split);
    // Outwards from the money, so that each quote can be held against nearer ones.
    let mut nearer = Nearer::default();
    for (_, call, put) in puts.iter().rev() {
        vols.take(*put, *call, forward, &mut nearer);
    }
    let mut nearer = Nearer::default();
    for (_, call, put) in calls {
        vols.take(*call, *put, forward, &mut nearer);
    }
    vols.points.sort_by(|a, b| a.strike.total_cmp(&b.strike));
    vols.refused.sort_by(|a, b| a.strike.total_cmp(&b.strike).then(a.right.cmp(&b.right)));
    vols
}

/// Prices of the two nearest accepted quotes towards the money.
#[derive(Default)]
struct Nearer {
    last: Option<f64>,
    before: Option<f64>,
}

impl Nearer {
    fn limit(&self) -> f64 {
        // Two of them, so that a single cheap quote does not shut out the wing behind it.
        self.last
            .into_iter()
            .chain(self.before)
            .reduce(f64::max)
            .map_or(f64::INFINITY, |price| (1.0 + MONOTONE_SLACK) * price + TICK)
    }

    fn accept(&mut self, price: f64) {
        self.before = self.last.replace(price);
    }
}

impl Vols {
    fn take(&mut self, quote: Option<&Quote>, twin: Option<&Quote>, forward: &Forward, nearer: &mut Nearer) {
        let k = |quote: &Quote| (quote.strike / forward.forward).ln();
        if let Some(twin) = twin {
            let reason = if twin.mark().is_none() { Refused::NoPrice } else { Refused::InTheMoney };
            self.refused.push(RefusedQuote {
                strike: twin.strike,
                right: twin.right,
                k: k(twin),
                vol: None,
                reason,
            });
        }
        let Some(quote) = quote else { return };
        match point(quote, twin, forward, nearer.limit()) {
            Ok((point, mark)) => {
                nearer.accept(mark.price);
                self.points.push(point);
            }
            Err((reason, vol)) => {
                self.refused.push(RefusedQuote {
                    strike: quote.strike,
                    right: quote.right,
                    k: k(quote),
                    vol,
                    reason,
                });
            }
        }
    }
}

type Refusal = (Refused, Option<f64>);

fn point(
    quote: &Quote,
    twin: Option<&Quote>,
    forward: &Forward,
    limit: f64,
) -> Result<(VolPoint, Mark), Refusal> {
    let mark = quote.mark().ok_or((Refused::NoPrice, None))?;
    let (strike, right) = (quote.strike, quote.right);
    let (level, discount, years) = (forward.forward, forward.discount, forward.years);
    if mark.price < TICK {
        return Err((Refused::TooSmall, None));
    }
    let vol = black::implied_vol(right, level, strike, mark.price, discount, years).map_err(|r| (r, None))?;
    if !quote.is_usable() {
        return Err((Refused::Stale, Some(vol)));
    }
    if mark.price > limit {
        return Err((Refused::NotMonotone, Some(vol)));
    }
    if let Some((twin, other)) = twin.filter(|t| t.is_usable()).and_then(|t| t.mark().map(|m| (t, m))) {
        let sign = if right == Right::Call { 1.0 } else { -1.0 };
        let gap = sign * (mark.price - other.price) - discount * (level - strike);
        let error = mark.half_spread.hypot(other.half_spread);
        // The in-the-money side of an American option may hold an early-exercise premium, at most the carry.
        let carry = (1.0 - discount).abs() * strike.max(level);
        if gap.abs() > 3.0 * error + PARITY_SLACK * level + carry && twin.volume > 0 {
            return Err((Refused::ParityBroken, Some(vol)));
        }
    }
    let vega = black::vega(level, strike, vol, years, discount);
    let delta = black::delta(right, level, strike, vol * years.sqrt()).abs();
    let price_error = mark.half_spread.hypot(delta * level * mark.drift);
    if vega <= 0.0 {
        return Err((Refused::TooSmall, Some(vol)));
    }
    let error = (price_error / vega).hypot(ERROR_FLOOR);
    Ok((VolPoint { strike, right, k: (strike / level).ln(), vol, error }, mark))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::chain::Bar;

    fn forward() -> Forward {
        let expiry = Date(10_090);
        Forward {
            expiry,
            years: 0.25,
            forward: 100.0,
            discount: 0.999,
            pairs_used: 9,
            rms: 0.0,
            refused: vec![],
        }
    }

    fn quote(strike: f64, right: Right, vol: f64) -> Quote {
        let value = black::price(right, 100.0, strike, vol * 0.5, 0.999);
        Quote::from_bid_ask(strike, right, value - 0.004, value + 0.004, 5)
    }

    fn whole() -> Expiry {
        let quotes = (80..=120).step_by(2).flat_map(|strike| {
            [quote(f64::from(strike), Right::Call, 0.3), quote(f64::from(strike), Right::Put, 0.3)]
        });
        Expiry { expiry: Date(10_090), quotes: quotes.collect() }
    }

    #[test]
    fn every_quote_is_inverted_or_refused() {
        let expiry = whole();
        let vols = invert(&expiry, &forward());
        assert_eq!(vols.points.len() + vols.refused.len(), expiry.quotes.len());
        assert_eq!(vols.refused_by_reason(), [(Refused::InTheMoney, 21)]);
        for point in &vols.points {
            assert!((point.vol - 0.3).abs() < 1e-9, "{point:?}");
            assert!((point.strike >= 100.0) == (point.right == Right::Call));
            assert!(point.error >= ERROR_FLOOR && point.error < 0.01);
        }
    }

    #[test]
    fn bad_quotes_are_refused_for_their_reason() {
        let flat = |price| Bar { open: price, high: price, low: price, close: price };
        for (strike, right, bad, reason) in [
            (90.0, Right::Put, Quote::from_bid_ask(90.0, Right::Put, 0.0, 0.5, 0), Refused::NoPrice),
            (90.0, Right::Put, Quote::from_bar(90.0, Right::Put, flat(2.0), 0), Refused::Stale),
            (90.0, Right::Put, Quote::from_bid_ask(90.0, Right::Put, 0.004, 0.006, 0), Refused::TooSmall),
            (90.0, Right::Put, Quote::from_bid_ask(90.0, Right::Put, 91.0, 92.0, 0), Refused::AboveBound),
            (90.0, Right::Put, Quote::from_bid_ask(90.0, Right::Put, 4.0, 4.1, 0), Refused::NotMonotone),
            (100.0, Right::Call, Quote::from_bid_ask(100.0, Right::Call, 9.0, 9.1, 1), Refused::ParityBroken),
        ] {
            let mut expiry = whole();
            for quote in expiry.quotes.iter_mut().filter(|q| q.strike == strike && q.right == right) {
                *quote = bad;
            }
            let vols = invert(&expiry, &forward());
            let found = vols.refused.iter().find(|r| r.strike == strike && r.right == right);
            assert_eq!(found.map(|r| r.reason), Some(reason), "{strike} {right}");
        }
    }

    #[test]
    fn nothing_in_nothing_out() {
        let vols = invert(&Expiry { expiry: Date(1), quotes: vec![] }, &forward());
        assert!(vols.points.is_empty() && vols.refused.is_empty());
    }
}
