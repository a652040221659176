//! The frame of every SVG: ground, style, heading and legend.

use std::fmt::Write;

use underbelly::{State, Timestamp};

use crate::escape::xml;
use crate::palette::{WORST_FIRST, dark, letter, light};
use crate::words::pixels;

/// Where an SVG stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frame {
    /// In a file of its own: with a ground and a heading.
    #[default]
    Alone,
    /// In an HTML page that has a ground and a heading. A page holds one such drawing of a kind.
    Inline,
}

pub(crate) const MARGIN: f64 = 20.0;
/// Size of letters: names, everything else.
pub(crate) const NAME: f64 = 13.0;
pub(crate) const SMALL: f64 = 11.0;
/// Height of a chip, and the room between chips.
pub(crate) const CHIP: f64 = 16.0;
pub(crate) const CHIP_GAP: f64 = 4.0;

/// Height of the heading.
const HEADING: f64 = 30.0;
/// Height of a line of the legend.
const LEGEND: f64 = 26.0;

/// An SVG under way.
pub(crate) struct Sheet {
    out: String,
    frame: Frame,
}

/// A part of the legend: markup that begins at 0, and its width.
pub(crate) struct Entry {
    pub(crate) markup: String,
    pub(crate) width: f64,
}

/// The class that colours a state.
pub(crate) fn class(state: State) -> String {
    format!("st-{}", letter(state).to_ascii_lowercase())
}

/// A chip with the initial of a state and a text.
pub(crate) fn chip(out: &mut String, state: State, text: &str, x: f64, y: f64) {
    let text = chip_text(state, text);
    let width = chip_width(&text);
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<g class=\"{}\"><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{CHIP}\" rx=\"3\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text></g>",
        class(state),
        x + 0.5 * width,
        y + 12.0,
        xml(&text)
    );
}

fn chip_text(state: State, text: &str) -> String {
    format!("{} {text}", letter(state))
}

fn chip_width(text: &str) -> f64 {
    (pixels(text, SMALL) + 10.0).ceil()
}

/// The width of a row of chips.
pub(crate) fn chips_width(chips: &[(State, String)]) -> f64 {
    let widths = chips.iter().map(|(state, text)| chip_width(&chip_text(*state, text)) + CHIP_GAP);
    (widths.sum::<f64>() - CHIP_GAP).max(0.0)
}

/// A row of chips.
pub(crate) fn chips(out: &mut String, chips: &[(State, String)], x: f64, y: f64) {
    let mut x = x;
    for (state, text) in chips {
        chip(out, *state, text, x, y);
        x += chip_width(&chip_text(*state, text)) + CHIP_GAP;
    }
}

/// The states, as the legend tells them.
pub(crate) fn states() -> Vec<Entry> {
    let entry = |state: State| {
        let mut markup = String::new();
        chip(&mut markup, state, state.name(), 0.0, 0.0);
        Entry { markup, width: chip_width(&chip_text(state, state.name())) }
    };
    WORST_FIRST.into_iter().map(entry).collect()
}

/// The lines that a legend takes, as the entries of each.
fn legend_lines(legend: Vec<Entry>, room: f64) -> Vec<Vec<Entry>> {
    let mut lines: Vec<Vec<Entry>> = Vec::new();
    let mut left = 0.0;
    for entry in legend {
        let width = entry.width + 14.0;
        match lines.last_mut().filter(|_| left >= entry.width) {
            Some(line) => line.push(entry),
            None => {
                lines.push(vec![entry]);
                left = room;
            }
        }
        left -= width;
    }
    lines
}

impl Sheet {
    /// Begins an SVG for a body of this size and says where the body's upper left corner is. `title` is for the reader
    /// and for programs that read aloud.
    pub(crate) fn begin(
        frame: Frame,
        title: &str,
        now: Timestamp,
        legend: Vec<Entry>,
        (body_width, body_height): (f64, f64),
    ) -> (Sheet, f64, f64) {
        let second = Timestamp(now.0.saturating_sub(now.0.rem_euclid(1_000_000_000)));
        let heading = format!("{title}, as of {second}");
        let least = match frame {
            Frame::Alone => (pixels(&heading, NAME) + 20.0).max(420.0),
            Frame::Inline => 420.0,
        };
        let room = body_width.max(least);
        let lines = legend_lines(legend, room);
        let head = match frame {
            Frame::Alone => HEADING,
            Frame::Inline => 0.0,
        };
        let top = MARGIN + head + lines.len() as f64 * LEGEND + 8.0;
        let (width, height) = ((room + 2.0 * MARGIN).ceil(), (top + body_height + MARGIN).ceil());
        // HTML knows what an SVG is.
        let namespace = match frame {
            Frame::Alone => " xmlns=\"http://www.w3.org/2000/svg\"",
            Frame::Inline => "",
        };
        let mut out = format!(
            "<svg{namespace} class=\"ub\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{}</title>\n<style>{}</style>\n",
            xml(&heading),
            style()
        );
        if frame == Frame::Alone {
            // Writing to a string does not fail.
            let _ = write!(
                out,
                "<rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n\
                 <text class=\"name\" x=\"{MARGIN}\" y=\"{:.1}\">{}</text>\n",
                MARGIN + 13.0,
                xml(&heading)
            );
        }
        for (row, line) in lines.into_iter().enumerate() {
            let y = MARGIN + head + row as f64 * LEGEND;
            let mut x = MARGIN;
            for entry in line {
                let _ = writeln!(out, "<g transform=\"translate({x:.1} {y:.1})\">{}</g>", entry.markup);
                x += entry.width + 14.0;
            }
        }
        (Sheet { out, frame }, MARGIN, top)
    }

    /// Where markup is written.
    pub(crate) fn out(&mut self) -> &mut String {
        &mut self.out
    }

    /// Ends the SVG.
    pub(crate) fn end(mut self) -> String {
        self.out.push_str("</svg>");
        if self.frame == Frame::Alone {
            self.out.push('\n');
        }
        self.out
    }
}

/// All selectors begin with the class of the drawing, so that a page around it keeps its own style.
fn style() -> String {
    let mut css = String::from(
        ".ub text{font:11px system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",Arial,sans-serif;fill:#556171}\
         .ub .name{font-size:13px;font-weight:600;fill:#18212c}.ub .ink{fill:#18212c}.ub .bad{fill:#b0271c;font-weight:600}\
         .ub .ground{fill:#ffffff}.ub .box{fill:#f6f8fa;stroke:#8b97a6}.ub .producer .box{fill:#ffffff}\
         .ub .failing .box{stroke:#cc3428;stroke-width:2}.ub .none{fill:none;stroke:#ccd3db}\
         .ub .edge{fill:none;stroke:#738091;stroke-width:1.4}.ub .pair{stroke-width:4.6}.ub .core{stroke:#ffffff;stroke-width:1.8}\
         .ub .optional{stroke-dasharray:7 5}.ub .exclusive{stroke-dasharray:1.6 4.4;stroke-linecap:round;stroke-width:2}\
         .ub .head{fill:#738091}.ub .label{paint-order:stroke;stroke:#ffffff;stroke-width:3px;stroke-linejoin:round}",
    );
    // Writing to a string does not fail.
    for state in State::ALL {
        let (class, paint) = (class(state), light(state));
        let _ =
            write!(css, ".ub .{class} rect{{fill:{}}}.ub .{class} text{{fill:{}}}", paint.fill, paint.ink);
    }
    css.push_str(
        "@media(prefers-color-scheme:dark){.ub text{fill:#a3b0c0}.ub .name,.ub .ink{fill:#eef2f7}.ub .bad{fill:#ff8d80}\
         .ub .ground{fill:#12171e}.ub .box{fill:#1d2530;stroke:#5d6b7d}.ub .producer .box{fill:#12171e}\
         .ub .failing .box{stroke:#e0493d}.ub .none{stroke:#36414e}\
         .ub .edge{stroke:#8593a5}.ub .core{stroke:#12171e}.ub .head{fill:#8593a5}.ub .label{stroke:#12171e}",
    );
    for state in State::ALL {
        let (class, paint) = (class(state), dark(state));
        let _ =
            write!(css, ".ub .{class} rect{{fill:{}}}.ub .{class} text{{fill:{}}}", paint.fill, paint.ink);
    }
    css.push('}');
    css
}
