//! The surface in projection, as a table of colours, and its term structure.

use super::svg::{Scale, colour, escape, number, path};
use crate::surface::{Surface, TermPoint};
use std::fmt::Write;

/// The surface to draw: volatilities by time and by strike in standard deviations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SurfacePanel {
    /// Strikes, in at-the-money standard deviations from the forward.
    pub columns: Vec<f64>,
    /// Times in years, evenly spread in their square root.
    pub times: Vec<f64>,
    /// Volatilities `[time][column]`.
    pub vols: Vec<Vec<f64>>,
    /// Expiries with their volatilities at −2, −1.5, … 2 standard deviations.
    pub table: Vec<(String, Vec<f64>)>,
    /// Volatility at the money and skew by expiry.
    pub term: Vec<TermPoint>,
    /// Calendar crossings found, and places looked at.
    pub crossings: (usize, usize),
}

/// Strikes of the table.
const TABLE: [f64; 9] = [-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0];
/// Steps of the drawing in each direction, and its half width.
const STEPS: u32 = 26;
const REACH: f64 = 2.2;

impl SurfacePanel {
    /// The panel of a surface.
    pub fn of(surface: &Surface) -> SurfacePanel {
        let share = |i: u32| f64::from(i) / f64::from(STEPS);
        let (first, last) = match (surface.smiles.first(), surface.smiles.last()) {
            (Some(first), Some(last)) => (first.years.sqrt(), last.years.sqrt()),
            _ => (0.0, 0.0),
        };
        let columns: Vec<f64> = (0..=STEPS).map(|i| REACH * (2.0 * share(i) - 1.0)).collect();
        let times: Vec<f64> = (0..=STEPS).map(|i| (first + (last - first) * share(i)).powi(2)).collect();
        let row = |years: f64, columns: &[f64]| {
            let sd = surface.variance(0.0, years).max(0.0).sqrt();
            columns.iter().map(|z| surface.vol(z * sd, years)).collect::<Vec<f64>>()
        };
        SurfacePanel {
            vols: times.iter().map(|t| row(*t, &columns)).collect(),
            table: surface.smiles.iter().map(|s| (s.expiry.to_string(), row(s.years, &TABLE))).collect(),
            columns,
            times,
            term: surface.term.clone(),
            crossings: (surface.crossings.len(), surface.checked),
        }
    }

    fn range(&self) -> (f64, f64) {
        let all =
            self.vols.iter().chain(self.table.iter().map(|row| &row.1)).flatten().filter(|v| v.is_finite());
        all.fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(*v), h.max(*v)))
    }
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 430.0;

/// Where the floor of the drawing lies, below the lowest volatility.
const FLOOR: f64 = -0.12;

/// Projects (strike, time, height), each in 0…1, to pixels: seen from the side of the near expiries, from above.
fn project(strike: f64, time: f64, height: f64) -> (f64, f64) {
    let (u, v) = (strike - 0.5, time - 0.5);
    let angle = 0.56f64;
    let x = u * angle.cos() - v * angle.sin();
    let depth = u * angle.sin() + v * angle.cos();
    (0.5 * WIDTH - 4.0 + 400.0 * x, 262.0 - 165.0 * depth - 165.0 * (height + FLOOR))
}

/// The projected surface.
pub(super) fn wireframe(out: &mut String, panel: &SurfacePanel) {
    let (low, high) = panel.range();
    let scale = Scale::new(low, high, 0.0, 1.0);
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Implied volatility surface, from {}% to {}%, by strike and time to expiry\"><title>Implied volatility surface</title>",
        number(100.0 * low, 0),
        number(100.0 * high, 0)
    );
    let n = panel.columns.len().saturating_sub(1).max(1) as f64;
    let rows = panel.times.len().saturating_sub(1).max(1) as f64;
    floor(out);
    // Painter's order: far rows first, and in each row the strikes that lie further back.
    for (j, pair) in panel.vols.windows(2).enumerate().rev() {
        let [near, far] = pair else { continue };
        let edges = near.windows(2).zip(far.windows(2)).enumerate().rev();
        for (i, (a, b)) in edges {
            let ([a0, a1], [b0, b1]) = (a, b) else { continue };
            let (x0, x1) = (i as f64 / n, (i + 1) as f64 / n);
            let (t0, t1) = (j as f64 / rows, (j + 1) as f64 / rows);
            let corners = [(x0, t0, a0), (x1, t0, a1), (x1, t1, b1), (x0, t1, b0)];
            let outline = path(corners.iter().map(|(x, t, v)| project(*x, *t, scale.at(**v))));
            let level = scale.at(0.25 * (a0 + a1 + b0 + b1));
            // Slopes that face away are a little darker, which makes the shape readable.
            let tilt = scale.at(*a1) - scale.at(*a0) + scale.at(*b0) - scale.at(*a0);
            let light = (1.0 + 1.1 * tilt).clamp(0.8, 1.12);
            let _ = write!(out, "<path class=\"quad\" fill=\"{}\" d=\"{outline}Z\"/>", colour(level, light));
        }
    }
    labels(out, panel, &scale);
    out.push_str("</svg>");
}

fn floor(out: &mut String) {
    for i in 0..=4 {
        let s = f64::from(i) / 4.0;
        for (from, to) in [((s, 0.0), (s, 1.0)), ((0.0, s), (1.0, s))] {
            let line = [project(from.0, from.1, FLOOR), project(to.0, to.1, FLOOR)];
            let _ = write!(out, "<path class=\"axis\" d=\"{}\"/>", path(line.into_iter()));
        }
    }
}

fn labels(out: &mut String, panel: &SurfacePanel, scale: &Scale) {
    let text = |out: &mut String, (x, y): (f64, f64), anchor: &str, text: &str| {
        let _ =
            write!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text));
    };
    for z in [-2.0, -1.0, 0.0, 1.0, 2.0] {
        let (x, y) = project((z + REACH) / (2.0 * REACH), 0.0, FLOOR);
        let label = if z == 0.0 {
            "forward".to_string()
        } else {
            format!("{}{}σ", if z < 0.0 { "−" } else { "" }, z.abs())
        };
        text(out, (x - 2.0, y + 16.0), "middle", &label);
    }
    let (first, last) = match (panel.times.first(), panel.times.last()) {
        (Some(first), Some(last)) => (first.sqrt(), last.sqrt()),
        _ => return,
    };
    for (days, label) in
        [(7.0, "1 w"), (30.4, "1 m"), (91.0, "3 m"), (182.0, "6 m"), (365.0, "1 y"), (730.0, "2 y")]
    {
        let share = ((days / 365.0f64).sqrt() - first) / (last - first);
        if (0.0..=1.0).contains(&share) {
            let (x, y) = project(0.0, share, FLOOR);
            text(out, (x - 9.0, y + 8.0), "end", label);
        }
    }
    for tick in scale.ticks(4) {
        let (x, y) = project(1.0, 0.0, scale.at(tick));
        let _ = write!(out, "<path class=\"axis\" d=\"M{:.1} {y:.1}h6\"/>", x + 4.0);
        text(out, (x + 13.0, y + 4.0), "start", &format!("{}%", number(100.0 * tick, 0)));
    }
}

/// The same as a table of coloured figures.
pub(super) fn heat(out: &mut String, panel: &SurfacePanel) {
    let (low, high) = panel.range();
    let scale = Scale::new(low, high, 0.0, 1.0);
    out.push_str("<div class=\"scroll\"><table class=\"heat\"><thead><tr><th scope=\"col\">expiry</th>");
    for z in TABLE {
        let sign = if z < 0.0 { "−" } else { "" };
        let label = if z == 0.0 { "forward".to_string() } else { format!("{sign}{}σ", z.abs()) };
        let _ = write!(out, "<th scope=\"col\">{label}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    for (expiry, vols) in &panel.table {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(expiry));
        for vol in vols {
            // Light enough for dark figures at both ends.
            let fill = colour(0.25 + 0.75 * scale.at(*vol), 1.0);
            let _ = write!(out, "<td style=\"background:{fill}\">{}</td>", number(100.0 * vol, 1));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
}

/// One figure by expiry, over the square root of time.
pub(super) fn term_chart(
    out: &mut String,
    title: &str,
    unit: &str,
    term: &[TermPoint],
    value: impl Fn(&TermPoint) -> f64,
) {
    let (width, height) = (600.0, 210.0);
    let values: Vec<f64> = term.iter().map(|t| 100.0 * value(t)).collect();
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let pad = (0.15 * (high - low)).max(0.5);
    let y = Scale::new(low - pad, high + pad, height - 26.0, 12.0);
    let far = term.iter().map(|t| t.years.sqrt()).fold(0.1, f64::max);
    let x = Scale::new(0.0, 1.02 * far, 44.0, width - 12.0);
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{} by expiry\">",
        escape(title)
    );
    for tick in y.ticks(4) {
        let at = y.at(tick);
        let decimals = usize::from(tick.fract() != 0.0);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M44 {at:.1}H{:.0}\"/><text x=\"38\" y=\"{:.1}\" text-anchor=\"end\">{}{unit}</text>",
            width - 12.0,
            at + 3.5,
            number(tick, decimals).replace('-', "−")
        );
    }
    for (days, label) in [
        (7.0, "1 w"),
        (30.4, "1 m"),
        (91.0, "3 m"),
        (182.0, "6 m"),
        (365.0, "1 y"),
        (547.0, "18 m"),
        (730.0, "2 y"),
    ] {
        let at = (days / 365.0f64).sqrt();
        if x.holds(at) {
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{label}</text>",
                x.at(at),
                height - 8.0
            );
        }
    }
    let places: Vec<(f64, f64)> =
        term.iter().zip(&values).map(|(t, v)| (x.at(t.years.sqrt()), y.at(*v))).collect();
    let _ = write!(out, "<path class=\"fit\" d=\"{}\"/>", path(places.iter().copied()));
    for ((t, v), (px, py)) in term.iter().zip(&values).zip(&places) {
        let _ = write!(
            out,
            "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"4\" fill=\"var(--card)\" stroke=\"var(--fit)\" stroke-width=\"2\"><title>{}: {}{unit}</title></circle>",
            t.expiry,
            number(*v, 2)
        );
    }
    out.push_str("</svg>");
}
