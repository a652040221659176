//! One self-contained HTML page: smiles, surface, term structure, dependency graph, tables and what changed.
//!
//! Everything is inline: style, drawings (SVG) and a small script. The page loads nothing, follows the reader's light or
//! dark setting, and can be read without the script. All text is escaped.

mod smiles;
mod style;
mod surface;
mod svg;
mod tables;

pub use smiles::{SmilePanel, SmilePoint};
pub use surface::SurfacePanel;
pub use tables::{LatencyRow, RunRow, SlotRow};

use crate::desk::Night;
use std::fmt::Write;
use svg::{count, escape};
use underbelly::{GraphView, Timestamp};
use underbelly_drawing::{Frame, graph_svg};

/// A headline figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The figure, as it is to be shown.
    pub value: String,
    /// What it counts.
    pub label: String,
}

impl Figure {
    /// A figure from any text.
    pub fn text(value: impl Into<String>, label: impl Into<String>) -> Figure {
        Figure { value: value.into(), label: label.into() }
    }

    /// A count, with its thousands apart.
    pub fn count(value: u64, label: impl Into<String>) -> Figure {
        Figure { value: count(value), label: label.into() }
    }

    /// Some of a number, as `119 / 134`.
    pub fn share(value: u64, of: u64, label: impl Into<String>) -> Figure {
        Figure { value: format!("{} / {}", count(value), count(of)), label: label.into() }
    }
}

/// A counted line of what changed.
#[derive(Clone, Debug, PartialEq)]
pub struct StoryLine {
    /// How many.
    pub count: u64,
    /// Of what, and why.
    pub text: String,
}

/// The results of one date.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Day {
    /// The date.
    pub date: String,
    /// Panels by expiry.
    pub smiles: Vec<SmilePanel>,
    /// The surface, where there is one.
    pub surface: Option<SurfacePanel>,
}

impl Day {
    /// The panels of a date's results.
    pub fn of(night: &Night) -> Day {
        let panel = |(expiry, slice): &(crate::chain::Date, Result<_, _>)| match slice {
            Ok(slice) => SmilePanel::of(slice),
            Err(error) => SmilePanel::failed(&expiry.to_string(), error),
        };
        Day {
            date: night.date.to_string(),
            smiles: night.slices.iter().map(panel).collect(),
            surface: night.surface.as_ref().ok().map(SurfacePanel::of),
        }
    }
}

/// Everything that the page shows. Empty parts are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Heading.
    pub title: String,
    /// A sentence under it.
    pub subtitle: String,
    /// Headline figures.
    pub figures: Vec<Figure>,
    /// What changed.
    pub story: Vec<StoryLine>,
    /// Results by date; with more than one, tabs choose.
    pub days: Vec<Day>,
    /// Slots and producers.
    pub graph: GraphView,
    /// The instant that ages in the graph are counted to.
    pub as_of: Timestamp,
    /// Slots by state.
    pub slots: Vec<SlotRow>,
    /// Runs by producer.
    pub runs: Vec<RunRow>,
    /// Times by step.
    pub latencies: Vec<LatencyRow>,
    /// A line at the end.
    pub footer: String,
}

impl Page {
    /// The page as HTML.
    pub fn html(&self) -> String {
        let mut out = String::with_capacity(1 << 18);
        let _ = write!(
            out,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <title>{}</title><style>{}</style></head><body><main><header><h1>{}</h1><p class=\"sub\">{}</p></header>",
            escape(&self.title),
            style::CSS,
            escape(&self.title),
            escape(&self.subtitle)
        );
        self.figures(&mut out);
        self.story(&mut out);
        self.graph(&mut out);
        self.tables(&mut out);
        self.days(&mut out);
        if !self.footer.is_empty() {
            let _ = write!(out, "<footer>{}</footer>", escape(&self.footer));
        }
        let _ = write!(out, "</main><script>{}</script></body></html>", style::SCRIPT);
        out
    }

    fn figures(&self, out: &mut String) {
        if self.figures.is_empty() {
            return;
        }
        out.push_str("<ul class=\"figures\">");
        for figure in &self.figures {
            let _ = write!(
                out,
                "<li class=\"card\"><b>{}</b><span>{}</span></li>",
                escape(&figure.value),
                escape(&figure.label)
            );
        }
        out.push_str("</ul>");
    }

    fn story(&self, out: &mut String) {
        if self.story.is_empty() {
            return;
        }
        out.push_str("<h2>What changed</h2><ul class=\"card story\">");
        for line in &self.story {
            let _ = write!(out, "<li><b>{}</b><span>{}</span></li>", count(line.count), escape(&line.text));
        }
        out.push_str("</ul>");
    }

    fn graph(&self, out: &mut String) {
        if self.graph.nodes.is_empty() {
            return;
        }
        out.push_str("<h2>Dependency graph</h2><div class=\"card wide graph\" style=\"margin-top:12px\">");
        out.push_str(&graph_svg(&self.graph, self.as_of, Frame::Inline));
        out.push_str("</div>");
    }

    fn tables(&self, out: &mut String) {
        if self.slots.is_empty() && self.runs.is_empty() && self.latencies.is_empty() {
            return;
        }
        out.push_str("<div class=\"three\">");
        if !self.slots.is_empty() {
            tables::slots(out, &self.slots);
        }
        if !self.runs.is_empty() {
            tables::runs(out, &self.runs);
        }
        if !self.latencies.is_empty() {
            tables::latencies(out, &self.latencies);
        }
        out.push_str("</div>");
    }

    fn days(&self, out: &mut String) {
        let many = self.days.len() > 1;
        if many {
            out.push_str("<div class=\"tabs\" role=\"tablist\" aria-label=\"Dates\" hidden>");
            for (i, day) in self.days.iter().enumerate() {
                let _ = write!(
                    out,
                    "<button role=\"tab\" id=\"tab{i}\" aria-controls=\"day{i}\" aria-selected=\"false\">{}</button>",
                    escape(&day.date)
                );
            }
            out.push_str("</div>");
        }
        for (i, day) in self.days.iter().enumerate() {
            let role =
                if many { format!(" role=\"tabpanel\" aria-labelledby=\"tab{i}\"") } else { String::new() };
            let _ = write!(out, "<section id=\"day{i}\"{role}>");
            day.draw(out);
            out.push_str("</section>");
        }
    }
}

impl Day {
    fn draw(&self, out: &mut String) {
        let date = escape(&self.date);
        if let Some(panel) = &self.surface {
            let _ = write!(
                out,
                "<h2>Surface of {date}</h2><p class=\"lead\">Implied volatility by strike and time; linear in total variance between expiries. \
                 Calendar arbitrage at {} of {} places checked.</p>",
                panel.crossings.0, panel.crossings.1
            );
            out.push_str("<div class=\"two\"><div class=\"card chart\">");
            surface::wireframe(out, panel);
            out.push_str("</div><div class=\"card\"><h3>Volatility by strike, per cent</h3>");
            surface::heat(out, panel);
            out.push_str("</div></div><div class=\"pair\"><div class=\"card chart\"><h3>Volatility at the forward</h3>");
            surface::term_chart(out, "Volatility at the forward", "%", &panel.term, |t| t.atm_vol);
            out.push_str(
                "</div><div class=\"card chart\"><h3>Skew <span class=\"note\">25-delta put less 25-delta call, vol points</span></h3>",
            );
            surface::term_chart(out, "25-delta skew", "", &panel.term, |t| t.skew_25);
            out.push_str("</div></div>");
        }
        if !self.smiles.is_empty() {
            let fitted = self.smiles.iter().filter(|s| s.why.is_none()).count();
            let _ = write!(
                out,
                "<h2>Smiles of {date}</h2><p class=\"lead\">{fitted} of {} expiries fitted.</p>",
                self.smiles.len()
            );
            smiles::key(out);
            smiles::panels(out, &self.smiles);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::{DeskSettings, night};
    use crate::simulate::{MarketSettings, day};
    use underbelly::{EdgeRole, GraphEdge, GraphNode};

    fn evil() -> Page {
        let text = || "<script>alert('\"&')</script>\0".to_string();
        let mut graph = GraphView::default();
        graph.nodes = vec![GraphNode::slot(text()), GraphNode::producer(text())];
        graph.edges = vec![GraphEdge::new(0, 1, EdgeRole::REQUIRED), GraphEdge::new(0, 7, EdgeRole::OUTPUT)];
        Page {
            title: text(),
            subtitle: text(),
            figures: vec![Figure { value: text(), label: text() }],
            story: vec![StoryLine { count: u64::MAX, text: text() }],
            days: vec![
                Day {
                    date: text(),
                    smiles: vec![
                        SmilePanel { expiry: text(), why: Some(text()), ..SmilePanel::default() },
                        SmilePanel {
                            used: vec![SmilePoint {
                                strike: f64::NAN,
                                z: f64::NAN,
                                market: f64::INFINITY,
                                fitted: -1.0,
                            }],
                            line: vec![(f64::NAN, f64::NAN), (1e300, -1e300)],
                            ..SmilePanel::default()
                        },
                    ],
                    surface: Some(SurfacePanel {
                        vols: vec![vec![f64::NAN; 3]; 3],
                        ..SurfacePanel::default()
                    }),
                },
                Day::default(),
            ],
            graph,
            as_of: Timestamp(0),
            slots: vec![SlotRow { slot: text(), cells: vec![(text(), 1)] }],
            runs: vec![RunRow { producer: text(), done: 1, failed: 0, declined: 2 }],
            latencies: vec![LatencyRow { step: text(), count: 1, p50_us: f64::NAN, p99_us: 1e12 }],
            footer: text(),
        }
    }

    #[test]
    fn hostile_text_and_numbers_stay_text() {
        let html = evil().html();
        assert_eq!(html.matches("<script>").count(), 1, "only the page's own script");
        assert!(!html.contains("alert('"));
        assert!(!html.contains("NaN") && !html.contains("inf%"));
    }

    #[test]
    fn an_empty_page_is_a_page() {
        let html = Page::default().html();
        assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>"));
        assert!(!html.contains("<h2>"));
    }

    #[test]
    fn a_simulated_night_is_drawn_and_loads_nothing() {
        let simulated = day(&MarketSettings::default(), 0);
        let night = night(&simulated.chain, &DeskSettings::default());
        let html = Page { days: vec![Day::of(&night)], ..Page::default() }.html();
        assert_eq!(html.matches("<article").count(), simulated.chain.expiries.len());
        assert!(html.matches("class=\"quad\"").count() > 400);
        for outside in ["http://", "https://", "src=", "@import", "url(//"] {
            assert!(!html.contains(outside), "{outside}");
        }
        for (open, close) in
            [("<svg", "</svg>"), ("<table", "</table>"), ("<div", "</div>"), ("<section", "</section>")]
        {
            assert_eq!(html.matches(open).count(), html.matches(close).count(), "{open}");
        }
    }
}
