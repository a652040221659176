//! The options of one underlying on one date: quotes by expiry, strike and right.
//!
//! What the bars of a daily option file mean was decided with the AAPL files of June 2014:
//!
//! * A row **with volume** is a bar of *trades* of its own date: its four prices are those of the trade file. Its
//!   close is the day's last trade. Put-call parity on closes gives the stock's close of that date within some
//!   hundredths of a per cent (half a per cent on opens), so the close is the best price there is.
//! * A row **without volume whose prices differ** is a bar of *quote mids* (prices on steps of 2.5 cents), with the mid
//!   at the close as its close. It is used with less weight, since its spread is not known.
//! * A row **without volume whose four prices are equal** repeats the last trade of some earlier day. It is
//!   [`Carried`](Freshness::Carried) and refused. So is a row without volume that repeats the bar of the date before
//!   ([`Chain::mark_carried`]): so appear contracts that ended with a split.
//! * A row of zeros has no price.
//! * The underlying's row is one minute near the opening, up to 1.5 % away from the close that the options refer
//!   to. It only centres the search for the forward, and is never taken as the forward.

mod reader;

pub use reader::{ChainError, parse, read};

use std::collections::HashMap;
use std::fmt;
pub use underbelly_storage::Date;

/// Call or put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// The right to buy.
    Call,
    /// The right to sell.
    Put,
}

impl Right {
    /// Undiscounted value at expiry if the underlying ends at `forward`.
    pub fn intrinsic(self, forward: f64, strike: f64) -> f64 {
        match self {
            Right::Call => (forward - strike).max(0.0),
            Right::Put => (strike - forward).max(0.0),
        }
    }

    /// `C` or `P`.
    pub fn letter(self) -> char {
        match self {
            Right::Call => 'C',
            Right::Put => 'P',
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Right::Call => "call",
            Right::Put => "put",
        })
    }
}

/// Four prices of a period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bar {
    /// First price.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
}

impl Bar {
    /// True where all four prices are equal.
    pub fn is_flat(&self) -> bool {
        self.high == self.low && self.open == self.close && self.open == self.high
    }
}

/// The price of a quote, as its source gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Price {
    /// Best bid and best ask at the close.
    BidAsk {
        /// Best bid; 0 where nobody bids.
        bid: f64,
        /// Best ask; 0 where nobody offers.
        ask: f64,
    },
    /// A daily bar of trades or of quote mids.
    Bar(Bar),
}

/// How far the price of a quote can be trusted to belong to its date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Freshness {
    /// Traded on its date, or quoted on both sides.
    Live,
    /// The middle of quotes whose spread is not known.
    Mid,
    /// Carried over from an earlier day.
    Carried,
    /// No price.
    Missing,
}

/// A price with its uncertainty, in the currency of the underlying.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Best single price.
    pub price: f64,
    /// Half of the spread between bid and ask, or an estimate of it.
    pub half_spread: f64,
    /// How much the underlying may have moved since, as a fraction of its price. Zero for live quotes.
    pub drift: f64,
}

/// One contract's prices on one date.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quote {
    /// Strike.
    pub strike: f64,
    /// Call or put.
    pub right: Right,
    /// Price as given.
    pub price: Price,
    /// Contracts traded on the date.
    pub volume: u64,
    /// Open contracts, where the source says.
    pub open_interest: Option<u64>,
    /// Implied volatility that the vendor ships, where positive.
    pub vendor_vol: Option<f64>,
    /// How far the price belongs to the date.
    pub freshness: Freshness,
}

/// Half spread assumed for a bar, relative to its price: AAPL options trade at one to three per cent.
const BAR_HALF_SPREAD: f64 = 0.01;
/// Smallest price step.
pub const TICK: f64 = 0.01;
/// Move of the underlying, as a fraction, between a lone trade of the day and the close.
const LONE_TRADE_DRIFT: f64 = 0.004;
/// Volume at which a last trade is taken to be near the close.
const BUSY_VOLUME: f64 = 25.0;

impl Quote {
    /// A quote from a daily bar; its freshness follows from the rules at the top of the module.
    pub fn from_bar(strike: f64, right: Right, bar: Bar, volume: u64) -> Quote {
        let freshness = if bar.close <= 0.0 {
            Freshness::Missing
        } else if volume > 0 {
            Freshness::Live
        } else if bar.is_flat() {
            Freshness::Carried
        } else {
            Freshness::Mid
        };
        let price = Price::Bar(bar);
        Quote { strike, right, price, volume, open_interest: None, vendor_vol: None, freshness }
    }

    /// A quote from bid and ask.
    pub fn from_bid_ask(strike: f64, right: Right, bid: f64, ask: f64, volume: u64) -> Quote {
        let freshness = if bid > 0.0 && ask >= bid { Freshness::Live } else { Freshness::Missing };
        let price = Price::BidAsk { bid, ask };
        Quote { strike, right, price, volume, open_interest: None, vendor_vol: None, freshness }
    }

    /// The best single price with its uncertainty, or `None` where there is none: the mid of bid and ask, or the
    /// close of a bar.
    pub fn mark(&self) -> Option<Mark> {
        let mark = match self.price {
            Price::BidAsk { bid, ask } if bid > 0.0 && ask >= bid => Mark {
                price: 0.5 * (bid + ask),
                half_spread: (0.5 * (ask - bid)).max(0.5 * TICK),
                drift: 0.0,
            },
            Price::BidAsk { .. } => return None,
            Price::Bar(bar) if bar.close > 0.0 => {
                let lone = 1.0 / (1.0 + self.volume as f64 / BUSY_VOLUME).sqrt();
                let (spread, drift) = match self.freshness {
                    Freshness::Mid => (3.0 * BAR_HALF_SPREAD, 0.0),
                    _ => (BAR_HALF_SPREAD, LONE_TRADE_DRIFT * lone),
                };
                Mark { price: bar.close, half_spread: (spread * bar.close).max(0.5 * TICK), drift }
            }
            Price::Bar(_) => return None,
        };
        (mark.price.is_finite() && mark.half_spread.is_finite()).then_some(mark)
    }

    /// True where the price belongs to the date of the chain.
    pub fn is_usable(&self) -> bool {
        matches!(self.freshness, Freshness::Live | Freshness::Mid)
    }
}

/// All quotes of one expiry, by strike, calls before puts.
#[derive(Clone, Debug, PartialEq)]
pub struct Expiry {
    /// Last day of the contracts as listed. Old monthly contracts list the Saturday.
    pub expiry: Date,
    /// Quotes, by strike and right.
    pub quotes: Vec<Quote>,
}

impl Expiry {
    /// Years of 365 days from the close of `date` to the last trading day's close; zero or less if it is over.
    ///
    /// An expiry on a Saturday or Sunday trades for the last time on the Friday before.
    pub fn years(&self, date: Date) -> f64 {
        // 1970-01-01 was a Thursday.
        let weekend = match (i64::from(self.expiry.0) + 3).rem_euclid(7) {
            5 => 1,
            6 => 2,
            _ => 0,
        };
        (i64::from(self.expiry.0) - weekend - i64::from(date.0)) as f64 / 365.0
    }

    /// The strikes in order, each with its call and its put.
    pub fn pairs(&self) -> Vec<(f64, Option<&Quote>, Option<&Quote>)> {
        let mut sorted: Vec<&Quote> = self.quotes.iter().collect();
        sorted.sort_by(|a, b| a.strike.total_cmp(&b.strike).then(a.right.cmp(&b.right)));
        let mut pairs: Vec<(f64, Option<&Quote>, Option<&Quote>)> = Vec::new();
        for quote in sorted {
            let slot = match pairs.last_mut() {
                Some(last) if last.0 == quote.strike => last,
                _ => {
                    pairs.push((quote.strike, None, None));
                    match pairs.last_mut() {
                        Some(last) => last,
                        None => continue,
                    }
                }
            };
            match quote.right {
                Right::Call => slot.1 = Some(quote),
                Right::Put => slot.2 = Some(quote),
            }
        }
        pairs
    }
}

/// The underlying's row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spot {
    /// Prices.
    pub bar: Bar,
    /// Shares.
    pub volume: u64,
}

/// All options of one underlying on one date.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// The date.
    pub date: Date,
    /// The underlying.
    pub underlying: Spot,
    /// Expiries in order of time.
    pub expiries: Vec<Expiry>,
}

impl Chain {
    /// Number of contracts.
    pub fn contracts(&self) -> usize {
        self.expiries.iter().map(|expiry| expiry.quotes.len()).sum()
    }

    /// Marks as carried the quotes without volume that repeat the bar of an earlier chain; returns how many.
    pub fn mark_carried(&mut self, earlier: &Chain) -> usize {
        let key = |expiry: Date, quote: &Quote| (expiry, quote.strike.to_bits(), quote.right);
        let before: HashMap<_, Price> = earlier
            .expiries
            .iter()
            .flat_map(|e| e.quotes.iter().map(move |q| (key(e.expiry, q), q.price)))
            .collect();
        let mut marked = 0;
        for expiry in &mut self.expiries {
            let day = expiry.expiry;
            for quote in expiry.quotes.iter_mut().filter(|q| q.volume == 0 && q.freshness == Freshness::Mid) {
                if before.get(&key(day, quote)) == Some(&quote.price) {
                    quote.freshness = Freshness::Carried;
                    marked += 1;
                }
            }
        }
        marked
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn bar(open: f64, high: f64, low: f64, close: f64) -> Bar {
        Bar { open, high, low, close }
    }

    #[test]
    fn freshness_follows_from_the_row() {
        let quote = |b, volume| Quote::from_bar(100.0, Right::Call, b, volume).freshness;
        assert_eq!(quote(bar(1.0, 1.0, 1.0, 1.0), 3), Freshness::Live);
        assert_eq!(quote(bar(1.0, 1.0, 1.0, 1.0), 0), Freshness::Carried);
        assert_eq!(quote(bar(1.0, 1.2, 1.0, 1.1), 0), Freshness::Mid);
        assert_eq!(quote(bar(0.0, 0.0, 0.0, 0.0), 0), Freshness::Missing);
        assert_eq!(Quote::from_bid_ask(1.0, Right::Put, 0.0, 1.0, 0).freshness, Freshness::Missing);
        assert_eq!(Quote::from_bid_ask(1.0, Right::Put, 2.0, 1.0, 0).mark(), None);
    }

    #[test]
    fn a_repeated_bar_without_volume_is_carried() {
        let day = |volume| Chain {
            date: Date(0),
            underlying: Spot::default(),
            expiries: vec![Expiry {
                expiry: Date(30),
                quotes: vec![Quote::from_bar(1.0, Right::Put, bar(1.0, 2.0, 1.0, 1.5), volume)],
            }],
        };
        let mut quiet = day(0);
        assert_eq!(quiet.mark_carried(&day(0)), 1);
        assert_eq!(quiet.expiries[0].quotes[0].freshness, Freshness::Carried);
        assert_eq!(day(7).mark_carried(&day(0)), 0);
    }

    #[test]
    fn a_saturday_expiry_ends_on_friday() {
        let day = |text| Date::parse(text).unwrap();
        let expiry = |text| Expiry { expiry: day(text), quotes: Vec::new() };
        assert_eq!(expiry("20140621").years(day("20140613")), 7.0 / 365.0);
        assert_eq!(expiry("20140613").years(day("20140613")), 0.0);
    }

    #[test]
    fn pairs_join_calls_and_puts_in_order() {
        let quote = |strike, right| Quote::from_bid_ask(strike, right, 1.0, 1.1, 0);
        let expiry = Expiry {
            expiry: Date(1),
            quotes: vec![quote(2.0, Right::Put), quote(1.0, Right::Call), quote(2.0, Right::Call)],
        };
        let shape: Vec<_> = expiry.pairs().iter().map(|p| (p.0, p.1.is_some(), p.2.is_some())).collect();
        assert_eq!(shape, [(1.0, true, false), (2.0, true, true)]);
    }
}
