//! `ubctl producer graph`: the graph of slots and producers, or of cells, as text, Graphviz and SVG.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use underbelly::{Clock, SlotDate, SystemClock, View};
use underbelly_drawing::{
    Frame, Terminal, cells_dot, cells_svg, cells_text, graph_dot, graph_svg, graph_text,
};

use crate::error::Failed;
use crate::output::print;
use crate::time::parse_slot_date;

/// What is drawn, and how.
#[derive(Args, Debug)]
pub(crate) struct Drawing {
    /// Draws cells: a letter or square for each, in rows by date and columns by key
    #[arg(long)]
    cells: bool,
    /// Only cells of this slot
    #[arg(long, value_name = "NAME", requires = "cells")]
    slot: Option<String>,
    /// Only cells of this date
    #[arg(long, value_name = "DATE", requires = "cells", value_parser = parse_slot_date, allow_negative_numbers = true)]
    date: Option<SlotDate>,
    /// The form of the drawing
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    format: Form,
    /// Where it goes instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The form of a drawing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Lines for a terminal, with colours where it is one.
    #[default]
    Text,
    /// Graphviz.
    Dot,
    /// A picture that needs nothing else.
    Svg,
}

/// The terminal that standard output is; none where the drawing goes to a file or a pipe. `NO_COLOR` is heeded.
fn terminal(to_file: bool) -> Terminal {
    if to_file || !io::stdout().is_terminal() {
        return Terminal::PLAIN;
    }
    let width = comfy_table::Table::new().width().map_or(Terminal::PLAIN.width, usize::from);
    Terminal { width: width.min(160), colour: std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()) }
}

impl Drawing {
    pub(crate) fn run(&self, db: &View) -> Result<(), Failed> {
        let now = SystemClock.now();
        let terminal = terminal(self.output.is_some());
        let text = if self.cells {
            let graph = db.cell_graph(self.slot.as_deref(), self.date)?;
            match self.format {
                Form::Text => cells_text(&graph, now, terminal),
                Form::Dot => cells_dot(&graph, now),
                Form::Svg => cells_svg(&graph, now, Frame::Alone),
            }
        } else {
            let graph = db.graph_view();
            match self.format {
                Form::Text => graph_text(&graph, now, terminal),
                Form::Dot => graph_dot(&graph, now),
                Form::Svg => graph_svg(&graph, now, Frame::Alone),
            }
        };
        match &self.output {
            Some(path) => std::fs::write(path, text).map_err(|error| Failed::file("write", path, error)),
            None => print(&text),
        }
    }
}
