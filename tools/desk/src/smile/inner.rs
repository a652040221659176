//! The linear half of the SVI fit: for fixed `m` and `σ` the best level, tilt and slope.
//!
//! With `y = (k − m)/σ` the slice is `w = a + d·y + c·√(y² + 1)`, linear in `(a, d, c)` with `d = bρσ`, `c = bσ`. No
//! vertical wing and `b(1 + |ρ|) ≤ 2` are `|d| ≤ c` and `c + |d| ≤ 2σ`: a square standing on its corner. The level is
//! eliminated, which leaves a quadratic in `(d, c)` on that square: its minimum is inside or on one of four edges.
//! The split is that of Zeliade Systems, "Quasi-explicit calibration of Gatheral's SVI model" (2009).

use super::svi::Svi;

/// One observation: log-moneyness, total variance, weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub k: f64,
    pub w: f64,
    pub weight: f64,
}

/// Steeper wings than this are not fitted; Lee's bound is 2, where `g` tends to zero along the wing.
pub(super) const SLOPE_MAX: f64 = 1.95;

/// Weighted sums of the centred regressors and of the target.
struct Moments {
    mean: [f64; 3],
    yy: f64,
    yz: f64,
    zz: f64,
    yw: f64,
    zw: f64,
    ww: f64,
}

fn moments(samples: &[Sample], m: f64, sigma: f64) -> Option<Moments> {
    let regressors = |s: &Sample| {
        let y = (s.k - m) / sigma;
        (y, (y * y + 1.0).sqrt())
    };
    let (mut n, mut sums) = (0.0, [0.0; 3]);
    for sample in samples {
        let (y, z) = regressors(sample);
        n += sample.weight;
        for (sum, value) in sums.iter_mut().zip([y, z, sample.w]) {
            *sum += sample.weight * value;
        }
    }
    if n.is_nan() || n <= 0.0 {
        return None;
    }
    let mean = sums.map(|sum| sum / n);
    let mut out = Moments { mean, yy: 0.0, yz: 0.0, zz: 0.0, yw: 0.0, zw: 0.0, ww: 0.0 };
    for sample in samples {
        let (y, z) = regressors(sample);
        let [dy, dz, dw] = [y - mean[0], z - mean[1], sample.w - mean[2]];
        out.yy += sample.weight * dy * dy;
        out.yz += sample.weight * dy * dz;
        out.zz += sample.weight * dz * dz;
        out.yw += sample.weight * dy * dw;
        out.zw += sample.weight * dz * dw;
        out.ww += sample.weight * dw * dw;
    }
    Some(out)
}

impl Moments {
    /// Weighted sum of squared residuals at `(d, c)` with the best level.
    fn cost(&self, d: f64, c: f64) -> f64 {
        self.ww - 2.0 * (d * self.yw + c * self.zw)
            + d * d * self.yy
            + 2.0 * d * c * self.yz
            + c * c * self.zz
    }

    /// The best point of the segment from `p` to `q`.
    fn on_edge(&self, p: (f64, f64), q: (f64, f64)) -> (f64, f64) {
        let (ud, uc) = (q.0 - p.0, q.1 - p.1);
        let curvature = ud * ud * self.yy + 2.0 * ud * uc * self.yz + uc * uc * self.zz;
        let slope =
            ud * (self.yw - p.0 * self.yy - p.1 * self.yz) + uc * (self.zw - p.0 * self.yz - p.1 * self.zz);
        let t = if curvature > 0.0 { (slope / curvature).clamp(0.0, 1.0) } else { 0.0 };
        (p.0 + t * ud, p.1 + t * uc)
    }
}

/// The best slice with this `m` and `sigma`, and its weighted sum of squared residuals.
pub(super) fn best(samples: &[Sample], m: f64, sigma: f64) -> Option<(Svi, f64)> {
    let sums = moments(samples, m, sigma)?;
    let half = 0.5 * SLOPE_MAX * sigma;
    let determinant = sums.yy * sums.zz - sums.yz * sums.yz;
    let mut point = None;
    if determinant > 1e-12 * sums.yy * sums.zz {
        let d = (sums.yw * sums.zz - sums.zw * sums.yz) / determinant;
        let c = (sums.zw * sums.yy - sums.yw * sums.yz) / determinant;
        if d.abs() <= c && c + d.abs() <= 2.0 * half {
            point = Some((d, c));
        }
    }
    let (d, c) = point.unwrap_or_else(|| {
        let corners = [(0.0, 0.0), (half, half), (0.0, 2.0 * half), (-half, half)];
        let next = corners.iter().cycle().skip(1);
        let edges = corners.iter().zip(next).map(|(p, q)| sums.on_edge(*p, *q));
        edges.min_by(|a, b| sums.cost(a.0, a.1).total_cmp(&sums.cost(b.0, b.1))).unwrap_or((0.0, 0.0))
    });
    let a = sums.mean[2] - d * sums.mean[0] - c * sums.mean[1];
    let rho = if c > 0.0 { (d / c).clamp(-1.0, 1.0) } else { 0.0 };
    let svi = Svi { a, b: c / sigma, rho, m, sigma };
    let cost = sums.cost(d, c).max(0.0);
    (a.is_finite() && cost.is_finite()).then_some((svi, cost))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_minimum_beats_every_other_point_of_the_square(
            values in prop::collection::vec(0.001f64..0.2, 8),
            m in -0.2f64..0.2, sigma in 0.02f64..0.6, u in 0.0f64..1.0, v in 0.0f64..1.0,
        ) {
            let samples: Vec<Sample> = values.iter().enumerate()
                .map(|(i, w)| Sample { k: -0.4 + 0.1 * i as f64, w: *w, weight: 1.0 + i as f64 }).collect();
            let (svi, cost) = best(&samples, m, sigma).unwrap();
            prop_assert!(svi.wing_slope() <= 2.0 && svi.rho.abs() <= 1.0 && svi.b >= 0.0);
            let direct: f64 = samples.iter().map(|s| s.weight * (svi.variance(s.k) - s.w).powi(2)).sum();
            prop_assert!((direct - cost).abs() <= 1e-9 * (direct + 1e-6));
            // Any point of the square: u along one pair of sides, v along the other.
            let half = 0.5 * SLOPE_MAX * sigma;
            let sums = moments(&samples, m, sigma).unwrap();
            prop_assert!(cost <= sums.cost(half * (u - v), half * (u + v)) + 1e-12);
        }

        #[test]
        fn exact_slices_come_back(b in 0.01f64..0.9, rho in -0.95f64..0.95, m in -0.2f64..0.2, sigma in 0.05f64..0.5) {
            let svi = Svi { a: 0.02, b, rho, m, sigma };
            let samples: Vec<Sample> = (-10..=10)
                .map(|i| 0.05 * f64::from(i)).map(|k| Sample { k, w: svi.variance(k), weight: 1.0 }).collect();
            let (found, cost) = best(&samples, m, sigma).unwrap();
            prop_assert!(cost < 1e-12);
            prop_assert!((found.b - b).abs() < 1e-5 && (found.rho - rho).abs() < 1e-4 && (found.a - 0.02).abs() < 1e-5);
        }
    }
}
