//! Text, numbers and scales for drawing.

use std::fmt::Write;

/// Escapes text for HTML content and attributes. Characters that HTML forbids become U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A number with so many decimals, or a dash where there is none.
pub(super) fn number(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { "–".to_string() }
}

/// A whole number with thin spaces between thousands.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A linear map from values to pixels.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    pub low: f64,
    pub high: f64,
    pub from: f64,
    pub to: f64,
}

impl Scale {
    /// Maps `[low, high]` to `[from, to]`; an empty or endless range becomes one around 0.
    pub(super) fn new(low: f64, high: f64, from: f64, to: f64) -> Scale {
        let sane = low.is_finite() && high.is_finite() && high > low;
        let (low, high) = if sane { (low, high) } else { (-1.0, 1.0) };
        Scale { low, high, from, to }
    }

    /// The pixel of a value, held within the range.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = if value.is_finite() { value.clamp(self.low, self.high) } else { self.low };
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    pub(super) fn holds(&self, value: f64) -> bool {
        value >= self.low && value <= self.high
    }

    /// About `wanted` round values inside the range.
    pub(super) fn ticks(&self, wanted: u32) -> Vec<f64> {
        let raw = (self.high - self.low) / f64::from(wanted.max(1));
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw);
        let step = step.unwrap_or(raw);
        let first = (self.low / step).ceil();
        let last = (self.high / step).floor();
        let n = (last - first).clamp(0.0, 50.0) as u32;
        (0..=n)
            .map(|i| {
                let tick = (first + f64::from(i)) * step;
                // Adding zero turns −0 into 0.
                if tick.abs() < 1e-9 * step { 0.0 } else { tick }
            })
            .collect()
    }
}

/// Appends a polyline's path data.
pub(super) fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut out = String::new();
    for (i, (x, y)) in points.enumerate() {
        let _ = write!(out, "{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
    }
    out
}

/// Dots as one path: each is a line of no length with round ends.
pub(super) fn dots(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut out = String::new();
    for (x, y) in points {
        let _ = write!(out, "M{x:.1} {y:.1}h0");
    }
    out
}

/// Colours from cool to warm, light enough for dark text at one end and dark at neither.
const RAMP: [(f64, f64, f64); 5] = [
    (49.0, 84.0, 150.0),
    (62.0, 138.0, 171.0),
    (126.0, 186.0, 160.0),
    (240.0, 205.0, 120.0),
    (217.0, 112.0, 76.0),
];

/// The colour at `share` (0 to 1) of the ramp, dimmed by `light` (1 is full).
pub(super) fn colour(share: f64, light: f64) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let place = share * (RAMP.len() - 1) as f64;
    let i = (place as usize).min(RAMP.len() - 2);
    let t = place - i as f64;
    let (a, b) = (RAMP[i], RAMP[i + 1]);
    let mix = |a: f64, b: f64| ((a + (b - a) * t) * light).clamp(0.0, 255.0) as u8;
    format!("#{:02x}{:02x}{:02x}", mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(escape("<b a=\"1\" c='2'>&\0"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;\u{fffd}");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(number(f64::NAN, 2), "–");
    }

    proptest! {
        #[test]
        fn scales_stay_inside_and_ticks_too(
            low in prop::num::f64::ANY, high in prop::num::f64::ANY, value in prop::num::f64::ANY, n in 0u32..20,
        ) {
            let scale = Scale::new(low, high, 10.0, 90.0);
            prop_assume!((scale.high - scale.low).is_finite());
            prop_assert!((9.99..=90.01).contains(&scale.at(value)));
            prop_assert!(scale.ticks(n).len() <= 51);
            prop_assert!(colour(value, 1.0).len() == 7);
        }

        #[test]
        fn escaped_text_has_no_markup(text in any::<String>()) {
            let safe = escape(&text);
            prop_assert!(!safe.contains(['<', '>', '"', '\'']));
        }
    }
}
