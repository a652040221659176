//! Durable cursors: a consumer goes on where it was, and consumes each transaction once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use underbelly::disk::Act;
use underbelly::{
    Batch, CURSOR_PREFIX, CommitError, Database, Durability, FaultyDisk, FeedError, Options, Row, Scope,
    SimulatedDisk, Slow, Start, Timestamp, Watch,
};

use crate::{QUOTE, create, define, plain, quote, settings};

/// Consumes what there is: a row for each transaction, in the transaction that moves the cursor.
fn consume(db: &Database, name: &str) -> Result<(), FeedError> {
    let filter = Watch::all().slot(QUOTE);
    let mut following = db.subscribe(&filter, Start::Cursor(name.to_string()), Slow::CatchUp)?;
    while let Some(committed) = following.next_within(Duration::ZERO)? {
        db.transact::<_, CommitError>(|tx| {
            tx.append(Row::new("consumed", Timestamp(0)).field("seq", committed.seq as i64))?;
            tx.advance_cursor(name, committed.seq)
        })?;
    }
    Ok(())
}

fn consumed(db: &Database) -> Vec<i64> {
    let Ok(series) = db.snapshot().series("consumed") else { return Vec::new() };
    series.scan().collect().unwrap().i64s("seq").unwrap_or_default().to_vec()
}

/// Seqs of the transactions that changed the state of a quote.
fn of_quotes(db: &Database) -> Vec<i64> {
    let feed = db.feed(&Watch::all().slot(QUOTE), Start::Oldest).unwrap();
    feed.map(|committed| committed.unwrap().seq as i64).collect()
}

/// Wherever the machine stops, and however often the consumer begins anew, each transaction has been consumed exactly
/// once in the end.
#[test]
fn a_crash_at_every_call_leaves_each_transaction_consumed_once() {
    let work = |db: &Database, from: i64| -> Result<(), Box<dyn std::error::Error>> {
        db.define_slot(underbelly_tests::counter_slot(QUOTE))?;
        for n in from..from + 3 {
            db.commit(quote("a", n, Durability::Sync))?;
            db.commit(quote("b", n, Durability::Buffered))?;
            consume(db, "reporter")?;
            if n == from + 1 {
                db.checkpoint()?;
            }
        }
        Ok(())
    };
    let calls = {
        let (disk, db) = create(settings());
        work(&db, 0).unwrap();
        assert_eq!(consumed(&db), of_quotes(&db));
        disk.calls()
    };
    for call in 0..calls {
        let disk = SimulatedDisk::new();
        disk.fail_at(Some(call));
        if let Ok(db) = Database::create_on(Arc::new(disk.clone()), settings()) {
            // A call that fails may cost the readers of other processes alone.
            let _ = work(&db, 0);
        }
        let left = if call % 2 == 0 { disk.crash() } else { disk.crash_keeping_all() };
        let Ok(db) = Database::open_on(Arc::new(left), settings()) else { continue };
        work(&db, 10).unwrap();
        assert_eq!(consumed(&db), of_quotes(&db), "stopped at call {call}");
    }
}

#[test]
fn of_two_consumers_under_one_name_the_second_is_refused() {
    let (_, db) = create(settings());
    define(&db);
    let first = db.commit(quote("a", 1, Durability::Sync)).unwrap().seq;
    let advance = |seq| db.transact::<_, CommitError>(|tx| tx.advance_cursor("reporter", seq));
    advance(first).unwrap();
    for seq in [first, first - 1] {
        let refused = advance(seq);
        assert!(
            matches!(&refused, Err(CommitError::Consumed { cursor, seq: asked, at })
                if (cursor.as_str(), *asked, *at) == ("reporter", seq, first)),
            "{refused:?}"
        );
    }
    // One whose snapshot is from before the other's move begins again, and finds it.
    let mut runs = 0;
    let refused = db.transact::<_, CommitError>(|tx| {
        runs += 1;
        tx.advance_cursor("reporter", first + 1)?;
        if runs == 1 {
            advance(first + 1)?;
        }
        Ok(())
    });
    assert!(matches!(refused, Err(CommitError::Consumed { .. })));
    assert_eq!((runs, db.cursor("reporter").unwrap()), (2, Some(first + 1)));
}

#[test]
fn an_acknowledged_cursor_is_where_the_next_subscription_begins() {
    let (disk, db) = create(settings());
    define(&db);
    let start = || Start::Cursor("reporter".to_string());
    let filter = Watch::all().slot(QUOTE);
    db.commit(quote("a", 1, Durability::Sync)).unwrap();
    let mut following = db.subscribe(&filter, start(), Slow::CatchUp).unwrap();
    let one = following.next_within(Duration::ZERO).unwrap().unwrap();
    assert_eq!(db.cursor("reporter").unwrap(), None);
    following.ack().unwrap();
    assert_eq!(db.cursor("reporter").unwrap(), Some(one.seq));
    let head = db.head_seq();
    following.ack().unwrap();
    assert_eq!(db.head_seq(), head, "nothing to move");
    let two = db.commit(quote("a", 2, Durability::Sync)).unwrap();
    db.commit(plain(1, Durability::Sync)).unwrap();
    // What was told and not acknowledged is told again.
    assert_eq!(following.next_within(Duration::ZERO).unwrap().unwrap().seq, two.seq);
    drop((following, db));
    let db = Database::open_on(Arc::new(disk.crash()), settings()).unwrap();
    let mut following = db.subscribe(&filter, start(), Slow::CatchUp).unwrap();
    assert_eq!(following.next_within(Duration::ZERO).unwrap().unwrap().seq, two.seq);
    // An idle consumer moves its cursor over what passed by.
    while following.next_within(Duration::ZERO).unwrap().is_some() {}
    following.ack().unwrap();
    assert_eq!(db.cursor("reporter").unwrap(), Some(following.next_seq() - 1));
    assert!(following.next_seq() > two.seq + 1);
}

#[test]
fn a_cursor_that_is_too_old_or_is_none_is_told() {
    let (_, db) = create(Options { changes_kept: Duration::ZERO, ..settings() });
    define(&db);
    let consumed = db.commit(quote("a", 1, Durability::Sync)).unwrap().seq;
    db.transact::<_, CommitError>(|tx| tx.advance_cursor("reporter", consumed)).unwrap();
    for n in 0..3 {
        db.commit(quote("a", n, Durability::Sync)).unwrap();
        db.checkpoint().unwrap();
    }
    let mut following =
        db.subscribe(&Watch::all(), Start::Cursor("reporter".to_string()), Slow::CatchUp).unwrap();
    let error = following.next_within(Duration::ZERO).unwrap_err();
    assert!(matches!(error, FeedError::TooOld { asked, oldest } if asked == consumed + 1 && oldest > asked));

    let mut without = db.subscribe(&Watch::all(), Start::Now, Slow::CatchUp).unwrap();
    assert!(matches!(without.ack(), Err(FeedError::NoCursor)));
    let mut batch = underbelly::Batch::new();
    batch.set_variable(Scope::Global, &format!("{CURSOR_PREFIX}text"), 0.5);
    assert!(matches!(db.commit(batch), Err(CommitError::CursorValue { cursor, .. }) if cursor == "text"));
    let refused = db.feed(&Watch::all(), Start::Cursor("a\nb".to_string()));
    assert!(matches!(refused, Err(FeedError::Commit(CommitError::Name { .. }))));
}

/// A cursor may stand at a transaction that is sequenced and not durable yet: it is durable before the cursor is.
#[test]
fn a_cursor_may_stand_at_what_is_under_way() {
    let disk = FaultyDisk::new(SimulatedDisk::new());
    let db = Arc::new(Database::create_on(Arc::new(disk.clone()), settings()).unwrap());
    let held = Arc::new(AtomicBool::new(true));
    let holds = held.clone();
    disk.watch(move |call| {
        while call.act == Act::Sync && call.name.starts_with("wal/") && holds.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let before = db.head_seq();
    let set = |name: &'static str, value: u64| {
        let db = db.clone();
        thread::spawn(move || {
            let mut batch = Batch::new();
            batch.set_variable(Scope::Global, name, value as i64);
            db.commit(batch).map(|receipt| receipt.seq)
        })
    };
    let first = set("x", 0);
    while db.head_seq() == before {
        thread::yield_now();
    }
    let second = set("_cursor.job", before + 1);
    while !second.is_finished() && db.head_seq() < before + 2 {
        thread::yield_now();
    }
    held.store(false, Ordering::Relaxed);
    assert_eq!(first.join().unwrap().unwrap(), before + 1);
    assert_eq!(second.join().unwrap().unwrap(), before + 2);
    assert_eq!(db.cursor("job").unwrap(), Some(before + 1));
}
