//! Rows of a series where they lie: young rows are lent, sealed ones are decoded.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use underbelly_arrow::c::{ArrowArrayStream, export_stream};
use underbelly_arrow::{ArrowError, Batch, Lend, Lent};
use underbelly_query::{Batches, Run, Scan, SchemaColumn, Source, TIMESTAMP};
use underbelly_storage::{Columns, Timestamp};

use crate::error::ReadError;
use crate::series::Series;

/// Fewer rows than this are copied together with their neighbours: a batch of each would cost more.
const LENT_ROWS_MIN: usize = 1_024;
/// Rows in a batch unless another number is asked for.
const BATCH_ROWS: usize = 65_536;
/// Batches that a stream makes ahead.
const BATCHES_AHEAD: usize = 2;

/// Rows that are being described: made by [`Series::lent_rows`].
#[derive(Clone)]
#[must_use = "nothing is read until it is asked for batches"]
pub struct LentRows {
    series: Series,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    columns: Option<Vec<Arc<str>>>,
    batch_rows: usize,
}

/// Columns of a young run, which is held.
struct Young {
    run: Arc<dyn Run>,
    columns: Arc<[SchemaColumn]>,
}

impl Young {
    /// Whether the run holds all columns with their types.
    fn is_whole(&self) -> bool {
        self.lent().len() == self.columns.len() + 1
    }
}

impl Lend for Young {
    fn lent(&self) -> Vec<(&str, Lent<'_>)> {
        let mut lent = Vec::with_capacity(self.columns.len() + 1);
        if let Ok(Cow::Borrowed(times)) = self.run.timestamps(0) {
            lent.push((TIMESTAMP, Lent::Timestamps(times)));
        }
        for SchemaColumn { name, column_type, .. } in &*self.columns {
            if let Ok(Some(Cow::Borrowed(column))) = self.run.column(0, name)
                && column.column_type() == *column_type
            {
                lent.push((name, Lent::Column(column)));
            }
        }
        lent
    }
}

/// Rows of one young run that no other row comes between.
struct Stretch {
    first: i64,
    last: i64,
    young: Arc<Young>,
    rows: Range<usize>,
}

impl Series {
    /// Rows in the order of a [scan](Series::scan), in batches for [`arrow`](crate::arrow): young rows that no other run's rows
    /// come between lie where they are, and stay there while a batch is held; all others are decoded and copied.
    pub fn lent_rows(&self) -> LentRows {
        LentRows { series: self.clone(), from: None, to: None, columns: None, batch_rows: BATCH_ROWS }
    }
}

impl LentRows {
    /// The start of the range, which belongs to it.
    pub fn from(self, from: Timestamp) -> LentRows {
        LentRows { from: Some(from), ..self }
    }

    /// The end of the range, which does not belong to it.
    pub fn to(self, to: Timestamp) -> LentRows {
        LentRows { to: Some(to), ..self }
    }

    /// Only these columns, in this order. "timestamp" comes first whether it is named or not.
    pub fn columns<S: AsRef<str>>(self, names: impl IntoIterator<Item = S>) -> LentRows {
        LentRows { columns: Some(names.into_iter().map(|name| name.as_ref().into()).collect()), ..self }
    }

    /// At most this many rows in a batch: 65,536 unless given, at least 1.
    pub fn batch_rows(self, rows: usize) -> LentRows {
        LentRows { batch_rows: rows.max(1), ..self }
    }

    /// The batches, each of at least one row. The iterator ends after an error.
    pub fn batches(&self) -> LentBatches<'_> {
        LentBatches { rows: self, next: self.from, scan: None, stretches: None, lent: None, is_over: false }
    }

    /// Names and types of the columns, without rows.
    ///
    /// # Errors
    /// [`ReadError::Query`] where a column is unknown or named twice, or the range ends before it begins.
    pub fn empty(&self) -> Result<Columns, ReadError> {
        Ok(self.scan(self.from, self.to).rows_max(0).collect()?)
    }

    /// The batches as an Arrow stream, made ahead on a thread of its own, which ends with the stream.
    ///
    /// # Errors
    /// [`ArrowError::Unfit`] where the rows cannot be handed over, [`ArrowError::Io`] where there is no thread.
    pub fn stream(self) -> Result<ArrowArrayStream, ArrowError> {
        let unfit = |error: ReadError| ArrowError::Unfit { what: error.to_string() };
        let types = self.empty().map_err(unfit)?;
        let types = Batch::from(types).typed(self.series.shared_types());
        export_stream(types, ahead(move |send| self.batches().try_for_each(send))?)
    }

    fn scan(&self, from: Option<Timestamp>, to: Option<Timestamp>) -> Scan<'_> {
        let scan = self.series.scan().batch_rows(self.batch_rows);
        let scan = from.into_iter().fold(scan, Scan::from);
        let scan = to.into_iter().fold(scan, Scan::to);
        self.columns.iter().fold(scan, |scan, names| scan.columns(names))
    }

    /// The columns beside the timestamp, as they are in batches.
    fn wanted(&self) -> Arc<[SchemaColumn]> {
        let schema = self.series.schema();
        match &self.columns {
            None => schema.columns.iter().cloned().collect(),
            // What is not known is refused by a scan before this.
            Some(names) => {
                let fields = names.iter().filter(|name| ***name != *TIMESTAMP);
                fields.filter_map(|name| schema.column(name).ok().cloned()).collect()
            }
        }
    }

    /// What can be lent, in order of time.
    fn stretches(&self) -> VecDeque<Stretch> {
        let series = &self.series;
        if !series.tombstones().is_empty() {
            return VecDeque::new();
        }
        let (columns, runs) = (self.wanted(), series.runs());
        let zones = |run: &Arc<dyn Run>| {
            let run = run.clone();
            (0..run.groups()).map(move |group| run.zone(group))
        };
        let lend = |(at, run): (usize, &Arc<dyn Run>)| {
            let visible = zones(run).next().filter(|zone| zone.seq_max <= series.seq())?;
            if !run.is_in_memory() || run.groups() != 1 {
                return None;
            }
            let mut first = self.from.map_or(visible.ts_min, |from| visible.ts_min.max(from.0));
            let mut last = match self.to {
                None => visible.ts_max,
                Some(to) => visible.ts_max.min(to.0.checked_sub(1)?),
            };
            let others = runs.iter().enumerate().filter(|(other, _)| *other != at);
            for zone in others.flat_map(|(_, other)| zones(other)) {
                if zone.ts_max < first || last < zone.ts_min {
                    continue;
                }
                // Equal times count as overlapping: the order of their rows is the scan's to say.
                if zone.ts_min <= first {
                    first = zone.ts_max.checked_add(1)?;
                } else {
                    last = zone.ts_min - 1;
                }
                if first > last {
                    return None;
                }
            }
            let young = Arc::new(Young { run: run.clone(), columns: columns.clone() });
            let rows = {
                let times = run.timestamps(0).ok()?;
                times.partition_point(|time| *time < first)..times.partition_point(|time| *time <= last)
            };
            (rows.len() >= LENT_ROWS_MIN && young.is_whole()).then_some(Stretch { first, last, young, rows })
        };
        let mut stretches: Vec<Stretch> = runs.iter().enumerate().filter_map(lend).collect();
        stretches.sort_by_key(|stretch| stretch.first);
        stretches.into()
    }
}

/// What `make` sends from a thread of its own, until it may not send any more or has sent all. Where the thread ends otherwise, that is
/// an error and no end.
fn ahead(
    make: impl FnOnce(&mut dyn FnMut(Result<Batch, ReadError>) -> ControlFlow<()>) -> ControlFlow<()>
    + Send
    + 'static,
) -> std::io::Result<impl Iterator<Item = Result<Batch, String>> + Send> {
    let (send, receive) = sync_channel(BATCHES_AHEAD);
    let run = move || {
        // Nobody receives them any more where sending fails.
        let mut put = |batch| match send.send(Some(batch)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        if make(&mut put).is_continue() {
            let _ = send.send(None);
        }
    };
    std::thread::Builder::new().name("underbelly-arrow".to_string()).spawn(run)?;
    let mut is_over = false;
    Ok(std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let next = match receive.recv() {
            Ok(next) => next.map(|batch: Result<Batch, ReadError>| batch.map_err(|error| error.to_string())),
            Err(_) => Some(Err("the thread that reads ended early".to_string())),
        };
        is_over = !matches!(next, Some(Ok(_)));
        next
    }))
}

/// Batches of rows where they lie: made by [`LentRows::batches`].
pub struct LentBatches<'a> {
    rows: &'a LentRows,
    /// Where the next scan begins.
    next: Option<Timestamp>,
    scan: Option<Batches<'a>>,
    /// What is still to be lent; `None` before the first batch.
    stretches: Option<VecDeque<Stretch>>,
    lent: Option<(Arc<Young>, Range<usize>)>,
    is_over: bool,
}

impl LentBatches<'_> {
    fn advance(&mut self) -> Result<Option<Batch>, ReadError> {
        if self.stretches.is_none() {
            // Refuses what does not fit the series before anything is lent.
            self.rows.empty()?;
            self.stretches = Some(self.rows.stretches());
        }
        loop {
            if let Some((young, rows)) = &mut self.lent {
                let end = rows.end.min(rows.start + self.rows.batch_rows);
                let batch = (rows.start < end).then(|| Batch::new(young.clone(), rows.start..end));
                let batch = batch.map(|batch| batch.typed(self.rows.series.shared_types()));
                rows.start = end;
                if batch.is_some() {
                    return Ok(batch);
                }
                self.lent = None;
            }
            if let Some(scan) = &mut self.scan {
                if let Some(batch) = scan.next() {
                    return Ok(Some(Batch::from(batch?).typed(self.rows.series.shared_types())));
                }
                self.scan = None;
                let Some(stretch) = self.stretches.as_mut().and_then(VecDeque::pop_front) else {
                    self.is_over = true;
                    return Ok(None);
                };
                self.lent = Some((stretch.young, stretch.rows));
                match stretch.last.checked_add(1) {
                    Some(next) => self.next = Some(Timestamp(next)),
                    None => self.is_over = true,
                }
                continue;
            }
            if self.is_over {
                return Ok(None);
            }
            let before = self.stretches.as_ref().and_then(VecDeque::front);
            let to = before.map_or(self.rows.to, |stretch| Some(Timestamp(stretch.first)));
            self.scan = Some(self.rows.scan(self.next, to).batches());
        }
    }
}

impl Iterator for LentBatches<'_> {
    type Item = Result<Batch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if matches!(next, Some(Err(_))) {
            (self.is_over, self.scan, self.lent, self.stretches) = (true, None, None, Some(VecDeque::new()));
        }
        next
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_is_an_error_of_its_stream_and_no_end() {
        let batch = || Ok(Batch::from(Columns::new()));
        let made = |panics: bool| {
            let make = move |send: &mut dyn FnMut(_) -> ControlFlow<()>| {
                send(batch())?;
                assert!(!panics, "a panic on purpose");
                send(batch())
            };
            ahead(make).unwrap().map(|batch| batch.map(|_| ())).collect()
        };
        let whole: Vec<Result<(), String>> = made(false);
        assert_eq!(whole, [Ok(()), Ok(())]);
        let cut = made(true);
        assert_eq!(cut.len(), 2);
        assert!(cut[0].is_ok() && cut[1].as_ref().unwrap_err().contains("ended early"), "{cut:?}");
    }
}
