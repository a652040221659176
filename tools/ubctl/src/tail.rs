//! `ubctl tail`: what transactions changed, and what they go on to change.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;
use underbelly::{
    Alarm, Columns, CommitError, Committed, Database, FeedError, LogRecord, LogicalTypes, OpenError,
    ReadError, Reader, SlotDate, Start, State, StateChange, Watch,
};

use crate::error::Failed;
use crate::output::{Field, json_line, stdout};
use crate::slot::parse_state;
use crate::time::parse_slot_date;
use crate::write;

/// How often a database that another process writes is looked at. Nobody outside the writer is woken by it.
const LOOK: Duration = Duration::from_millis(100);

/// Transactions of which it is known at once what they do.
const WORDS: u64 = 1024;
/// Parts of what one does that are told.
const PARTS: usize = 8;
/// Characters that are told of each.
const PART_CHARS: usize = 200;

/// Shows what the newest transactions changed, and with --follow what later ones do; or the newest rows of a series
///
/// Each transaction is shown once, in order, without a gap, as soon as it is durable. With the type of a series the rows that it got are
/// shown: the newest by time first of all, and then, or with --from or --cursor alone, those of each transaction.
#[derive(Args, Debug)]
pub(crate) struct Tail {
    /// Show the rows of this series
    #[arg(value_name = "TYPE", conflicts_with_all = ["slot", "date", "to", "states"])]
    series: Option<String>,
    /// Go on with later transactions until this is interrupted
    #[arg(long, short)]
    follow: bool,
    /// Begin with so many of the newest transactions, or rows
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    last: usize,
    /// Begin with this transaction: its number, `oldest` for the oldest that is kept, or `now`
    #[arg(long, value_parser = parse_start, value_name = "SEQ", conflicts_with = "last")]
    from: Option<Start>,
    /// Begin behind what was consumed under the name of a durable cursor
    #[arg(long, value_name = "NAME", conflicts_with_all = ["from", "last"])]
    cursor: Option<String>,
    /// Move the cursor behind what was shown, which needs that no other process writes
    #[arg(long, requires = "cursor", conflicts_with = "follow")]
    ack: bool,
    /// Only changes of cells of this slot; may be given several times
    #[arg(long, value_name = "SLOT")]
    slot: Vec<String>,
    /// Only changes of cells of this date; may be given several times
    #[arg(long, value_parser = parse_slot_date, allow_negative_numbers = true)]
    date: Vec<SlotDate>,
    /// Only changes to this state: void, updated, pending, current, stale or invalid; may be given several times
    #[arg(long, value_parser = parse_state, value_name = "STATE")]
    to: Vec<State>,
    /// Only transactions that change the state of some cell
    #[arg(long)]
    states: bool,
    /// The form of the output
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    format: TailFormat,
}

/// The form of what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum TailFormat {
    /// A line for each change of state and each alarm, and for each transaction that has none, with what it does as long as the log
    /// holds that; of a series, for each row.
    #[default]
    Text,
    /// A line of JSON for each transaction; of a series, for each row.
    Json,
}

fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "oldest" => Ok(Start::Oldest),
        "now" => Ok(Start::Now),
        seq => seq.parse().map(Start::Seq).map_err(|_| "write a number, `oldest` or `now`".to_string()),
    }
}

impl Tail {
    fn watch(&self) -> Watch {
        let watch = if self.states { Watch::states() } else { Watch::all() };
        let watch = self.slot.iter().fold(watch, |watch, slot| watch.slot(slot));
        let watch = self.date.iter().fold(watch, |watch, date| watch.date(*date));
        self.to.iter().fold(watch, |watch, state| watch.to(*state))
    }

    pub(crate) fn run(&self, dir: &Path) -> Result<(), Failed> {
        let mut reader = Database::open_read_only(dir)?;
        if let Some(name) = self.cursor.as_ref().filter(|_| !self.ack)
            && reader.cursor(name)?.is_none()
        {
            let what = format!(
                "no cursor is named {name:?}; --ack makes it, and begins with the oldest that is kept"
            );
            return Err(Failed::NotFound(what));
        }
        if let Some(series) = &self.series {
            return self.rows(dir, reader, series);
        }
        let (watch, mut out) = (self.watch(), stdout());
        let mut words = Words { dir, until: reader.seq(), oldest: 1, read: 0, known: BTreeMap::new() };
        let put = |out: &mut dyn Write, committed: &Committed, words: &mut Words| {
            let text = match self.format {
                TailFormat::Text => text(committed, words),
                TailFormat::Json => json(committed),
            };
            out.write_all(text.as_bytes()).map_err(Failed::output)
        };
        let start = match (&self.cursor, &self.from) {
            (Some(name), _) => Start::Cursor(name.clone()),
            (None, Some(from)) => from.clone(),
            (None, None) => {
                let (newest, next) = self.newest(&reader, &watch)?;
                newest.iter().try_for_each(|committed| put(&mut out, committed, &mut words))?;
                Start::Seq(next)
            }
        };
        let mut feed = reader.feed(&watch, start)?;
        loop {
            feed.by_ref().try_for_each(|committed| put(&mut out, &committed?, &mut words))?;
            out.flush().map_err(Failed::output)?;
            let next = feed.next_seq();
            if !self.follow {
                return self.acknowledge(dir, next - 1);
            }
            words.known.clear();
            let most = if self.format == TailFormat::Text && !self.states { WORDS as usize } else { 0 };
            loop {
                let (seq, records) = reader.refresh_with_records(most)?;
                records.into_iter().for_each(|record| words.note(record));
                if seq >= next {
                    break;
                }
                thread::sleep(LOOK);
            }
            words.until = reader.seq();
            feed = reader.feed(&watch, Start::Seq(next))?;
        }
    }

    /// The newest transactions that pass, and the seq behind them. Of a watch that lets few pass, it looks further and further back.
    fn newest(&self, reader: &Reader, watch: &Watch) -> Result<(VecDeque<Committed>, u64), Failed> {
        let next = reader.feed(watch, Start::Now)?.next_seq();
        let mut newest = VecDeque::new();
        let mut span = (self.last as u64).min(next);
        let mut first = next - span;
        while span > 0 {
            newest.clear();
            let mut feed = reader.feed(watch, Start::Seq(first.max(1)))?;
            let mut is_whole = first <= 1;
            while let Some(committed) = feed.next() {
                match committed {
                    // What is older is not kept, or is missing.
                    Err(FeedError::TooOld { oldest, .. }) if newest.is_empty() && oldest > first => {
                        (is_whole, first) = (true, oldest);
                        feed = reader.feed(watch, Start::Seq(oldest))?;
                    }
                    committed => newest.push_back(committed?),
                }
                newest.drain(..newest.len().saturating_sub(self.last));
            }
            if is_whole || newest.len() == self.last {
                return Ok((newest, feed.next_seq()));
            }
            span = span.saturating_mul(2);
            first = next.saturating_sub(span);
        }
        Ok((newest, next))
    }

    /// Shows the rows of a series.
    fn rows(&self, dir: &Path, mut reader: Reader, series: &str) -> Result<(), Failed> {
        if !self.follow {
            // A name that is mistyped has no rows, and must not move a cursor behind those of others.
            reader.snapshot().series(series)?;
        }
        let mut out = stdout();
        let mut put = |rows: &Columns, types: &LogicalTypes, seq: Option<u64>| {
            (0..rows.rows()).try_for_each(|row| {
                out.write_all(row_line((rows, types), row, seq, self.format).as_bytes())
                    .map_err(Failed::output)
            })?;
            out.flush().map_err(Failed::output)
        };
        let mut start = match (&self.cursor, &self.from) {
            (Some(name), _) => Start::Cursor(name.clone()),
            (None, Some(from)) => from.clone(),
            (None, None) => {
                let snapshot = reader.snapshot();
                match snapshot.series(series) {
                    Ok(series) => {
                        let newest = series.latest(self.last, &[])?;
                        (0..newest.rows())
                            .rev()
                            .try_for_each(|row| put(&newest.slice(row..row + 1), series.types(), None))?;
                    }
                    Err(ReadError::UnknownSeries { .. }) if self.follow => {}
                    Err(error) => return Err(error.into()),
                }
                Start::Seq(snapshot.seq() + 1)
            }
        };
        loop {
            let mut feed = reader.series_feed(series, start)?;
            for appended in feed.by_ref() {
                let appended = appended?;
                // A column keeps its type from its first row on.
                let types = reader.snapshot().series(series)?;
                put(&appended.rows, types.types(), Some(appended.seq))?;
            }
            let next = feed.next_seq();
            if !self.follow {
                return self.acknowledge(dir, next - 1);
            }
            while reader.refresh()? < next {
                thread::sleep(LOOK);
            }
            start = Start::Seq(next);
        }
    }

    /// Moves the cursor, where that is asked for and it is not there yet.
    fn acknowledge(&self, dir: &Path, consumed: u64) -> Result<(), Failed> {
        let Some(name) = self.cursor.as_ref().filter(|_| self.ack) else { return Ok(()) };
        let db = write(dir)?;
        if db.cursor(name)? != Some(consumed) {
            db.transact::<_, CommitError>(|tx| tx.advance_cursor(name, consumed))?;
        }
        Ok(())
    }
}

/// A row: its transaction, where it is known, then its values by name; nulls are left out of text.
fn row_line(
    (rows, types): (&Columns, &LogicalTypes),
    row: usize,
    seq: Option<u64>,
    format: TailFormat,
) -> String {
    let fields = rows.iter().map(|(name, column)| (name, Field::typed(column, row, types.get(name))));
    if format == TailFormat::Json {
        let seq = seq.map(|seq| ("_seq", Field::Count(seq)));
        let (names, fields): (Vec<&str>, Vec<Field<'_>>) =
            seq.into_iter().chain(fields.map(|(name, field)| (&**name, field))).unzip();
        return json_line(&names, &fields);
    }
    let mut line = seq.map_or_else(String::new, |seq| format!("{seq}  "));
    for (at, (name, field)) in fields.filter(|(_, field)| *field != Field::Null).enumerate() {
        let plain: String = field.plain().chars().map(shown).collect();
        match at {
            0 => line.push_str(&plain),
            _ => line.push_str(&format!("  {name} {plain}")),
        }
    }
    line.push('\n');
    line
}

/// What transactions do, as the log tells it.
struct Words<'d> {
    dir: &'d Path,
    /// The last transaction that is durable for sure.
    until: u64,
    /// None before this one is in the log.
    oldest: u64,
    /// The last one that was read.
    read: u64,
    known: BTreeMap<u64, String>,
}

/// Ends the reading of a log, for whatever reason.
struct Over;

impl From<OpenError> for Over {
    fn from(_: OpenError) -> Over {
        Over
    }
}

impl Words<'_> {
    fn note(&mut self, LogRecord { seq, does, .. }: LogRecord) {
        // What the objects are for comes first, however many there are.
        let (objects, mut parts): (Vec<String>, Vec<String>) =
            does.into_iter().partition(|part| part.starts_with("object "));
        let more = parts.len().saturating_sub(PARTS);
        parts.truncate(PARTS);
        let cut = |part: &String| part.chars().take(PART_CHARS).collect::<String>();
        let mut words: Vec<String> = parts.iter().map(cut).collect();
        match more {
            0 => {}
            more => words.push(format!("{more} more")),
        }
        match &objects[..] {
            [] => {}
            [object] => words.push(cut(object)),
            objects => words.push(format!("{} objects", objects.len())),
        }
        self.known.insert(seq, words.join("; ").chars().map(shown).collect());
    }

    /// Reads what transactions from one to another do, as far as the log still holds them.
    fn look(&mut self, from: u64, last: u64) {
        self.known.clear();
        // Where the log cannot be read nothing is told.
        let _ = Database::read_log(self.dir, from, |record| {
            let is_last = record.seq >= last;
            self.note(record);
            if is_last { Err(Over) } else { Ok(()) }
        });
    }

    fn of(&mut self, seq: u64) -> &str {
        if !self.known.contains_key(&seq) && seq > self.read && seq >= self.oldest {
            self.look(seq, self.until.min(seq + WORDS).max(seq));
            let known = self.known.first_key_value().zip(self.known.last_key_value());
            (self.oldest, self.read) = match known {
                Some(((first, _), (last, _))) => (*first, *last),
                None => (self.until.max(seq) + 1, seq),
            };
        }
        self.known.get(&seq).map_or("the log does not tell", String::as_str)
    }
}

fn text(committed: &Committed, words: &mut Words) -> String {
    let Committed { seq, time, states, alarms, .. } = committed;
    if states.is_empty() && alarms.is_empty() {
        return format!("{seq}  {time}  {}\n", words.of(*seq));
    }
    let sounds = |alarm: &Alarm| {
        let what: String = alarm.kind.to_string().chars().map(shown).collect();
        format!("{seq}  {time}  ALARM: {what}\n")
    };
    let line = |change: &StateChange| {
        let StateChange { slot, date, key, from, to, generation, .. } = change;
        let key = key.to_string();
        let gap = if key.is_empty() { "" } else { " " };
        let cell: String = format!("{slot} {date}{gap}{key}").chars().map(shown).collect();
        format!("{seq}  {time}  {cell}: {from} -> {to}, generation {generation}\n")
    };
    states.iter().map(line).chain(alarms.iter().map(sounds)).collect()
}

/// A control character would break the line or the terminal.
fn shown(c: char) -> char {
    if c.is_control() { '\u{fffd}' } else { c }
}

fn json(committed: &Committed) -> String {
    let change = |change: &StateChange| {
        json!({
            "slot": &*change.slot,
            "date": change.date.to_string(),
            "key": change.key.to_string(),
            "sid": change.sid.0,
            "from": change.from.name(),
            "to": change.to.name(),
            "generation": change.generation,
        })
    };
    let states: Vec<_> = committed.states.iter().map(change).collect();
    let alarm = |alarm: &Alarm| json!({ "alarm": alarm.kind.name(), "what": alarm.kind.to_string() });
    let alarms: Vec<_> = committed.alarms.iter().map(alarm).collect();
    let time = committed.time.to_string();
    let told = json!({ "seq": committed.seq, "time": time, "states": states, "alarms": alarms });
    format!("{told}\n")
}
