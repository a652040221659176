//! Raw SVI: `w(k) = a + b·(ρ·(k − m) + √((k − m)² + σ²))`, total variance by log-moneyness (J. Gatheral, 2004).

/// Parameters of one slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Svi {
    /// Level.
    pub a: f64,
    /// Slope of the wings: they rise as `b·(1 ± ρ)`.
    pub b: f64,
    /// Tilt, in [−1, 1].
    pub rho: f64,
    /// Where the hyperbola is centred, in log-moneyness.
    pub m: f64,
    /// Roundness of the vertex, above 0.
    pub sigma: f64,
}

/// Where and how deep the density of a slice is lowest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Butterfly {
    /// Smallest value of Durrleman's function `g`; below 0 there is butterfly arbitrage.
    pub g_min: f64,
    /// Its log-moneyness.
    pub k: f64,
}

impl Svi {
    /// A flat smile of this total variance.
    pub fn flat(variance: f64) -> Svi {
        Svi { a: variance, b: 0.0, rho: 0.0, m: 0.0, sigma: 0.1 }
    }

    /// Total variance at log-moneyness `k`.
    pub fn variance(&self, k: f64) -> f64 {
        let y = k - self.m;
        self.a + self.b * (self.rho * y + (y * y + self.sigma * self.sigma).sqrt())
    }

    /// Volatility at log-moneyness `k`, per square root of a year.
    pub fn vol(&self, k: f64, years: f64) -> f64 {
        (self.variance(k).max(0.0) / years).sqrt()
    }

    /// The least total variance of the slice.
    pub fn variance_min(&self) -> f64 {
        self.a + self.b * self.sigma * (1.0 - self.rho * self.rho).max(0.0).sqrt()
    }

    /// The steeper wing's slope; above 2 the moments of the price do not exist (R. Lee, 2004).
    pub fn wing_slope(&self) -> f64 {
        self.b * (1.0 + self.rho.abs())
    }

    /// Durrleman's `g(k)`: the density of the log-price times a positive factor.
    pub fn durrleman(&self, k: f64) -> f64 {
        let y = k - self.m;
        let root = (y * y + self.sigma * self.sigma).sqrt();
        let w = self.a + self.b * (self.rho * y + root);
        let first = self.b * (self.rho + y / root);
        let second = self.b * self.sigma * self.sigma / (root * root * root);
        let tilt = 1.0 - 0.5 * k * first / w;
        tilt * tilt - 0.25 * first * first * (1.0 / w + 0.25) + 0.5 * second
    }

    /// Where `g` is looked at: `|k| ≤ reach` on `steps` equal steps, more finely around the vertex, where curvature may
    /// hide between the equal steps, and along the wings geometrically up to 100 times further.
    fn grid(&self, reach: f64, steps: u32) -> impl Iterator<Item = f64> {
        let (m, sigma, steps) = (self.m, self.sigma, steps.max(8));
        let inside = (0..=steps).flat_map(move |i| {
            let u = 2.0 * f64::from(i) / f64::from(steps) - 1.0;
            [u * reach, m + 8.0 * sigma * u * u * u]
        });
        let outside = (1..=12).flat_map(move |i| {
            let far = reach * 100f64.powf(f64::from(i) / 12.0);
            [far, -far]
        });
        inside.chain(outside)
    }

    /// The minimum of `g` over a grid of log-moneyness, which covers `|k| ≤ reach` in `steps` steps, the neighbourhood
    /// of the vertex, and both wings.
    pub fn butterfly(&self, reach: f64, steps: u32) -> Butterfly {
        let mut worst = Butterfly { g_min: f64::INFINITY, k: 0.0 };
        for k in self.grid(reach, steps) {
            let g = self.durrleman(k);
            // A slice whose variance touches zero has no density there.
            let g = if g.is_nan() { f64::NEG_INFINITY } else { g };
            if g < worst.g_min {
                worst = Butterfly { g_min: g, k };
            }
        }
        worst
    }

    /// True where variance is positive and `g` is nowhere negative on the grid of [`Svi::butterfly`].
    pub(super) fn is_sound(&self, reach: f64, steps: u32) -> bool {
        self.variance_min() > 0.0 && self.grid(reach, steps).all(|k| self.durrleman(k) >= 0.0)
    }

    /// True without butterfly arbitrage on the grid of [`Svi::butterfly`], with wings that Lee's bound allows.
    pub fn is_arbitrage_free(&self, reach: f64) -> bool {
        self.wing_slope() <= 2.0 && self.is_sound(reach, 400)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_flat_smile_has_the_lognormal_density() {
        let flat = Svi::flat(0.04);
        assert_eq!(flat.durrleman(0.3), 1.0);
        assert!(flat.is_arbitrage_free(2.0));
        assert!((flat.vol(1.0, 0.25) - 0.4).abs() < 1e-15);
    }

    #[test]
    fn the_classic_bad_slice_is_found() {
        // Axel Vogt's example, as in Gatheral and Jacquier, "Arbitrage-free SVI volatility surfaces" (2014).
        let vogt = Svi { a: -0.041, b: 0.1331, rho: 0.306, m: 0.3586, sigma: 0.4153 };
        let worst = vogt.butterfly(1.5, 400);
        assert!(worst.g_min < 0.0 && (0.5..1.3).contains(&worst.k), "{worst:?}");
        assert!(!vogt.is_arbitrage_free(1.5));
    }

    #[test]
    fn steep_wings_and_negative_variance_are_refused() {
        assert!(!Svi { a: 0.01, b: 1.2, rho: -0.8, m: 0.0, sigma: 0.1 }.is_arbitrage_free(1.0));
        assert!(!Svi { a: -0.2, b: 0.1, rho: 0.0, m: 0.0, sigma: 0.1 }.is_arbitrage_free(1.0));
    }

    proptest! {
        #[test]
        fn g_agrees_with_finite_differences(
            a in 0.01f64..0.1, b in 0.0f64..0.5, rho in -0.9f64..0.9, m in -0.2f64..0.2, sigma in 0.05f64..0.5,
            k in -1.0f64..1.0,
        ) {
            let svi = Svi { a, b, rho, m, sigma };
            let h = 1e-4;
            let w = svi.variance(k);
            let first = (svi.variance(k + h) - svi.variance(k - h)) / (2.0 * h);
            let second = (svi.variance(k + h) - 2.0 * w + svi.variance(k - h)) / (h * h);
            let g = (1.0 - k * first / (2.0 * w)).powi(2) - first * first / 4.0 * (1.0 / w + 0.25) + second / 2.0;
            prop_assert!((g - svi.durrleman(k)).abs() < 1e-4 * (1.0 + g.abs()), "{g} {}", svi.durrleman(k));
        }
    }
}
