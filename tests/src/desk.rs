//! A desk whose quotes come from several threads and whose prices producers make, for processes that are killed.

use underbelly::{
    Batch, ColumnType, CommitError, Database, Failure, Outputs, ProducerDefinition, ReadError, Row,
    SchemaError, SlotDefinition, Snapshot, Timestamp,
};

use crate::{day, one};

/// Threads that quote.
pub const THREADS: usize = 3;

const QUOTES: &str = "Desk.Quote";
const PRICES: &str = "Desk.Price";
const MARKS: &str = "Desk.Mark";

fn series(thread: usize) -> String {
    format!("quotes{thread}")
}

fn slot(name: &str) -> SlotDefinition {
    SlotDefinition::new(name).cell_key("name", ColumnType::Utf8).value("n", ColumnType::I64)
}

fn name_of(thread: usize) -> String {
    format!("t{thread}")
}

/// Defines the slots and puts both producers to work: a price is twice its quote, a mark one more than its price. Each
/// mark is also a row.
pub fn register(db: &Database) -> Result<(), SchemaError> {
    for name in [QUOTES, PRICES, MARKS] {
        db.define_slot(slot(name))?;
    }
    let number = |rows: &underbelly::Columns| {
        rows.i64s("n").and_then(|n| n.first().copied()).ok_or_else(|| Failure::declined("no number"))
    };
    db.register(ProducerDefinition::new("pricer").requires(QUOTES).provides(PRICES), move |run| {
        Ok(Outputs::new().put(PRICES, one("n", 2 * number(&run.input(QUOTES)?)?)?))
    })?;
    db.register(ProducerDefinition::new("marker").requires(PRICES).provides(MARKS), move |run| {
        let mark = number(&run.input(PRICES)?)? + 1;
        let row = Row::new("marks", Timestamp(0)).key("name", run.key("name").cloned()).field("mark", mark);
        Ok(Outputs::new().put(MARKS, one("n", mark)?).append(row)?)
    })
}

/// Quote `i` of a thread: a row and a cell.
pub fn quote(thread: usize, i: u64) -> Result<Batch, CommitError> {
    let mut batch = Batch::new();
    batch.append(Row::new(series(thread), Timestamp(i as i64)).field("x", i as i64))?;
    batch.put_slot(QUOTES, day(), [name_of(thread)], one("n", i as i64)?);
    Ok(batch)
}

fn number(snapshot: &Snapshot, slot: &str, thread: usize) -> Result<Option<i64>, ReadError> {
    match snapshot.slot(slot, day(), [name_of(thread)]) {
        Err(ReadError::UnknownSlot { .. }) => Ok(None),
        found => Ok(found?.and_then(|cell| cell.rows.i64s("n")?.first().copied())),
    }
}

/// How many quotes of each thread a snapshot shows, after checking that they are a prefix, that row and cell agree,
/// and that no price or mark is from a quote that is not there, or was made twice.
///
/// # Panics
/// Where one of that is not so.
pub fn quoted(snapshot: &Snapshot) -> Result<Vec<u64>, ReadError> {
    let mut counts = Vec::new();
    for thread in 0..THREADS {
        let rows = match snapshot.series(&series(thread)) {
            Err(ReadError::UnknownSeries { .. }) => Vec::new(),
            series => {
                let rows = series?.range(Timestamp::MIN, Timestamp::MAX)?;
                rows.i64s("x").unwrap_or_default().to_vec()
            }
        };
        assert!(rows.iter().copied().eq(1..=rows.len() as i64), "quotes of thread {thread} are no prefix");
        let count = rows.len() as i64;
        assert_eq!(number(snapshot, QUOTES, thread)?.unwrap_or(0), count, "row and cell of thread {thread}");
        let price = number(snapshot, PRICES, thread)?.unwrap_or(0);
        assert!(price <= 2 * count && price % 2 == 0, "price {price} after {count} quotes");
        let mark = number(snapshot, MARKS, thread)?.unwrap_or(1);
        assert!(mark <= price + 1, "mark {mark} of price {price}");
        let rows = match snapshot.series("marks") {
            Err(ReadError::UnknownSeries { .. }) => Vec::new(),
            series => {
                let rows = series?.range(Timestamp::MIN, Timestamp::MAX)?;
                let all = (0..rows.rows()).map(|row| (rows.value("name", row), rows.i64s("mark")));
                let mine = Some(underbelly::Value::from(name_of(thread)));
                let marks = all.enumerate().filter(|(_, (name, _))| *name == mine);
                marks.filter_map(|(row, (_, marks))| marks?.get(row).copied()).collect()
            }
        };
        assert!(rows.is_sorted_by(|a, b| a < b), "marks of thread {thread}: {rows:?}");
        assert_eq!(rows.last().copied().unwrap_or(1), mark, "row and cell of the mark of thread {thread}");
        counts.push(count as u64);
    }
    Ok(counts)
}

/// Lets the producers end their work and checks that every price and mark is that of the last quote.
///
/// # Panics
/// Where one is not, or the producers do not come to rest.
pub fn settle(db: &Database) -> Result<(), SchemaError> {
    register(db)?;
    assert!(db.wait_idle(std::time::Duration::from_secs(60)), "producers do not come to rest");
    let snapshot = db.snapshot();
    let counts = quoted(&snapshot).map_err(CommitError::from).map_err(Box::new)?;
    for (thread, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        let mark = number(&snapshot, MARKS, thread).map_err(CommitError::from).map_err(Box::new)?;
        assert_eq!(mark, Some(2 * count as i64 + 1), "mark of thread {thread} at rest");
    }
    Ok(())
}
