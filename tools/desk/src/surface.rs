//! The surface of one date: the smiles of its expiries joined in time.
//!
//! At each log-moneyness total variance is linear between expiries, which keeps calendar arbitrage out wherever the
//! slices themselves do not cross; where they do, the crossings are counted. Before the first and after the last
//! expiry the volatility of that expiry holds.

use crate::black::normal;
use crate::chain::Date;
use crate::smile::Smile;
use thiserror::Error;

/// Why there is no surface.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SurfaceError {
    /// No smile at all.
    #[error("date {date}: no smile to build a surface from; look at why the expiries were refused")]
    NoSmiles {
        /// The date.
        date: Date,
    },
    /// Two smiles for the same time.
    #[error("date {date}: two smiles expire after {years} years; keep one")]
    SameExpiry {
        /// The date.
        date: Date,
        /// Years to both.
        years: f64,
    },
    /// The grid of moneyness is not increasing or not finite.
    #[error("date {date}: the grid of log-moneyness must be at least two increasing finite numbers")]
    BadGrid {
        /// The date.
        date: Date,
    },
}

/// Two neighbouring expiries that cross: variance falls with time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing {
    /// The nearer expiry.
    pub near: Date,
    /// The further expiry.
    pub far: Date,
    /// Log-moneyness.
    pub k: f64,
    /// By how much total variance falls.
    pub fall: f64,
}

/// A figure of the term structure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TermPoint {
    /// The expiry.
    pub expiry: Date,
    /// Years to it.
    pub years: f64,
    /// Volatility at the forward.
    pub atm_vol: f64,
    /// Volatility of the 25-delta put less that of the 25-delta call.
    pub skew_25: f64,
    /// Their mean less the volatility at the forward.
    pub butterfly_25: f64,
}

/// The surface of one date.
#[derive(Clone, Debug, PartialEq)]
pub struct Surface {
    /// The date.
    pub date: Date,
    /// Log-moneyness of the grid, increasing.
    pub grid: Vec<f64>,
    /// The smiles, by time.
    pub smiles: Vec<Smile>,
    /// Total variance, `variance[expiry][moneyness]`.
    pub variance: Vec<Vec<f64>>,
    /// Grid points at which total variance falls from one expiry to the next.
    pub crossings: Vec<Crossing>,
    /// Number of pairs of neighbouring expiries and grid points looked at for crossings.
    pub checked: usize,
    /// Volatility and skew by expiry.
    pub term: Vec<TermPoint>,
}

/// `n` equal steps of log-moneyness from `-reach` to `reach`.
pub fn even_grid(reach: f64, n: usize) -> Vec<f64> {
    let n = n.max(1);
    (0..=n).map(|i| reach * (2.0 * i as f64 / n as f64 - 1.0)).collect()
}

impl Surface {
    /// Joins the smiles of one date on a grid of log-moneyness.
    ///
    /// Crossings are counted only where both expiries have quotes or nearly so: within three at-the-money standard
    /// deviations of the nearer one. Further out slices are extrapolations.
    ///
    /// # Errors
    /// [`SurfaceError`] without smiles, with two of the same time, or for a grid that does not increase.
    pub fn build(date: Date, mut smiles: Vec<Smile>, grid: Vec<f64>) -> Result<Surface, SurfaceError> {
        if smiles.is_empty() {
            return Err(SurfaceError::NoSmiles { date });
        }
        let increasing = grid.iter().zip(grid.iter().skip(1)).all(|(a, b)| a < b);
        if grid.len() < 2 || !increasing || grid.iter().any(|k| !k.is_finite()) {
            return Err(SurfaceError::BadGrid { date });
        }
        smiles.sort_by(|a, b| a.years.total_cmp(&b.years));
        let mut crossings = Vec::new();
        let mut checked = 0;
        for (near, far) in smiles.iter().zip(smiles.iter().skip(1)) {
            if near.years == far.years {
                return Err(SurfaceError::SameExpiry { date, years: near.years });
            }
            let reach = 3.0 * near.svi.variance(0.0).max(0.0).sqrt();
            for k in grid.iter().copied().filter(|k| k.abs() <= reach) {
                checked += 1;
                let fall = near.svi.variance(k) - far.svi.variance(k);
                if fall > 0.0 {
                    crossings.push(Crossing { near: near.expiry, far: far.expiry, k, fall });
                }
            }
        }
        let variance = smiles.iter().map(|s| grid.iter().map(|k| s.svi.variance(*k)).collect()).collect();
        let term = smiles.iter().map(term_point).collect();
        Ok(Surface { date, grid, smiles, variance, crossings, checked, term })
    }

    /// Total variance at log-moneyness `k` and `years`; 0 for no time.
    pub fn variance(&self, k: f64, years: f64) -> f64 {
        let after = self.smiles.partition_point(|s| s.years < years);
        let far = self.smiles.get(after);
        let near = after.checked_sub(1).and_then(|i| self.smiles.get(i));
        let at = |smile: &Smile| smile.svi.variance(k);
        match (near, far) {
            _ if years.is_nan() || years <= 0.0 => 0.0,
            (Some(a), Some(b)) => {
                let t = (years - a.years) / (b.years - a.years);
                (1.0 - t) * at(a) + t * at(b)
            }
            (None, Some(only)) | (Some(only), None) => at(only) * years / only.years,
            (None, None) => 0.0,
        }
    }

    /// Volatility at log-moneyness `k` and `years`.
    pub fn vol(&self, k: f64, years: f64) -> f64 {
        if years > 0.0 { (self.variance(k, years).max(0.0) / years).sqrt() } else { 0.0 }
    }
}

/// `d1` of a 25-delta call; a 25-delta put has its negative.
const D1_25: f64 = -0.674_489_750_196_081_7;

fn term_point(smile: &Smile) -> TermPoint {
    let atm_vol = smile.atm_vol();
    let put = smile.vol(strike_of_d1(smile, -D1_25));
    let call = smile.vol(strike_of_d1(smile, D1_25));
    TermPoint {
        expiry: smile.expiry,
        years: smile.years,
        atm_vol,
        skew_25: put - call,
        butterfly_25: 0.5 * (put + call) - atm_vol,
    }
}

/// The log-moneyness at which `d1 = -k/√w + √w/2` takes this value, by bisection.
fn strike_of_d1(smile: &Smile, wanted: f64) -> f64 {
    let d1 = |k: f64| {
        let sd = smile.svi.variance(k).max(1e-18).sqrt();
        -k / sd + 0.5 * sd
    };
    let width = 10.0 * smile.svi.variance(0.0).max(1e-18).sqrt();
    let (mut low, mut high) = (-width, width);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if d1(middle) > wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Undiscounted forward delta of a call at log-moneyness `k` of a smile.
pub fn call_delta(smile: &Smile, k: f64) -> f64 {
    let sd = smile.svi.variance(k).max(1e-18).sqrt();
    normal::cdf(-k / sd + 0.5 * sd)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::simulate::ssvi_slice;
    use crate::smile::Svi;
    use proptest::prelude::*;

    fn smile(days: i32, svi: Svi) -> Smile {
        Smile {
            expiry: Date(10_000 + days),
            years: f64::from(days) / 365.0,
            forward: 100.0,
            svi,
            residuals: vec![],
            used: 9,
            rms: 0.0,
            rms_weighted: 0.0,
            error_max: 0.0,
            g_min: 0.5,
            repaired: false,
        }
    }

    fn surface(days: &[i32]) -> Surface {
        let smiles =
            days.iter().map(|d| smile(*d, ssvi_slice(0.09 * f64::from(*d) / 365.0, -0.5, 0.8))).collect();
        Surface::build(Date(10_000), smiles, even_grid(0.5, 40)).unwrap()
    }

    #[test]
    fn an_orderly_surface_has_no_crossings_and_a_skew() {
        let surface = surface(&[365, 7, 30, 91]);
        assert_eq!(surface.crossings, []);
        assert!(surface.checked > 60);
        assert_eq!(surface.variance.len(), 4);
        assert_eq!(surface.variance[0].len(), 41);
        for point in &surface.term {
            assert!((point.atm_vol - 0.3).abs() < 1e-12 && point.skew_25 > 0.0 && point.butterfly_25 > 0.0);
        }
    }

    #[test]
    fn the_25_delta_strikes_have_25_delta() {
        let smile = smile(91, ssvi_slice(0.02, -0.5, 0.8));
        assert!((call_delta(&smile, strike_of_d1(&smile, D1_25)) - 0.25).abs() < 1e-12);
        assert!((call_delta(&smile, strike_of_d1(&smile, -D1_25)) - 0.75).abs() < 1e-12);
    }

    #[test]
    fn crossings_are_counted() {
        let smiles = vec![smile(30, Svi::flat(0.02)), smile(60, Svi::flat(0.01))];
        let surface = Surface::build(Date(10_000), smiles, even_grid(0.2, 4)).unwrap();
        assert_eq!((surface.crossings.len(), surface.checked), (5, 5));
        assert!((surface.crossings[0].fall - 0.01).abs() < 1e-15);
    }

    #[test]
    fn bad_input_is_refused() {
        let date = Date(10_000);
        let one = || smile(30, Svi::flat(0.02));
        assert_eq!(Surface::build(date, vec![], even_grid(1.0, 4)), Err(SurfaceError::NoSmiles { date }));
        let twice = Surface::build(date, vec![one(), one()], even_grid(1.0, 4));
        assert!(matches!(twice, Err(SurfaceError::SameExpiry { .. })));
        for grid in [vec![], vec![0.0], vec![1.0, 0.0], vec![0.0, f64::NAN], vec![0.0, f64::INFINITY]] {
            assert_eq!(Surface::build(date, vec![one()], grid), Err(SurfaceError::BadGrid { date }));
        }
    }

    proptest! {
        #[test]
        fn interpolation_is_linear_exact_at_the_nodes_and_never_falls(k in -0.5f64..0.5, t in 0.0f64..1.0) {
            let surface = surface(&[7, 30, 91, 365]);
            for pair in surface.smiles.windows(2) {
                let years = pair[0].years + t * (pair[1].years - pair[0].years);
                let wanted = (1.0 - t) * pair[0].svi.variance(k) + t * pair[1].svi.variance(k);
                prop_assert!((surface.variance(k, years) - wanted).abs() < 1e-12);
                prop_assert!(surface.variance(k, years + 0.01) >= surface.variance(k, years));
            }
            prop_assert!((surface.vol(k, 0.001) - surface.smiles[0].vol(k)).abs() < 1e-9);
            prop_assert!((surface.vol(k, 9.0) - surface.smiles[3].vol(k)).abs() < 1e-9);
            prop_assert_eq!(surface.variance(k, 0.0), 0.0);
        }
    }
}
