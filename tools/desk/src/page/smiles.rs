//! Small multiples of the smiles.

use super::svg::{Scale, dots, escape, number, path};
use crate::desk::{Slice, SliceError};
use crate::smile::{Residual, Smile};
use crate::vols::Vols;
use std::fmt::Write;

/// A point of the market: strike, distance from the forward in standard deviations, volatility, fitted volatility.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmilePoint {
    /// Strike.
    pub strike: f64,
    /// `ln(strike/forward)` over the at-the-money standard deviation.
    pub z: f64,
    /// Volatility of the market.
    pub market: f64,
    /// Volatility of the slice; not a number where there is none.
    pub fitted: f64,
}

/// One expiry's panel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SmilePanel {
    /// Heading: the expiry.
    pub expiry: String,
    /// Days to it.
    pub days: f64,
    /// Forward; not a number where there is none.
    pub forward: f64,
    /// Root mean square error in vol points; not a number where there is no slice.
    pub rms: f64,
    /// The same weighted by the points' certainty.
    pub rms_weighted: f64,
    /// Points that the slice rests on.
    pub used: Vec<SmilePoint>,
    /// Points refused or without weight.
    pub refused: Vec<SmilePoint>,
    /// The slice: distance from the forward in standard deviations and volatility.
    pub line: Vec<(f64, f64)>,
    /// Why there is no slice.
    pub why: Option<String>,
}

/// Half width of the panels, in standard deviations.
const REACH: f64 = 4.0;

impl SmilePanel {
    /// The panel of a fitted expiry.
    pub fn of(slice: &Slice) -> SmilePanel {
        let smile = &slice.smile;
        let sd = smile.svi.variance(0.0).max(1e-12).sqrt();
        let point =
            |strike: f64, k: f64, market: f64| SmilePoint { strike, z: k / sd, market, fitted: smile.vol(k) };
        let (used, weightless): (Vec<&Residual>, Vec<&Residual>) =
            smile.residuals.iter().partition(|r| r.used);
        let mut refused: Vec<SmilePoint> =
            weightless.iter().map(|r| point(r.strike, r.k, r.market)).collect();
        refused.extend(slice.vols.refused.iter().filter_map(|r| Some(point(r.strike, r.k, r.vol?))));
        SmilePanel {
            expiry: smile.expiry.to_string(),
            days: smile.years * 365.0,
            forward: smile.forward,
            rms: smile.rms,
            rms_weighted: smile.rms_weighted,
            used: used.iter().map(|r| point(r.strike, r.k, r.market)).collect(),
            refused,
            line: line(smile, sd),
            why: None,
        }
    }

    /// The panel of an expiry of which nothing is known, and why.
    pub fn empty(expiry: &str, why: &str) -> SmilePanel {
        SmilePanel {
            expiry: expiry.to_string(),
            days: f64::NAN,
            forward: f64::NAN,
            rms: f64::NAN,
            rms_weighted: f64::NAN,
            why: Some(why.to_string()),
            ..SmilePanel::default()
        }
    }

    /// The panel of an expiry without a slice.
    pub fn failed(expiry: &str, error: &SliceError) -> SmilePanel {
        let mut panel = SmilePanel::empty(expiry, &error.to_string());
        if let SliceError::Smile { forward, vols, .. } = error {
            panel.days = forward.years * 365.0;
            panel.forward = forward.forward;
            panel.refused = bare(vols);
        }
        panel
    }
}

fn line(smile: &Smile, sd: f64) -> Vec<(f64, f64)> {
    let used = smile.residuals.iter().filter(|r| r.used).map(|r| r.k / sd);
    let (low, high) = used.fold((0.0f64, 0.0f64), |(l, h), z| (l.min(z), h.max(z)));
    let (low, high) = ((low - 0.3).max(-REACH), (high + 0.3).min(REACH));
    (0..=60).map(|i| low + (high - low) * f64::from(i) / 60.0).map(|z| (z, smile.vol(z * sd))).collect()
}

/// Points without a slice, in standard deviations of their own middle volatility.
fn bare(vols: &Vols) -> Vec<SmilePoint> {
    let mut levels: Vec<f64> = vols.points.iter().map(|p| p.vol).collect();
    levels.sort_by(f64::total_cmp);
    let sd = levels.get(levels.len() / 2).copied().unwrap_or(0.2) * vols.years.max(1e-6).sqrt();
    let point = |p: &crate::vols::VolPoint| SmilePoint {
        strike: p.strike,
        z: p.k / sd,
        market: p.vol,
        fitted: f64::NAN,
    };
    vols.points.iter().map(point).collect()
}

const WIDTH: f64 = 290.0;
const HEIGHT: f64 = 178.0;

/// All panels of a day.
pub(super) fn panels(out: &mut String, smiles: &[SmilePanel]) {
    out.push_str("<div class=\"smiles\">");
    for panel in smiles {
        draw(out, panel);
    }
    out.push_str("</div>");
}

fn draw(out: &mut String, panel: &SmilePanel) {
    let mut aside = Vec::new();
    if panel.days.is_finite() {
        aside.push(format!("{} days", number(panel.days, 0)));
    }
    if panel.why.is_none() {
        aside.push(format!("{} points", panel.used.len()));
    }
    let aside = aside.join(" · ");
    let _ =
        write!(out, "<article class=\"card smile\"><h3>{}<span>{aside}</span></h3>", escape(&panel.expiry));
    if let Some(why) = &panel.why {
        let _ = write!(out, "<p class=\"why\">No smile. {}</p></article>", escape(why));
        return;
    }
    let _ = write!(
        out,
        "<p>forward {} · rms {} · weighted {}</p>",
        number(panel.forward, 2),
        number(panel.rms, 2),
        number(panel.rms_weighted, 2)
    );
    let shown = panel.used.iter().filter(|p| p.z.abs() <= REACH).map(|p| p.market);
    let (low, high) = shown
        .chain(panel.line.iter().map(|p| p.1))
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
    let x = Scale::new(-REACH, REACH, 34.0, WIDTH - 6.0);
    let y = Scale::new((low - 0.02).max(0.0), high + 0.02, HEIGHT - 20.0, 18.0);
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Implied volatility by strike for {}: {} market points and the fitted line\" data-p=\"",
        escape(&panel.expiry),
        panel.used.len()
    );
    for p in panel.used.iter().filter(|p| x.holds(p.z)) {
        let _ = write!(
            out,
            "{:.0},{},{}%,{}%;",
            x.at(p.z),
            number(p.strike, 2),
            number(100.0 * p.market, 1),
            number(100.0 * p.fitted, 1)
        );
    }
    out.push_str("\">");
    for tick in y.ticks(4) {
        let at = y.at(tick);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M34 {at:.1}H{:.0}\"/><text x=\"29\" y=\"{:.1}\" text-anchor=\"end\">{}%</text>",
            WIDTH - 6.0,
            at + 3.5,
            number(100.0 * tick, 0)
        );
    }
    let _ = write!(out, "<path class=\"zero\" d=\"M{0:.1} 18V{1:.1}\"/>", x.at(0.0), HEIGHT - 20.0);
    for (tick, label) in [(-3.0, "−3σ"), (-1.5, "−1.5"), (0.0, "forward"), (1.5, "1.5"), (3.0, "3σ")] {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{label}</text>",
            x.at(tick),
            HEIGHT - 6.0
        );
    }
    let inside = |p: &&SmilePoint| x.holds(p.z) && y.holds(p.market);
    let place = |p: &SmilePoint| (x.at(p.z), y.at(p.market));
    let _ =
        write!(out, "<path class=\"off\" d=\"{}\"/>", dots(panel.refused.iter().filter(inside).map(place)));
    let _ = write!(out, "<path class=\"dots\" d=\"{}\"/>", dots(panel.used.iter().filter(inside).map(place)));
    let _ = write!(
        out,
        "<path class=\"fit\" d=\"{}\"/>",
        path(panel.line.iter().map(|p| (x.at(p.0), y.at(p.1))))
    );
    let _ = write!(
        out,
        "<text class=\"read\" x=\"{:.0}\" y=\"11\" text-anchor=\"end\"></text></svg></article>",
        WIDTH - 6.0
    );
}

/// What the marks of the panels mean.
pub(super) fn key(out: &mut String) {
    out.push_str(
        "<div class=\"key\"><span><i class=\"round\" style=\"background:var(--dot)\"></i>out-of-the-money quote</span>\
         <span><i class=\"round\" style=\"background:var(--off);opacity:.5\"></i>refused, or without weight</span>\
         <span><i style=\"background:var(--fit);height:3px;vertical-align:3px\"></i>SVI fit, free of butterfly arbitrage</span>\
         <span>rms in vol points, plain and weighted by each quote's certainty; strikes in standard deviations from the forward</span></div>",
    );
}
