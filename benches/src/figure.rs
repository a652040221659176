//! Medians, and the line that a figure is printed as.

use std::fmt;
use std::time::Duration;

/// The median of an odd number of figures; of an even number, the lower of the two in the middle.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Things a second.
pub fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// A rate beside the machine's own.
pub struct Figure<'a> {
    /// What was measured.
    pub name: &'a str,
    /// Its rate, a second.
    pub rate: f64,
    /// What the machine did.
    pub raw_name: &'a str,
    /// Its rate, a second, in the same unit.
    pub raw: f64,
}

impl fmt::Display for Figure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure { name, rate, raw_name, raw } = self;
        write!(f, "{name}: {}/s | {raw_name} {}/s | ratio {:.2}", Short(*rate), Short(*raw), rate / raw)
    }
}

/// A number in three digits or so: `61000`, `7.12 M`.
pub struct Short(pub f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            large if large >= 1e6 => write!(f, "{:.2} M", large / 1e6),
            middle if middle >= 1e4 => write!(f, "{:.0}", (middle / 100.0).round() * 100.0),
            small => write!(f, "{small:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_taken() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 1.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_figure_is_one_line() {
        let figure =
            Figure { name: "commit durable threads=16", rate: 61_040.0, raw_name: "raw", raw: 7_100.0 };
        assert_eq!(figure.to_string(), "commit durable threads=16: 61000/s | raw 7100/s | ratio 8.60");
        assert_eq!(Short(7_120_000.0).to_string(), "7.12 M");
    }
}
