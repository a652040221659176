//! Other processes follow a database beside its writer: what is durable, and nothing else.

use std::sync::Arc;

use underbelly::{Committed, Database, Durability, FeedError, Options, Start, Watch};

use crate::{check_all, create, define, plain, quote, settings, told};

#[test]
fn a_reader_is_told_what_the_writer_tells_and_only_what_is_durable() {
    let (disk, db) = create(Options { log_file_bytes: 16 << 10, ..settings() });
    define(&db);
    let mut reader = Database::open_read_only_with(Arc::new(disk.clone()), 0).unwrap();
    let mut followed: Vec<Committed> = told(&reader, Start::Oldest);
    let mut anew = 0;
    assert_eq!(followed, told(&db, Start::Oldest));
    for n in 0..60 {
        db.commit(quote("a", n, Durability::Sync)).unwrap();
        db.run_ready().unwrap();
        let buffered = db.commit(plain(n, Durability::Buffered)).unwrap();
        // The second makes the writer's log leave the reader behind, so that it begins anew.
        if n % 20 == 10 || n % 20 == 11 {
            db.checkpoint().unwrap();
        }
        if n % 7 == 0 || n == 59 {
            let (before, most) = (reader.seq(), 1 + n as usize % 9);
            let (seq, records) = reader.refresh_with_records(most).unwrap();
            assert_eq!(seq, reader.seq());
            // Where it begins anew there are none.
            anew += usize::from(records.is_empty());
            let told = if records.is_empty() { before } else { seq.min(before + most as u64) };
            assert!(records.iter().map(|record| record.seq).eq(before + 1..=told));
            assert!(records.iter().all(|record| !record.does.is_empty()));
            let next = followed.last().unwrap().seq + 1;
            let mut feed = reader.feed(&Watch::all(), Start::Seq(next)).unwrap();
            followed.extend(feed.by_ref().map(Result::unwrap));
            assert_eq!(feed.next_seq(), reader.seq() + 1);
            assert!(reader.seq() <= db.durable_seq());
            if db.durable_seq() < buffered.seq {
                assert!(followed.last().unwrap().seq < buffered.seq);
            }
            check_all(&reader, &followed, 1);
        }
    }
    assert!((1..5).contains(&anew), "{anew}");
    db.wait_durable(db.head_seq()).unwrap();
    reader.refresh().unwrap();
    assert_eq!(told(&reader, Start::Oldest), told(&db, Start::Oldest));
    let ahead = reader.feed(&Watch::all(), Start::Seq(reader.seq() + 2));
    assert!(matches!(ahead, Err(FeedError::Ahead { .. })));
}

#[test]
fn a_reader_finds_the_cursors_of_the_writers_consumers() {
    let (disk, db) = create(settings());
    define(&db);
    let put = db.commit(quote("a", 1, Durability::Sync)).unwrap().seq;
    db.transact::<_, underbelly::CommitError>(|tx| tx.advance_cursor("reporter", put)).unwrap();
    let reader = Database::open_read_only_with(Arc::new(disk), 0).unwrap();
    assert_eq!(reader.cursor("reporter").unwrap(), Some(put));
    let start = Start::Cursor("reporter".to_string());
    assert_eq!(told(&reader, start).first().unwrap().seq, put + 1);
}
