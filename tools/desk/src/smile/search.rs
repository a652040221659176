//! The other half of the SVI fit: where the slice is centred and how round it is.

use super::inner::{self, Sample};
use super::svi::Svi;

/// Steps of the grid on which arbitrage is looked for during the search.
const SEARCH_STEPS: u32 = 24;
/// Weight of the arbitrage penalty, in units of the cost of the best slice without it.
const PENALTY: f64 = 25.0;
/// Least `σ`, in at-the-money standard deviations: a sharper vertex fits a bad quote rather than a smile.
const ROUNDNESS_MIN: f64 = 0.3;
/// Steps of the simplex.
const ITERATIONS: usize = 120;

/// A point of the search: `m` and `ln σ`.
type Place = [f64; 2];

struct Problem<'a> {
    samples: &'a [Sample],
    reach: f64,
    /// Bounds of `m` and of `ln σ`.
    low: Place,
    high: Place,
    /// Cost that arbitrage is weighed against.
    unit: f64,
}

impl Problem<'_> {
    fn clamp(&self, place: Place) -> Place {
        let [m, log_sigma] = place;
        [m.clamp(self.low[0], self.high[0]), log_sigma.clamp(self.low[1], self.high[1])]
    }

    fn cost(&self, place: Place) -> f64 {
        let place = self.clamp(place);
        let Some((svi, cost)) = inner::best(self.samples, place[0], place[1].exp()) else {
            return f64::INFINITY;
        };
        let level = svi.variance(0.0).abs().max(1e-12);
        let negative = (-svi.variance_min() / level).max(0.0);
        let dip =
            if negative > 0.0 { 1.0 } else { (-svi.butterfly(self.reach, SEARCH_STEPS).g_min).max(0.0) };
        cost + PENALTY * (self.unit + cost) * (negative + dip.min(10.0))
    }
}

/// The best slice for the samples; `start` continues from an earlier result.
pub(super) fn search(samples: &[Sample], reach: f64, sd: f64, start: Option<(f64, f64)>) -> Option<Svi> {
    let (k_low, k_high) = samples
        .iter()
        .filter(|s| s.weight > 0.0)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), s| (low.min(s.k), high.max(s.k)));
    if !(k_low < k_high && sd > 0.0) {
        return None;
    }
    let span = k_high - k_low;
    let sigma_low = (ROUNDNESS_MIN * sd).max(1e-4);
    let problem = Problem {
        samples,
        reach,
        low: [k_low - 0.5 * span, sigma_low.ln()],
        high: [k_high + 0.5 * span, (20.0 * sd).max(2.0 * span).max(2.0 * sigma_low).ln()],
        // A residual of one standard error at every point.
        unit: samples.len() as f64,
    };
    let first = match start {
        Some((m, sigma)) => [m, sigma.max(sigma_low).ln()],
        None => coarse(&problem, k_low, span),
    };
    let best = problem.clamp(simplex(|place| problem.cost(place), first, [0.1 * span, 0.3], ITERATIONS));
    inner::best(samples, best[0], best[1].exp()).map(|(svi, _)| svi)
}

/// The best of a coarse grid.
fn coarse(problem: &Problem<'_>, k_low: f64, span: f64) -> Place {
    let mut best = ([k_low + 0.5 * span, (0.2 * span).ln()], f64::INFINITY);
    for i in 0..9 {
        for j in 0..8 {
            let along = |n: i32, steps: f64| f64::from(n) / steps;
            let log_sigma = problem.low[1] + along(j, 7.0) * (problem.high[1] - problem.low[1]);
            let place = [k_low + along(i, 8.0) * span, log_sigma];
            let cost = problem.cost(place);
            if cost < best.1 {
                best = (place, cost);
            }
        }
    }
    best.0
}

/// Nelder and Mead's simplex (1965) with their usual coefficients.
pub(super) fn simplex<const N: usize>(
    cost: impl Fn([f64; N]) -> f64,
    start: [f64; N],
    step: [f64; N],
    iterations: usize,
) -> [f64; N] {
    let at = |place: [f64; N]| (place, cost(place));
    let mut corners = vec![at(start)];
    for axis in 0..N {
        let mut place = start;
        place[axis] += step[axis];
        corners.push(at(place));
    }
    for _ in 0..iterations {
        corners.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (Some(best), Some(worst)) = (corners.first().copied(), corners.pop()) else { return start };
        let second = corners.last().map_or(best.1, |c| c.1);
        if (worst.1 - best.1).abs() <= 1e-9 * best.1.abs() {
            break;
        }
        let mut middle = [0.0; N];
        for (place, _) in &corners {
            for (sum, x) in middle.iter_mut().zip(place) {
                *sum += x / N as f64;
            }
        }
        let along = |t: f64| at(std::array::from_fn(|i| middle[i] + t * (worst.0[i] - middle[i])));
        let reflected = along(-1.0);
        if reflected.1 < best.1 {
            let expanded = along(-2.0);
            corners.push(if expanded.1 < reflected.1 { expanded } else { reflected });
        } else if reflected.1 < second {
            corners.push(reflected);
        } else {
            let contracted = along(if reflected.1 < worst.1 { -0.5 } else { 0.5 });
            if contracted.1 < worst.1.min(reflected.1) {
                corners.push(contracted);
            } else {
                corners.push(worst);
                for corner in corners.iter_mut().skip(1) {
                    *corner = at(std::array::from_fn(|i| best.0[i] + 0.5 * (corner.0[i] - best.0[i])));
                }
            }
        }
    }
    corners.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(start, |b| b.0)
}
