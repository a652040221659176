//! The order of rows across runs, and how far one run is ahead of the others.
//!
//! Galloping is the search of Bentley and Yao ("An almost optimal algorithm for unbounded searching", 1976)
//! as merge sorts use it: doubling steps, then bisection, so that a long stretch costs its logarithm and a
//! short one next to nothing.

use std::ops::Range;

use crate::Seqs;

/// Stretches that are noted before they are copied, column by column.
pub(crate) const STRETCHES_MAX: usize = 4_096;

/// The place of a run's next row in the order of all rows; in the order of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Head {
    pub(crate) ts: i64,
    pub(crate) seq: u64,
    pub(crate) run: usize,
}

/// The next places of all runs that have more rows, one for each run: a binary heap, the smallest first.
///
/// Unlike the heap of the standard library it shows the second smallest, up to which the first run may go ahead,
/// and puts the first run's next place in with one pass.
#[derive(Debug, Default)]
pub(crate) struct Heads(Vec<Head>);

impl Heads {
    /// The smallest place.
    pub(crate) fn first(&self) -> Option<Head> {
        self.0.first().copied()
    }

    /// The smallest place of the other runs.
    pub(crate) fn second(&self) -> Option<Head> {
        match self.0[..] {
            [_, left, right, ..] => Some(left.min(right)),
            [_, left] => Some(left),
            _ => None,
        }
    }

    /// Puts the next place of the first run in its stead; takes the run out where it has none.
    pub(crate) fn advance(&mut self, next: Option<Head>) {
        let Some(head) = next.or_else(|| self.0.pop()) else { return };
        if let Some(first) = self.0.first_mut() {
            *first = head;
            self.sink(0);
        }
    }

    fn sink(&mut self, mut at: usize) {
        let heads = &mut self.0[..];
        loop {
            let left = 2 * at + 1;
            let least = if left + 1 < heads.len() && heads[left + 1] < heads[left] { left + 1 } else { left };
            if least >= heads.len() || heads[at] <= heads[least] {
                return;
            }
            heads.swap(at, least);
            at = least;
        }
    }
}

impl FromIterator<Head> for Heads {
    fn from_iter<I: IntoIterator<Item = Head>>(heads: I) -> Heads {
        let mut heads = Heads(heads.into_iter().collect());
        (0..heads.0.len() / 2).rev().for_each(|at| heads.sink(at));
        heads
    }
}

/// Rows that follow each other in one run and in the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) run: usize,
    pub(crate) rows: Range<usize>,
}

/// The sorted rows of one run, seen as their places in the order.
pub(crate) struct Ordered<'a> {
    pub(crate) timestamps: &'a [i64],
    pub(crate) seqs: &'a Seqs<'a>,
    pub(crate) run: usize,
}

impl Ordered<'_> {
    /// The place of a row.
    pub(crate) fn head(&self, row: usize) -> Head {
        Head { ts: self.timestamps[row], seq: self.seqs.get(row), run: self.run }
    }

    /// The end of the stretch at the start of `rows` that comes before `bound`, at least one row.
    pub(crate) fn before(&self, rows: Range<usize>, bound: Option<Head>) -> usize {
        let Some(bound) = bound else { return rows.end };
        rows.start + gallop(rows.len(), |i| self.head(rows.start + i) < bound)
    }

    /// The start of the stretch at the end of `rows` that comes after `bound`, at least one row.
    pub(crate) fn after(&self, rows: Range<usize>, bound: Option<Head>) -> usize {
        let Some(bound) = bound else { return rows.start };
        rows.end - gallop(rows.len(), |i| self.head(rows.end - 1 - i) > bound)
    }
}

/// How many of the first `len` positions hold `inside`, which holds up to some position and not after it; the
/// first is counted unseen, so that a caller always gets ahead.
fn gallop(len: usize, inside: impl Fn(usize) -> bool) -> usize {
    if len <= 1 || inside(len - 1) {
        return len;
    }
    // `inside` holds below `low` and does not hold at `high`.
    let (mut low, mut high, mut step) = (1, len - 1, 1);
    while low + step < high {
        if !inside(low + step - 1) {
            high = low + step - 1;
            break;
        }
        low += step;
        step *= 2;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if inside(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gallop_finds_every_border() {
        for len in 1..70 {
            for border in 0..=len {
                assert_eq!(gallop(len, |i| i < border), border.max(1), "{border} of {len}");
            }
        }
        assert_eq!(gallop(0, |_| false), 0);
    }

    proptest! {
        #[test]
        fn heads_come_as_from_a_sorted_list(
            start in prop::collection::vec(0i64..20, 0..9),
            steps in prop::collection::vec(prop::option::of(0i64..6), 0..40),
        ) {
            let at = |(run, ts)| Head { ts, seq: 0, run };
            let mut list: Vec<Head> = start.into_iter().enumerate().map(at).collect();
            let mut heads: Heads = list.iter().copied().collect();
            for step in steps {
                list.sort_unstable();
                prop_assert_eq!(heads.first(), list.first().copied());
                prop_assert_eq!(heads.second(), list.get(1).copied());
                let Some(first) = heads.first() else { break };
                list.remove(0);
                let next = step.map(|step| Head { ts: first.ts + step, ..first });
                list.extend(next);
                heads.advance(next);
            }
        }
    }

    #[test]
    fn stretches_end_at_the_bound() {
        let seqs = Seqs::Each(vec![1, 5, 2, 7, 9].into());
        let ordered = Ordered { timestamps: &[1, 1, 2, 2, 3], seqs: &seqs, run: 1 };
        let bound = |ts, seq, run| Some(Head { ts, seq, run });
        assert_eq!(ordered.before(0..5, None), 5);
        assert_eq!(ordered.before(0..5, bound(2, 2, 0)), 2);
        assert_eq!(ordered.before(0..5, bound(2, 2, 2)), 3);
        assert_eq!(ordered.before(0..5, bound(9, 0, 0)), 5);
        assert_eq!(ordered.after(0..5, bound(2, 2, 0)), 2);
        assert_eq!(ordered.after(0..5, bound(2, 2, 2)), 3);
        assert_eq!(ordered.after(0..5, bound(0, 0, 0)), 0);
        assert_eq!(ordered.after(0..5, None), 0);
    }
}
