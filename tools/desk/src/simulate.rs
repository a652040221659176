//! A simulated option market, repeatable by its seed, with the true volatilities beside the quotes.
//!
//! The surface is a power-law SSVI (Gatheral and Jacquier, "Arbitrage-free SVI volatility surfaces", 2014) with a
//! term structure that rises, so that the truth has no arbitrage. Over it go what real chains bring: a spread,
//! noise, missing sides, quotes left over from an earlier spot (some of them marked, some not), and quotes that
//! break the arbitrage bounds.

mod random;

use crate::black;
use crate::chain::{Bar, Chain, Date, Expiry, Freshness, Price, Quote, Right, Spot, TICK};
use crate::smile::Svi;
pub use random::Random;

/// What the simulated market looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MarketSettings {
    /// Everything follows from this number.
    pub seed: u64,
    /// The first day.
    pub start: Date,
    /// The underlying's price on the first day.
    pub spot: f64,
    /// Interest rate, continuous.
    pub rate: f64,
    /// Dividend yield, continuous.
    pub dividend: f64,
    /// Volatility at the money in the long run.
    pub vol: f64,
    /// Half spread as a fraction of the price, at least half a tick.
    pub half_spread: f64,
    /// Standard deviation of the mid, in half spreads.
    pub noise: f64,
    /// Probability that a quote misses a side.
    pub missing: f64,
    /// Probability that a quote is left over from an earlier spot.
    pub stale: f64,
    /// Probability that a quote breaks arbitrage bounds.
    pub broken: f64,
}

impl MarketSettings {
    /// The default market with another seed.
    pub fn seeded(seed: u64) -> MarketSettings {
        MarketSettings { seed, ..MarketSettings::default() }
    }
}

impl Default for MarketSettings {
    fn default() -> MarketSettings {
        MarketSettings {
            seed: 1,
            // Monday, 2 June 2014.
            start: Date(16_223),
            spot: 100.0,
            rate: 0.01,
            dividend: 0.015,
            vol: 0.26,
            half_spread: 0.01,
            noise: 0.3,
            missing: 0.03,
            stale: 0.03,
            broken: 0.01,
        }
    }
}

/// What is true of an expiry, behind its quotes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth {
    /// The expiry.
    pub expiry: Date,
    /// Years to it.
    pub years: f64,
    /// Forward.
    pub forward: f64,
    /// Discount factor.
    pub discount: f64,
    /// The smile.
    pub svi: Svi,
}

impl Truth {
    /// The true volatility of a strike.
    pub fn vol(&self, strike: f64) -> f64 {
        self.svi.vol((strike / self.forward).ln(), self.years)
    }
}

/// A day of the simulated market.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedDay {
    /// What a desk sees.
    pub chain: Chain,
    /// What it does not, by expiry.
    pub truth: Vec<Truth>,
}

/// Weeks from the first Friday to each expiry.
const WEEKS: [i32; 11] = [0, 1, 2, 3, 5, 8, 13, 21, 32, 52, 84];
/// Strikes on each side of the first day's spot.
const STRIKES_PER_SIDE: i32 = 30;
/// Tilt of the smiles.
const RHO: f64 = -0.45;
/// Curvature of the smiles; `η²(1 + |ρ|) ≤ 4` excludes butterfly arbitrage.
const ETA: f64 = 0.9;

/// The SSVI slice for a total variance at the money of `theta`, with `φ = η/√(θ(1 + θ))`, as raw SVI.
pub fn ssvi_slice(theta: f64, rho: f64, eta: f64) -> Svi {
    let phi = eta / (theta * (1.0 + theta)).sqrt();
    let round = (1.0 - rho * rho).sqrt();
    Svi { a: 0.5 * theta * round * round, b: 0.5 * theta * phi, rho, m: -rho / phi, sigma: round / phi }
}

/// The day of the market after `days` trading days. Contracts keep their strikes and expiries from day to day, and
/// expire.
pub fn day(settings: &MarketSettings, days: u32) -> SimulatedDay {
    let mut path = Random::stream(settings.seed, 0);
    let (mut date, mut spot, mut level) = (settings.start, settings.spot, settings.vol);
    let mut open = spot;
    for _ in 0..days {
        date = next_trading_day(date);
        open = spot * (0.003 * path.normal()).exp();
        spot *= (level / 252f64.sqrt() * path.normal()).exp();
        level = (level + 0.05 * (settings.vol - level) + 0.008 * path.normal()).clamp(0.08, 1.0);
    }
    let bar = Bar { open, high: open.max(spot), low: open.min(spot), close: spot };
    let mut chain = Chain { date, underlying: Spot { bar, volume: 1_000_000 }, expiries: Vec::new() };
    let mut truth = Vec::new();
    for (index, weeks) in (0u64..).zip(WEEKS) {
        // The first Friday at least four days after the start.
        let first = settings.start.0.saturating_add(4);
        let friday = first.saturating_add((1 - first.rem_euclid(7)).rem_euclid(7));
        let mut expiry = Expiry { expiry: Date(friday.saturating_add(7 * weeks)), quotes: Vec::new() };
        let years = expiry.years(date);
        if years <= 0.0 {
            continue;
        }
        // The level of the day fades with time; total variance grows throughout.
        let theta = settings.vol * settings.vol * years
            + (level * level - settings.vol * settings.vol) * 0.25 * (1.0 - (-years / 0.25).exp());
        let fact = Truth {
            expiry: expiry.expiry,
            years,
            forward: spot * ((settings.rate - settings.dividend) * years).exp(),
            discount: (-settings.rate * years).exp(),
            svi: ssvi_slice(theta, RHO, ETA),
        };
        let mut random = Random::stream(settings.seed, (u64::from(days) << 8) + index + 1);
        let whole_years = Expiry { expiry: expiry.expiry, quotes: Vec::new() }.years(settings.start);
        expiry.quotes = quotes(settings, &fact, whole_years, &mut random);
        chain.expiries.push(expiry);
        truth.push(fact);
    }
    SimulatedDay { chain, truth }
}

fn next_trading_day(date: Date) -> Date {
    // 1970-01-01 was a Thursday: day numbers 1, 8, 15… are Fridays.
    let step = if date.0.rem_euclid(7) == 1 { 3 } else { 1 };
    Date(date.0.saturating_add(step))
}

/// Strikes a quarter of a standard deviation apart or less, on round prices.
fn strikes(settings: &MarketSettings, years: f64) -> Vec<f64> {
    let sd = settings.spot * settings.vol * years.sqrt();
    let wanted = 4.0 * sd / f64::from(STRIKES_PER_SIDE);
    let steps = [0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0];
    let step = steps.into_iter().find(|s| *s >= wanted).unwrap_or(wanted);
    let centre = (settings.spot / step).round();
    (-STRIKES_PER_SIDE..=STRIKES_PER_SIDE)
        .map(|i| step * (centre + f64::from(i)))
        .filter(|strike| *strike > 0.2 * settings.spot)
        .collect()
}

fn quotes(settings: &MarketSettings, truth: &Truth, listed_years: f64, random: &mut Random) -> Vec<Quote> {
    let mut quotes = Vec::new();
    for strike in strikes(settings, listed_years) {
        let sd = truth.vol(strike) * truth.years.sqrt();
        for right in [Right::Call, Right::Put] {
            let left_over = random.chance(settings.stale);
            let forward =
                if left_over { truth.forward * (1.0 + 0.01 * random.normal()) } else { truth.forward };
            let mut value = black::price(right, forward, strike, sd, truth.discount);
            if random.chance(settings.broken) {
                value *= if random.chance(0.5) { 1.5 + random.unit() } else { 0.5 * random.unit() };
            }
            // Spreads are wider far in the money, in proportion to a price without the intrinsic value.
            let time_value = (value - truth.discount * right.intrinsic(truth.forward, strike)).max(0.0);
            let half = (settings.half_spread * (time_value + 0.1 * value)).max(0.5 * TICK);
            let middle = value + settings.noise * half * random.normal();
            let tick = |price: f64| (price / TICK).round().max(0.0) * TICK;
            let missing = random.chance(settings.missing);
            let bid = if missing { 0.0 } else { tick(middle - half) };
            let ask = tick(middle + half).max(bid + TICK);
            let volume = (40.0
                * (-(strike / truth.forward).ln().powi(2) / (2.0 * sd * sd)).exp()
                * -random.unit().max(1e-9).ln()) as u64;
            let mut quote = Quote::from_bid_ask(strike, right, bid, ask, volume);
            quote.open_interest = Some(volume * 20 + random.below(500));
            if left_over && quote.freshness == Freshness::Live && random.chance(0.5) {
                quote.freshness = Freshness::Carried;
                quote.volume = 0;
            }
            quotes.push(quote);
        }
    }
    quotes
}

/// Moves the quotes of one expiry as if its volatility had changed; returns how many quotes changed.
///
/// The call and the put of a strike move by the same amount, `size` times the cheaper one's price, so that parity
/// still holds. `size` of 0.05 raises time values by about 5 %.
pub fn perturb(chain: &mut Chain, expiry: Date, size: f64) -> usize {
    let Some(found) = chain.expiries.iter_mut().find(|e| e.expiry == expiry) else { return 0 };
    let moves: Vec<(u64, f64)> = found
        .pairs()
        .iter()
        .filter_map(|(strike, call, put)| {
            let (c, p) = (call.as_ref()?.mark()?, put.as_ref()?.mark()?);
            Some((strike.to_bits(), size * c.price.min(p.price)))
        })
        .collect();
    let mut changed = 0;
    for quote in &mut found.quotes {
        let Some((_, amount)) = moves.iter().find(|m| m.0 == quote.strike.to_bits()) else { continue };
        let shift = |price: f64| (price + amount).max(0.0);
        let price = match quote.price {
            Price::BidAsk { bid, ask } => Price::BidAsk { bid: shift(bid), ask: shift(ask) },
            Price::Bar(b) => Price::Bar(Bar {
                open: shift(b.open),
                high: shift(b.high),
                low: shift(b.low),
                close: shift(b.close),
            }),
        };
        changed += usize::from(price != quote.price);
        quote.price = price;
    }
    changed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_seed_is_a_market() {
        let settings = MarketSettings::default();
        assert_eq!(day(&settings, 3), day(&settings, 3));
        assert_ne!(day(&settings, 3), day(&MarketSettings { seed: 2, ..settings }, 3));
        let first = day(&settings, 0);
        assert_eq!(first.chain.expiries.len(), WEEKS.len());
        assert!(first.chain.expiries.iter().all(|e| (80..=160).contains(&e.quotes.len())));
        assert!(first.chain.expiries.iter().all(|e| e.expiry.0.rem_euclid(7) == 1), "all on Fridays");
    }

    #[test]
    fn contracts_persist_and_expire() {
        let settings = MarketSettings::default();
        let [first, later] = [0, 6].map(|n| day(&settings, n).chain);
        assert_eq!(later.expiries.len(), first.expiries.len() - 1);
        let strikes = |e: &Expiry| e.quotes.iter().map(|q| q.strike).collect::<Vec<_>>();
        assert_eq!(strikes(&first.expiries[1]), strikes(&later.expiries[0]));
        assert_ne!(first.underlying, later.underlying);
    }

    #[test]
    fn the_truth_has_no_arbitrage() {
        for n in 0..20 {
            let truth = day(&MarketSettings::default(), n).truth;
            for fact in &truth {
                assert!(fact.svi.is_arbitrage_free(2.0), "{fact:?}");
            }
            for pair in truth.windows(2) {
                for i in -20..=20 {
                    let k = 0.05 * f64::from(i);
                    assert!(pair[1].svi.variance(k) > pair[0].svi.variance(k), "{n} {k}");
                }
            }
        }
    }

    #[test]
    fn faults_appear_as_often_as_asked() {
        let settings = MarketSettings::default();
        let quotes: Vec<Quote> =
            (0..5).flat_map(|n| day(&settings, n).chain.expiries).flat_map(|e| e.quotes).collect();
        let share =
            |f: Freshness| quotes.iter().filter(|q| q.freshness == f).count() as f64 / quotes.len() as f64;
        assert!((0.025..0.2).contains(&share(Freshness::Missing)), "{}", share(Freshness::Missing));
        assert!((0.005..0.03).contains(&share(Freshness::Carried)), "{}", share(Freshness::Carried));
    }

    proptest! {
        #[test]
        fn only_the_expiry_asked_for_moves(at in 0usize..WEEKS.len(), size in 0.02f64..0.2) {
            let before = day(&MarketSettings::default(), 0).chain;
            let mut after = before.clone();
            let expiry = before.expiries[at].expiry;
            prop_assert!(perturb(&mut after, expiry, size) > 40);
            for (b, a) in before.expiries.iter().zip(&after.expiries) {
                prop_assert_eq!(b == a, b.expiry != expiry);
            }
            prop_assert_eq!(perturb(&mut after, Date(1), size), 0);
        }
    }
}
