//! The steps of the desk in a row, for callers without a dependency graph.

use crate::chain::{Chain, Date, Expiry};
use crate::compare::Comparison;
use crate::forward::{self, Forward, ForwardError, ForwardSettings};
use crate::smile::{self, Smile, SmileError, SmileSettings};
use crate::surface::{Surface, SurfaceError, even_grid};
use crate::vols::{self, Vols};
use thiserror::Error;

/// How the steps work.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct DeskSettings {
    /// Forwards.
    pub forward: ForwardSettings,
    /// Smiles.
    pub smile: SmileSettings,
}

/// The step at which an expiry ended.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SliceError {
    /// No forward.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// A forward and volatilities, but no smile.
    #[error("{error}")]
    Smile {
        /// The forward.
        forward: Box<Forward>,
        /// The volatilities.
        vols: Box<Vols>,
        /// Why there is no smile.
        error: SmileError,
    },
}

/// What the desk knows of an expiry.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// Forward and discount.
    pub forward: Forward,
    /// Implied volatilities.
    pub vols: Vols,
    /// The smile.
    pub smile: Smile,
    /// The vendor's volatilities beside it.
    pub comparison: Comparison,
}

/// What the desk knows of a date.
#[derive(Clone, Debug)]
pub struct Night {
    /// The date.
    pub date: Date,
    /// One result for each expiry of the chain, in its order.
    pub slices: Vec<(Date, Result<Slice, SliceError>)>,
    /// The surface of the smiles.
    pub surface: Result<Surface, SurfaceError>,
}

/// Half width of the surface's grid of log-moneyness.
pub const GRID_REACH: f64 = 0.4;
/// Steps of the surface's grid.
pub const GRID_STEPS: usize = 32;

/// Forward, volatilities and smile of one expiry. `spot` centres the search for the forward.
///
/// # Errors
/// [`SliceError`] with the step that failed.
pub fn slice(date: Date, expiry: &Expiry, spot: f64, settings: &DeskSettings) -> Result<Slice, SliceError> {
    let forward = forward::imply(date, expiry, spot, &settings.forward)?;
    let vols = vols::invert(expiry, &forward);
    match smile::fit(&vols, &settings.smile) {
        Ok(smile) => Ok(Slice { comparison: Comparison::of(expiry, &forward, &smile), forward, vols, smile }),
        Err(error) => Err(SliceError::Smile { forward: Box::new(forward), vols: Box::new(vols), error }),
    }
}

/// Everything for one chain.
pub fn night(chain: &Chain, settings: &DeskSettings) -> Night {
    let spot = chain.underlying.bar.close;
    let slices: Vec<(Date, Result<Slice, SliceError>)> =
        chain.expiries.iter().map(|e| (e.expiry, slice(chain.date, e, spot, settings))).collect();
    let smiles = slices.iter().filter_map(|(_, s)| s.as_ref().ok()).map(|s| s.smile.clone()).collect();
    let surface = Surface::build(chain.date, smiles, even_grid(GRID_REACH, GRID_STEPS));
    Night { date: chain.date, slices, surface }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::simulate::{self, MarketSettings};

    /// Twenty simulated days: forwards, smiles and their errors against the truth.
    #[test]
    fn the_truth_is_found_behind_noisy_quotes() {
        let (mut fitted, mut all, mut worst, mut errors) = (0, 0, 0.0f64, Vec::new());
        for n in 0..20 {
            let simulated = simulate::day(&MarketSettings::default(), n);
            let night = night(&simulated.chain, &DeskSettings::default());
            for ((expiry, slice), truth) in night.slices.iter().zip(&simulated.truth) {
                all += 1;
                let Ok(slice) = slice else { continue };
                fitted += 1;
                assert_eq!(*expiry, truth.expiry);
                let off = (slice.forward.forward / truth.forward - 1.0).abs();
                assert!(off < 0.003, "day {n} {expiry}: forward {} {}", slice.forward.forward, truth.forward);
                worst = worst.max(100.0 * (slice.smile.atm_vol() - truth.svi.vol(0.0, truth.years)).abs());
                for r in slice.smile.residuals.iter().filter(|r| r.used) {
                    errors.push(100.0 * (r.fitted - truth.vol(r.strike)).abs());
                }
            }
            let surface = night.surface.unwrap();
            assert!(surface.crossings.len() * 20 <= surface.checked, "{} crossings", surface.crossings.len());
        }
        errors.sort_by(f64::total_cmp);
        let (median, p95) = (errors[errors.len() / 2], errors[errors.len() * 95 / 100]);
        println!(
            "fitted {fitted} of {all}; error median {median:.3} p95 {p95:.3} vol points; worst at the money {worst:.3}"
        );
        assert_eq!(fitted, all);
        assert!(median < 0.1 && p95 < 0.5 && worst < 0.6, "{median} {p95} {worst}");
    }

    #[test]
    fn one_expiry_that_moves_leaves_the_others_alone() {
        let mut chain = simulate::day(&MarketSettings::default(), 2).chain;
        let before = night(&chain, &DeskSettings::default());
        let moved = chain.expiries[4].expiry;
        assert!(simulate::perturb(&mut chain, moved, 0.05) > 0);
        let after = night(&chain, &DeskSettings::default());
        for (b, a) in before.slices.iter().zip(&after.slices) {
            assert_eq!(b != a, b.0 == moved, "{}", b.0);
        }
    }

    #[test]
    fn an_empty_chain_is_an_empty_night() {
        let mut chain = simulate::day(&MarketSettings::default(), 0).chain;
        chain.expiries.clear();
        let night = night(&chain, &DeskSettings::default());
        assert!(night.slices.is_empty());
        assert_eq!(night.surface, Err(SurfaceError::NoSmiles { date: chain.date }));
    }
}
