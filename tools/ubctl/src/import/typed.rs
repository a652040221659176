//! Rows with types, as Arrow and Parquet hold them: from batches to commits.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::SyncSender;

use indicatif::ProgressBar;
use underbelly::{Column, Columns, LogicalType, LogicalTypes, Timestamp, Values, arrow};

use super::Known;
use super::load::{CHUNK_ROWS, CHUNK_TEXT_BYTES, Chunk, Loaded};
use super::plan::Wishes;
use super::source::Source;
use crate::error::Failed;
use crate::time::{Unit, is_zone, of_decimal};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Batches on their way to the thread that commits: small ones are put together.
pub(super) struct Chunks<'a> {
    wishes: &'a Wishes,
    send: SyncSender<Chunk>,
    timestamps: Vec<Timestamp>,
    /// Columns of the rows that wait, in order.
    waiting: Vec<(String, Column)>,
    /// What they hold, where that is not what is stored.
    types: LogicalTypes,
    /// The same of the series, with the zones that this import gives it.
    held: LogicalTypes,
    loaded: Loaded,
    /// Whether the thread that commits has ended.
    is_over: bool,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(wishes: &'a Wishes, known: Option<&Known>, send: SyncSender<Chunk>) -> Chunks<'a> {
        let (timestamps, waiting, loaded) = (Vec::new(), Vec::new(), Loaded::default());
        let (types, held) = (LogicalTypes::new(), known.map(|known| known.types.clone()).unwrap_or_default());
        Chunks { wishes, send, timestamps, waiting, types, held, loaded, is_over: false }
    }

    /// What counts of the types that a file brings with it, which no option can overrule: a zone where this machine knows it and
    /// the series has none or the same. Elsewhere the instants come without.
    fn kept(&mut self, types: &LogicalTypes) -> LogicalTypes {
        let mut kept = LogicalTypes::new();
        for (name, logical) in types.iter() {
            if let Some(zone) = logical.zone() {
                let stored = self.wishes.stored(name);
                let is_free = self.held.get(stored).is_none_or(|held| held == logical);
                if !is_free || !is_zone(zone) {
                    continue;
                }
                self.held.insert(stored, logical.clone());
            }
            kept.insert(name.clone(), logical.clone());
        }
        kept
    }

    /// Adds the rows of a batch of a file, whose columns are of these types where these are not what is stored; false where nobody
    /// takes any more.
    pub(super) fn add(&mut self, path: &Path, rows: Columns, types: &LogicalTypes) -> Result<bool, Failed> {
        let wishes = self.wishes;
        check(path, &rows, wishes)?;
        let mut columns = Vec::with_capacity(rows.width());
        let mut times = Vec::new();
        for (name, column) in rows.into_columns() {
            match *name == *wishes.time {
                true => {
                    let scale = types.get(&name).and_then(LogicalType::scale);
                    times = instants(column, scale, wishes).map_err(|what| Failed::input(path, what))?;
                }
                false => columns.push((wishes.stored(&name).to_string(), column)),
            }
        }
        let mut stored = LogicalTypes::new();
        for (name, logical) in types.iter() {
            // Decimals that count the time are instants in the series.
            if **name != *wishes.time || logical.zone().is_some() {
                stored.insert(wishes.stored(name), logical.clone());
            }
        }
        if !self.extends(&columns) || self.types != stored {
            self.send()?;
        }
        self.types = stored;
        for time in &times {
            let (first, last) = self.loaded.bounds.unwrap_or((*time, *time));
            self.loaded.bounds = Some((first.min(*time), last.max(*time)));
        }
        self.loaded.rows += times.len() as u64;
        if self.timestamps.is_empty() {
            (self.timestamps, self.waiting) = (times, columns);
        } else {
            let mut times = times;
            for ((name, column), (_, more)) in self.waiting.iter_mut().zip(&columns) {
                let extended = column.extend_range(more, 0..more.len());
                extended
                    .ok_or_else(|| Failed::input(path, format!("column {name:?} did not come together")))?;
            }
            self.timestamps.append(&mut times);
        }
        if self.timestamps.len() >= CHUNK_ROWS
            || self.waiting.iter().any(|(_, column)| column.byte_size() >= CHUNK_TEXT_BYTES)
        {
            self.send()?;
        }
        Ok(!self.is_over)
    }

    /// Whether rows have the columns of those that wait.
    fn extends(&self, columns: &[(String, Column)]) -> bool {
        let mut pairs = self.waiting.iter().zip(columns);
        self.waiting.len() == columns.len()
            && pairs.all(|((a, x), (b, y))| a == b && x.column_type() == y.column_type())
    }

    fn send(&mut self) -> Result<(), Failed> {
        if self.timestamps.is_empty() {
            return Ok(());
        }
        let mut columns = Columns::new();
        let types: Vec<String> = self
            .waiting
            .iter()
            .map(|(name, column)| {
                let key = self.wishes.keys.iter().any(|key| self.wishes.stored(key) == name);
                let held = self.types.get(name).or_else(|| self.held.get(name)).cloned();
                let held = held.unwrap_or_else(|| column.column_type().into());
                format!("{name} {held}{}", if key { " key" } else { "" })
            })
            .collect();
        self.loaded.stored = types.join(", ");
        for (name, column) in std::mem::take(&mut self.waiting) {
            columns.insert(name, column)?;
        }
        let timestamps = std::mem::take(&mut self.timestamps);
        // Where nobody receives it, committing has failed and says why.
        self.is_over |= self.send.send(Chunk { timestamps, columns, types: self.types.clone() }).is_err();
        Ok(())
    }

    /// Hands over what waits; what was loaded.
    pub(super) fn finish(mut self) -> Result<Loaded, Failed> {
        self.send()?;
        Ok(self.loaded)
    }
}

/// Refuses columns that are not those which the options name, or whose types are none for it; without rows, too.
pub(super) fn check(path: &Path, rows: &Columns, wishes: &Wishes) -> Result<(), Failed> {
    for name in wishes.keys.iter().chain(wishes.renames.iter().map(|(old, _)| old)).chain([&wishes.time]) {
        if rows.index_of(name).is_none() {
            let names: Vec<&str> = rows.names().iter().map(|name| &**name).collect();
            let names = names.join(", ");
            return Err(Failed::input(path, format!("there is no column {name:?}, and there are: {names}")));
        }
    }
    let time = rows.column(&wishes.time).map(|column| Column::new(column.column_type()));
    time.map_or(Ok(()), |time| {
        instants(time, None, wishes).map(|_| ()).map_err(|what| Failed::input(path, what))
    })
}

/// The times of a column of times, of days, or of numbers of the unit that was given; `scale` is that of decimals.
fn instants(column: Column, scale: Option<u8>, wishes: &Wishes) -> Result<Vec<Timestamp>, String> {
    const DAY_NS: i64 = 86_400_000_000_000;
    let name = &wishes.time;
    if column.null_count() > 0 {
        return Err(format!("column {name:?} has rows without a time; give every row one"));
    }
    let unit = wishes.time_notation(None).unit.unwrap_or(Unit::S);
    let number_ns = match unit {
        Unit::S => 1_000_000_000,
        Unit::Ms => 1_000_000,
        Unit::Us => 1_000,
        Unit::Ns => 1,
    };
    let scaled = |numbers: Vec<i64>, scale: i64| -> Option<Vec<Timestamp>> {
        numbers.into_iter().map(|number| number.checked_mul(scale).map(Timestamp)).collect()
    };
    let wide = |numbers: Vec<i32>| numbers.into_iter().map(i64::from).collect();
    let found = column.column_type();
    let times = match column.into_parts().0 {
        Values::Timestamp(times) => scaled(times, 1),
        Values::I64(numbers) => match scale {
            Some(scale) => numbers.into_iter().map(|number| of_decimal(number, scale, unit)).collect(),
            None => scaled(numbers, number_ns),
        },
        Values::I32(numbers) => scaled(wide(numbers), number_ns),
        Values::Date(days) => scaled(wide(days), DAY_NS),
        _ => {
            return Err(format!(
                "column {name:?} holds {found}; the time is a timestamp, a date, a whole number or a decimal"
            ));
        }
    };
    times.ok_or_else(|| format!("column {name:?} has a time outside the years 1677 to 2262; see --unit"))
}

/// The columns of an Arrow file or stream, without rows.
pub(super) fn columns_of_arrow(source: &Source) -> Result<Columns, Failed> {
    let input = BufReader::with_capacity(BUFFER_BYTES, source.bytes_of(&ProgressBar::hidden())?);
    let reader = arrow::Reader::new(input, arrow::Limits::default());
    reader.and_then(|reader| reader.empty()).map_err(|error| failed(source.path(), error))
}

pub(super) fn failed(path: &Path, error: arrow::ArrowError) -> Failed {
    match error {
        arrow::ArrowError::Io(error) => Failed::file("read", path, error),
        other => Failed::input(path, other.to_string()),
    }
}

/// Reads an Arrow file or stream.
pub(super) fn load_arrow(source: &Source, bar: &ProgressBar, chunks: &mut Chunks<'_>) -> Result<(), Failed> {
    let path = source.path();
    let failed = |error| failed(path, error);
    let mut input = BufReader::with_capacity(BUFFER_BYTES, source.bytes_of(bar)?);
    let reader = arrow::Reader::new(&mut input, arrow::Limits::default()).map_err(failed)?;
    let types = chunks.kept(&reader.types());
    for batch in reader {
        if !chunks.add(path, batch.map_err(failed)?, &types)? {
            return Ok(());
        }
    }
    match input.fill_buf() {
        Ok([]) => Ok(()),
        Ok(_) => {
            Err(Failed::input(path, "bytes stand behind the end of the stream; keep one stream in a file"))
        }
        Err(error) => Err(Failed::file("read", path, error)),
    }
}
