//! Tables that are read in pages, so that nobody waits for a long one.

use std::sync::Arc;

use crate::graph::Graph;
use crate::view::{Base, View};

/// Rows, or things from which rows are made, that are looked at under one lock of the state.
pub(super) const PAGE: usize = 1024;

/// Adds rows of the next page; false where there are no more behind them.
type Fill<R> = dyn FnMut(&Graph, &mut Vec<R>) -> bool + Send;

/// The rows of a table, a page at a time: commits go on between two pages, and each page shows the applied head as it
/// is then. A row that is there all the while comes exactly once.
pub struct Rows<R> {
    base: Arc<Base>,
    fill: Box<Fill<R>>,
    page: std::vec::IntoIter<R>,
    seq: u64,
    has_more: bool,
}

impl<R> Rows<R> {
    pub(super) fn new(
        view: &View,
        fill: impl FnMut(&Graph, &mut Vec<R>) -> bool + Send + 'static,
    ) -> Rows<R> {
        let page = Vec::new().into_iter();
        Rows { base: view.base().clone(), fill: Box::new(fill), page, seq: 0, has_more: true }
    }

    /// The transaction after which the page of the last row was read; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

impl<R> Iterator for Rows<R> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        loop {
            if let Some(row) = self.page.next() {
                return Some(row);
            }
            if !self.has_more {
                return None;
            }
            let mut rows = Vec::new();
            let state = self.base.state();
            self.has_more = (self.fill)(&state.graph, &mut rows);
            self.seq = state.head;
            drop(state);
            self.page = rows.into_iter();
        }
    }
}
