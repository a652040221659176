//! Slots, producers and cells as text for a terminal, as Graphviz and as SVG.
//!
//! Promises:
//! - A state is told by a colour and by its initial: nobody needs to see colours.
//! - An SVG needs nothing else: no script, no font, no link. It follows the reader's light or dark setting.
//! - Names are text, whatever characters they have: none leaves its place in the markup or moves a cursor.
//! - The same graph gives the same drawing, byte for byte.
//!
//! In reading order: `palette` has the states' letters and colours, `words` ages, counts and widths, `escape` what
//! keeps text in its place; `sheet` is the frame of every SVG; `graph` draws slots and producers, `cells` draws cells.

mod cells;
mod escape;
mod graph;
mod palette;
mod sheet;
mod words;

pub use cells::{cells_dot, cells_svg, cells_text};
pub use graph::{graph_dot, graph_svg, graph_text};
pub use sheet::Frame;

/// How text is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Columns of a line; longer lines are wrapped or cut, but never below 40.
    pub width: usize,
    /// Whether escape sequences colour the states.
    pub colour: bool,
}

impl Terminal {
    /// A file or a pipe: 100 columns without colours.
    pub const PLAIN: Terminal = Terminal { width: 100, colour: false };

    /// Columns that lines may take.
    fn columns(self) -> usize {
        self.width.max(40)
    }
}
