//! One smile for each expiry: an SVI slice without butterfly arbitrage through noisy volatilities.
//!
//! For each `(m, σ)` the other three parameters follow exactly; the two are found by Nelder and Mead from
//! the best point of a coarse grid. Butterfly arbitrage enters that search as a penalty, and what is left of it is
//! removed by a search among slices with `g ≥ 0`. Bad points lose their weight by Tukey's
//! biweight over a few rounds. The same points give the same slice, bit for bit.

mod inner;
mod search;
pub mod svi;

use crate::chain::{Date, Right};
use crate::vols::{VolPoint, Vols};
use inner::Sample;
pub use svi::{Butterfly, Svi};
use thiserror::Error;

/// How [`fit`] works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmileSettings {
    /// Fewest points.
    pub points_min: usize,
    /// Points further out than so many at-the-money standard deviations have no weight: there most prices are a tick
    /// or two, which says how small a price can be quoted rather than what the market expects.
    pub reach: f64,
    /// Rounds of reweighting after the first fit.
    pub rounds: usize,
}

impl Default for SmileSettings {
    fn default() -> SmileSettings {
        SmileSettings { points_min: 5, reach: 4.0, rounds: 4 }
    }
}

/// Why an expiry has no smile.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SmileError {
    /// Not enough volatilities.
    #[error(
        "expiry {expiry}: {found} usable volatilities, {needed} needed; wait for quotes or lower points_min"
    )]
    TooFewPoints {
        /// The expiry.
        expiry: Date,
        /// Points found.
        found: usize,
        /// Points needed.
        needed: usize,
    },
    /// The volatilities are on one side of the forward only.
    #[error(
        "expiry {expiry}: volatilities on one side of the forward only; quotes of the other right are needed"
    )]
    OneSided {
        /// The expiry.
        expiry: Date,
    },
    /// The points cannot be fitted at all.
    #[error(
        "expiry {expiry}: no slice fits; the volatilities or the time to expiry are not positive finite numbers"
    )]
    NoFit {
        /// The expiry.
        expiry: Date,
    },
}

/// A point of the market beside the fitted slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    /// Strike.
    pub strike: f64,
    /// Side that was inverted.
    pub right: Right,
    /// Log-moneyness.
    pub k: f64,
    /// Volatility of the market.
    pub market: f64,
    /// Volatility of the slice.
    pub fitted: f64,
    /// Standard error of the market's volatility.
    pub error: f64,
    /// False where the point is an outlier or too far out, and so has no weight.
    pub used: bool,
}

/// A fitted slice. Vol points are hundredths of volatility: 25 % is 25 vol points.
#[derive(Clone, Debug, PartialEq)]
pub struct Smile {
    /// The expiry.
    pub expiry: Date,
    /// Years to the last trading day.
    pub years: f64,
    /// Forward that moneyness refers to.
    pub forward: f64,
    /// The slice.
    pub svi: Svi,
    /// All points, by strike.
    pub residuals: Vec<Residual>,
    /// Points that the slice rests on.
    pub used: usize,
    /// Root mean square error over the used points, each counted alike, in vol points.
    pub rms: f64,
    /// The same with each point counted by the inverse square of its standard error.
    pub rms_weighted: f64,
    /// Largest error of a used point, in vol points.
    pub error_max: f64,
    /// Least value of Durrleman's `g`; not below 0.
    pub g_min: f64,
    /// True where the slice was changed to remove butterfly arbitrage.
    pub repaired: bool,
}

impl Smile {
    /// Volatility at log-moneyness `k`.
    pub fn vol(&self, k: f64) -> f64 {
        self.svi.vol(k, self.years)
    }

    /// Volatility at the forward.
    pub fn atm_vol(&self) -> f64 {
        self.vol(0.0)
    }
}

/// Residuals beyond so many robust standard deviations have no weight (Tukey's constant).
const TUKEY: f64 = 4.685;
/// Doubt added to each point in the first rounds, as a fraction of its volatility.
const DOUBT: [f64; 2] = [0.06, 0.02];
/// Steps of the grid on which the final slice is checked.
const CHECK_STEPS: u32 = 400;
/// Steps of the grid, and of the simplex, while a slice is repaired.
const REPAIR_STEPS: u32 = 60;
const REPAIR_ITERATIONS: usize = 160;

/// Fits the slice of one expiry.
///
/// # Errors
/// [`SmileError`] where the points are too few, on one side only, or no numbers.
pub fn fit(vols: &Vols, settings: &SmileSettings) -> Result<Smile, SmileError> {
    let expiry = vols.expiry;
    if !(vols.years > 0.0 && vols.years.is_finite()) {
        return Err(SmileError::NoFit { expiry });
    }
    let atm = atm_guess(&vols.points);
    let sd = atm * vols.years.sqrt();
    let points: Vec<VolPoint> = vols
        .points
        .iter()
        .copied()
        .filter(|p| p.vol > 0.0 && p.error > 0.0 && p.vol.is_finite() && p.error.is_finite())
        .filter(|p| p.k.abs() <= settings.reach * sd)
        .collect();
    let needed = settings.points_min.max(5);
    if points.len() < needed {
        return Err(SmileError::TooFewPoints { expiry, found: points.len(), needed });
    }
    if points.iter().all(|p| p.k > 0.0) || points.iter().all(|p| p.k < 0.0) {
        return Err(SmileError::OneSided { expiry });
    }
    let mut weights = vec![1.0; points.len()];
    let middle = middle_vols(&points);
    // Far enough that what lies beyond is worth nothing.
    let reach = points.iter().fold(8.0 * sd, |reach, p| reach.max(1.5 * p.k.abs()));
    let mut found = None;
    let mut start = None;
    for round in 0..=settings.rounds {
        // At first every point is taken to be uncertain, so that a bad quote with a tight spread cannot bend the slice
        // to itself before it is seen to be bad.
        let doubt = DOUBT.get(round).copied().unwrap_or(0.0);
        let points: Vec<VolPoint> = points
            .iter()
            .zip(&middle)
            .map(|(p, middle)| VolPoint { error: p.error.hypot(doubt * middle), ..*p })
            .collect();
        let samples = samples(&points, &middle, &weights, vols.years);
        let slice = search::search(&samples, reach, sd, start).ok_or(SmileError::NoFit { expiry })?;
        start = Some((slice.m, slice.sigma));
        found = Some(slice);
        if round < settings.rounds {
            weights = reweigh(&points, &slice, vols.years);
        }
    }
    let slice = found.ok_or(SmileError::NoFit { expiry })?;
    let samples = samples(&points, &middle, &weights, vols.years);
    let (svi, repaired) = repair(slice, &samples, reach).ok_or(SmileError::NoFit { expiry })?;
    Ok(measure(vols, svi, repaired, reach, |point| {
        points
            .iter()
            .zip(&weights)
            .any(|(p, w)| *w > 0.0 && p.strike == point.strike && p.right == point.right)
    }))
}

/// Volatility of the points nearest to the forward: their median, so that one bad quote does not set the scale.
fn atm_guess(points: &[VolPoint]) -> f64 {
    let mut nearest: Vec<&VolPoint> = points.iter().filter(|p| p.vol.is_finite()).collect();
    nearest.sort_by(|a, b| a.k.abs().total_cmp(&b.k.abs()));
    nearest.truncate(7);
    nearest.sort_by(|a, b| a.vol.total_cmp(&b.vol));
    nearest.get(nearest.len() / 2).map_or(0.0, |p| p.vol)
}

/// For each point the median volatility of the five around it: its level even where the point itself is bad.
fn middle_vols(points: &[VolPoint]) -> Vec<f64> {
    let around = |i: usize| {
        let mut vols: Vec<f64> = points.iter().skip(i.saturating_sub(2)).take(5).map(|p| p.vol).collect();
        vols.sort_by(f64::total_cmp);
        vols.get(vols.len() / 2).copied().unwrap_or(0.0)
    };
    (0..points.len()).map(around).collect()
}

/// Points as total variances. An error `e` of the volatility is `2·vol·years·e` of the variance.
fn samples(points: &[VolPoint], middle: &[f64], weights: &[f64], years: f64) -> Vec<Sample> {
    points
        .iter()
        .zip(middle)
        .zip(weights)
        .map(|((p, middle), weight)| {
            let error = 2.0 * middle * years * p.error;
            Sample { k: p.k, w: p.vol * p.vol * years, weight: weight / (error * error) }
        })
        .collect()
}

fn reweigh(points: &[VolPoint], svi: &Svi, years: f64) -> Vec<f64> {
    let ratios: Vec<f64> = points.iter().map(|p| (svi.vol(p.k, years) - p.vol) / p.error).collect();
    let mut sizes: Vec<f64> = ratios.iter().map(|r| r.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let median = sizes.get(sizes.len() / 2).copied().unwrap_or(0.0);
    let scale = (1.4826 * median).max(0.5);
    let weight = |ratio: &f64| {
        let u = ratio / (TUKEY * scale);
        if u.abs() < 1.0 { (1.0 - u * u).powi(2) } else { 0.0 }
    };
    ratios.iter().map(weight).collect()
}

/// Removes butterfly arbitrage. The slice is flattened towards a constant, which is always sound, by the least amount
/// that helps; from there a search among sound slices goes back towards the samples.
fn repair(svi: Svi, samples: &[Sample], reach: f64) -> Option<(Svi, bool)> {
    let sound = |svi: &Svi, steps| svi.wing_slope() <= inner::SLOPE_MAX && svi.is_sound(reach, steps);
    if sound(&svi, CHECK_STEPS) {
        return Some((svi, false));
    }
    // With the best level for its shape.
    let level = |shape: Svi| {
        let bent = Svi { a: 0.0, ..shape };
        let (sum, weight) = samples.iter().fold((0.0, 0.0), |(sum, weight), s| {
            (sum + s.weight * (s.w - bent.variance(s.k)), weight + s.weight)
        });
        Svi { a: sum / weight, ..bent }
    };
    let flattened = |shape: &Svi, keep: f64| level(Svi { b: shape.b * keep, ..*shape });
    let soundest = |shape: &Svi| {
        if sound(shape, CHECK_STEPS) {
            return *shape;
        }
        let (mut good, mut bad) = (0.0, 1.0);
        for _ in 0..18 {
            let middle = 0.5 * (good + bad);
            if sound(&flattened(shape, middle), CHECK_STEPS) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        flattened(shape, good)
    };
    let cost = |svi: &Svi| samples.iter().map(|s| s.weight * (svi.variance(s.k) - s.w).powi(2)).sum::<f64>();
    let start = soundest(&svi);
    let shape = |[m, log_sigma, b, rho]: [f64; 4]| {
        level(Svi {
            a: 0.0,
            b: b.max(0.0),
            rho: rho.clamp(-1.0, 1.0),
            m,
            sigma: log_sigma.max(start.sigma.ln() - 1.0).exp(),
        })
    };
    let among_sound = |place| {
        let svi = shape(place);
        if sound(&svi, REPAIR_STEPS) { cost(&svi) } else { f64::INFINITY }
    };
    let from = [start.m, start.sigma.ln(), start.b, start.rho];
    let step = [0.2 * start.sigma, 0.2, -0.05 * start.b, -0.1 * start.rho.signum()];
    let closer = soundest(&shape(search::simplex(among_sound, from, step, REPAIR_ITERATIONS)));
    let best = if cost(&closer) < cost(&start) { closer } else { start };
    sound(&best, CHECK_STEPS).then_some((best, true))
}

fn measure(vols: &Vols, svi: Svi, repaired: bool, reach: f64, used: impl Fn(&VolPoint) -> bool) -> Smile {
    let residuals: Vec<Residual> = vols
        .points
        .iter()
        .map(|p| Residual {
            strike: p.strike,
            right: p.right,
            k: p.k,
            market: p.vol,
            fitted: svi.vol(p.k, vols.years),
            error: p.error,
            used: used(p),
        })
        .collect();
    let (mut n, mut squares, mut weight, mut weighted, mut error_max) = (0usize, 0.0, 0.0, 0.0, 0.0f64);
    for r in residuals.iter().filter(|r| r.used) {
        let off = 100.0 * (r.fitted - r.market);
        let trust = 1.0 / (r.error * r.error);
        n += 1;
        squares += off * off;
        weight += trust;
        weighted += trust * off * off;
        error_max = error_max.max(off.abs());
    }
    let mean = |sum: f64, of: f64| if of > 0.0 { (sum / of).sqrt() } else { 0.0 };
    Smile {
        expiry: vols.expiry,
        years: vols.years,
        forward: vols.forward,
        svi,
        residuals,
        used: n,
        rms: mean(squares, n as f64),
        rms_weighted: mean(weighted, weight),
        error_max,
        g_min: svi.butterfly(reach, CHECK_STEPS).g_min,
        repaired,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::simulate::Random;
    use proptest::prelude::*;

    fn vols(svi: &Svi, years: f64, noise: f64, outliers: usize, seed: u64) -> Vols {
        let mut random = Random::new(seed);
        let sd = svi.variance(0.0).sqrt();
        let mut points: Vec<VolPoint> = (-25..=25)
            .map(|i| {
                let k = sd * 0.14 * f64::from(i);
                let right = if k >= 0.0 { Right::Call } else { Right::Put };
                let vol = svi.vol(k, years) + noise * random.normal();
                VolPoint { strike: 100.0 * k.exp(), right, k, vol, error: noise.max(0.001) }
            })
            .collect();
        // Apart from each other: several side by side are a shape, not outliers.
        let first = random.below(points.len() as u64) as usize;
        for i in 0..outliers {
            let at = (first + 10 * i) % points.len();
            points[at].vol *= 1.6;
        }
        Vols { expiry: Date(10_000), years, forward: 100.0, points, refused: vec![] }
    }

    /// Slices of a power-law SSVI surface (Gatheral and Jacquier 2014), which have no butterfly arbitrage.
    fn ssvi() -> impl Strategy<Value = (Svi, f64)> {
        (0.1f64..0.8, -0.7f64..0.3, 0.3f64..1.1, 0.02f64..2.0).prop_map(|(vol, rho, eta, years)| {
            (crate::simulate::ssvi_slice(vol * vol * years, rho, eta), years)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn exact_slices_are_recovered((svi, years) in ssvi()) {
            let smile = fit(&vols(&svi, years, 0.0, 0, 1), &SmileSettings::default()).unwrap();
            prop_assert!(smile.rms < 0.02, "rms {} {svi:?} {:?}", smile.rms, smile.svi);
            prop_assert!(smile.g_min >= 0.0);
            prop_assert!((smile.atm_vol() - svi.vol(0.0, years)).abs() < 2e-4);
        }

        #[test]
        fn noisy_slices_with_outliers_are_close_and_arbitrage_free(
            (svi, years) in ssvi(), seed in any::<u64>(), outliers in 0usize..6,
        ) {
            let smile = fit(&vols(&svi, years, 0.003, outliers, seed), &SmileSettings::default()).unwrap();
            prop_assert!(smile.g_min >= 0.0 && smile.svi.variance_min() > 0.0 && smile.svi.wing_slope() <= 2.0);
            // The fit looks at a grid; between its points `g` may be below zero by a hair.
            let between = smile.svi.butterfly(3.0 * svi.variance(0.0).sqrt(), 400).g_min;
            prop_assert!(between > -1e-3, "g is {between}");
            // Three and a third times the noise of a quote, beside up to five quotes that are off by more than half.
            let (fitted, known) = (smile.atm_vol(), svi.vol(0.0, years));
            prop_assert!((fitted - known).abs() < 0.01, "{fitted} beside {known}");
            prop_assert!(smile.rms < 1.0, "rms {}", smile.rms);
        }

        #[test]
        fn any_points_give_a_sound_slice_or_an_error(
            raw in prop::collection::vec((-1.0f64..1.0, 0.0f64..3.0, 0.0f64..0.5), 0..30), years in 0.001f64..3.0,
        ) {
            let points = raw.iter().map(|(k, vol, error)| VolPoint {
                strike: k.exp(), right: Right::Call, k: *k, vol: *vol, error: *error,
            }).collect();
            let vols = Vols { expiry: Date(0), years, forward: 1.0, points, refused: vec![] };
            if let Ok(smile) = fit(&vols, &SmileSettings::default()) {
                prop_assert!(smile.g_min >= 0.0 && smile.svi.variance_min() > 0.0 && smile.svi.wing_slope() <= 2.0);
            }
        }
    }

    #[test]
    fn the_same_points_give_the_same_bits() {
        let svi = Svi { a: 0.01, b: 0.2, rho: -0.4, m: 0.02, sigma: 0.1 };
        let points = vols(&svi, 0.5, 0.004, 3, 9);
        let fits = [(); 2].map(|()| fit(&points, &SmileSettings::default()).unwrap());
        assert_eq!(fits[0], fits[1]);
    }

    #[test]
    fn the_classic_bad_slice_is_repaired() {
        let vogt = Svi { a: -0.041, b: 0.1331, rho: 0.306, m: 0.3586, sigma: 0.4153 };
        let mut points = vols(&vogt, 1.0, 0.0, 0, 1);
        points.points.iter_mut().for_each(|p| p.k *= 3.0);
        points.points.iter_mut().for_each(|p| p.vol = vogt.vol(p.k, 1.0));
        let smile = fit(&points, &SmileSettings { reach: 20.0, ..SmileSettings::default() }).unwrap();
        assert!(smile.g_min >= 0.0 && smile.rms < 1.0, "{} {}", smile.g_min, smile.rms);
    }

    #[test]
    fn too_few_points_are_counted() {
        let svi = Svi::flat(0.04);
        let mut few = vols(&svi, 1.0, 0.0, 0, 1);
        let settings = SmileSettings::default();
        few.points.retain(|p| p.k > 0.0);
        assert_eq!(fit(&few, &settings), Err(SmileError::OneSided { expiry: Date(10_000) }));
        few.points.truncate(3);
        let error = fit(&few, &settings).unwrap_err();
        assert_eq!(error, SmileError::TooFewPoints { expiry: Date(10_000), found: 3, needed: 5 });
        few.years = f64::NAN;
        assert_eq!(fit(&few, &settings), Err(SmileError::NoFit { expiry: Date(10_000) }));
    }
}
