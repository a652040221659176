//! The figures of a comparison and the lines that they are printed as.

use std::fmt;

use underbelly_benches::figure::median;

use crate::store::Peer;

/// What is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More of it, as of a rate.
    More,
    /// Less of it, as of a time.
    Less,
}

/// What one store did, over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Which store.
    pub peer: Peer,
    /// The figure.
    pub value: f64,
    /// The least of a round.
    pub low: f64,
    /// The greatest of a round.
    pub high: f64,
}

impl Figure {
    /// The median of the rounds.
    pub fn median(peer: Peer, rounds: &[f64]) -> Figure {
        let low = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let high = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Figure { peer, value: median(rounds.to_vec()), low, high }
    }

    /// The greatest of the rounds.
    pub fn greatest(peer: Peer, rounds: &[f64]) -> Figure {
        let figure = Figure::median(peer, rounds);
        Figure { value: figure.high, ..figure }
    }
}

/// Ours beside each peer's. Its text is the line that other programs may read:
/// `versus NAME CASE: underbelly X UNIT | PEER Y UNIT | … | ratio R`.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The comparison.
    pub name: &'static str,
    /// The case of it; holds no colon.
    pub case: String,
    /// Of every figure.
    pub unit: &'static str,
    /// Decides how the ratio is made.
    pub better: Better,
    /// Ours and the peers', in the order in which they ran.
    pub figures: Vec<Figure>,
}

impl Comparison {
    /// Ours.
    pub fn ours(&self) -> Option<f64> {
        self.figures.iter().find(|figure| figure.peer == Peer::Underbelly).map(|figure| figure.value)
    }

    /// How many times better ours is than the best peer's; below one where a peer is better. `None` where ours or
    /// every peer is left out.
    pub fn ratio(&self) -> Option<f64> {
        self.ratio_to(|_| true)
    }

    /// The same with the best of some peers.
    pub fn ratio_to(&self, is_one: impl Fn(Peer) -> bool) -> Option<f64> {
        let peers =
            self.figures.iter().filter(|figure| figure.peer != Peer::Underbelly && is_one(figure.peer));
        let peers = peers.map(|figure| figure.value);
        let ours = self.ours()?;
        match self.better {
            Better::More => peers.reduce(f64::max).map(|best| ours / best),
            Better::Less => peers.reduce(f64::min).map(|best| best / ours),
        }
    }

    /// The least and the greatest round of each.
    pub fn spread(&self) -> String {
        let each = |figure: &Figure| format!("{} {}..{}", figure.peer, Plain(figure.low), Plain(figure.high));
        let each: Vec<String> = self.figures.iter().map(each).collect();
        format!("spread {} {}: {}", self.name, self.case, each.join(" | "))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "versus {} {}:", self.name, self.case)?;
        for (i, figure) in self.figures.iter().enumerate() {
            let bar = if i == 0 { "" } else { " |" };
            write!(f, "{bar} {} {} {}", figure.peer, Plain(figure.value), self.unit)?;
        }
        match self.ratio() {
            Some(ratio) => write!(f, " | ratio {}", Plain(ratio)),
            None => Ok(()),
        }
    }
}

/// A number in three digits and no unit of its own: `98000`, `0.123`.
pub struct Plain(pub f64);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0;
        if !number.is_finite() || number == 0.0 {
            return write!(f, "{number}");
        }
        // Of the first digit: 2 for hundreds, -1 for tenths.
        let exponent = number.abs().log10().floor() as i32;
        match usize::try_from(2 - exponent) {
            Ok(decimals) => write!(f, "{number:.decimals$}"),
            Err(_) => {
                let unit = 10f64.powi(exponent - 2);
                write!(f, "{:.0}", (number / unit).round() * unit)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn comparison(better: Better, figures: &[(Peer, f64)]) -> Comparison {
        let figures = figures.iter().map(|(peer, value)| Figure::median(*peer, &[*value])).collect();
        let case = "append threads=16".to_string();
        Comparison { name: "commits", case, unit: "commits/s", better, figures }
    }

    const RATES: [(Peer, f64); 3] =
        [(Peer::Underbelly, 98_040.0), (Peer::Redb, 1_087.4), (Peer::Sled, 23_510.0)];

    #[test]
    fn a_comparison_is_one_line() {
        let line = comparison(Better::More, &RATES).to_string();
        let expected = "versus commits append threads=16: underbelly 98000 commits/s | redb 1090 commits/s \
                        | sled 23500 commits/s | ratio 4.17";
        assert_eq!(line, expected);
    }

    /// A line taken apart as a reader of it would.
    fn parse(line: &str) -> (String, String, Vec<(String, f64, String)>, f64) {
        let (head, figures) = line.strip_prefix("versus ").unwrap().split_once(": ").unwrap();
        let (name, case) = head.split_once(' ').unwrap();
        let (figures, ratio) = figures.rsplit_once(" | ratio ").unwrap();
        let figure = |text: &str| {
            let mut words = text.splitn(3, ' ').map(str::to_string);
            let mut word = || words.next().unwrap();
            (word(), word().parse().unwrap(), word())
        };
        let figures = figures.split(" | ").map(figure).collect();
        (name.to_string(), case.to_string(), figures, ratio.parse().unwrap())
    }

    #[test]
    fn a_line_can_be_read_back() {
        let (name, case, figures, ratio) = parse(&comparison(Better::More, &RATES).to_string());
        assert_eq!((name.as_str(), case.as_str()), ("commits", "append threads=16"));
        let expected = [("underbelly", 98_000.0), ("redb", 1_090.0), ("sled", 23_500.0)];
        assert_eq!(figures, expected.map(|(peer, value)| (peer.to_string(), value, "commits/s".to_string())));
        assert_eq!(ratio, 4.17);
    }

    #[test]
    fn a_ratio_above_one_is_better() {
        assert_eq!(
            comparison(Better::More, &[(Peer::Underbelly, 8.0), (Peer::Sled, 4.0)]).ratio(),
            Some(2.0)
        );
        let times = [(Peer::Fjall, 6.0), (Peer::Underbelly, 2.0), (Peer::Redb, 3.0)];
        assert_eq!(comparison(Better::Less, &times).ratio(), Some(1.5));
        assert_eq!(comparison(Better::Less, &times).ratio_to(|peer| peer == Peer::Fjall), Some(3.0));
        assert_eq!(comparison(Better::Less, &times[1..2]).ratio(), None);
        assert_eq!(comparison(Better::More, &times[..1]).ratio(), None);
        let alone = comparison(Better::Less, &times[1..2]).to_string();
        assert_eq!(alone, "versus commits append threads=16: underbelly 2.00 commits/s");
    }

    #[test]
    fn rounds_give_a_median_and_a_spread() {
        let figure = Figure::median(Peer::Redb, &[3.0, 1.0, 2.0]);
        assert_eq!((figure.value, figure.low, figure.high), (2.0, 1.0, 3.0));
        assert_eq!(Figure::greatest(Peer::Redb, &[3.0, 1.0, 2.0]).value, 3.0);
        let mut spread = comparison(Better::More, &[]);
        spread.figures = vec![figure];
        assert_eq!(spread.spread(), "spread commits append threads=16: redb 1.00..3.00");
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.0, 0.01234, 0.5, 1.0, 12.34, 999.6, 1_087.0, 98_049.0, 7_126_000.0];
        let texts = texts.map(|number| Plain(number).to_string());
        assert_eq!(texts, ["0", "0.0123", "0.500", "1.00", "12.3", "1000", "1090", "98000", "7130000"]);
    }
}
