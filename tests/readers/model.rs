//! A reader shows at each seq what the writer showed there, whatever happens in between.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;
use underbelly::{Database, Snapshot};
use underbelly_tests::{define, options, shown, transaction, transactions_shown};

#[derive(Clone, Debug)]
enum Step {
    Commit { large: bool },
    Checkpoint,
    Reopen,
    Refresh,
    Open,
    Keep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => Just(Step::Commit { large: false }),
        1 => Just(Step::Commit { large: true }),
        3 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        5 => Just(Step::Refresh),
        2 => Just(Step::Open),
        2 => Just(Step::Keep),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn readers_show_what_the_writer_showed(steps in steps()) {
        let _alone = crate::alone();
        let dir = TempDir::new().unwrap();
        let mut db = Database::create_with(dir.path(), options()).unwrap();
        define(&db).unwrap();
        let mut reader = Database::open_read_only(dir.path()).unwrap();
        let (mut count, mut large): (u64, Vec<u64>) = (0, Vec::new());
        let mut kept: Vec<(u64, Snapshot)> = Vec::new();
        // What each seq shows, by the number of transactions in it.
        let mut shows: BTreeMap<u64, BTreeMap<String, String>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Commit { large: is_large } => {
                    count += 1;
                    if is_large {
                        large.push(count);
                    }
                    db.commit(transaction(count, is_large).unwrap()).unwrap();
                    shows.insert(count, shown(&db).unwrap());
                }
                Step::Checkpoint => drop(db.checkpoint().unwrap()),
                Step::Reopen => {
                    drop(db);
                    db = Database::open_with(dir.path(), options()).unwrap();
                }
                Step::Refresh => drop(reader.refresh().unwrap()),
                Step::Open => reader = Database::open_read_only(dir.path()).unwrap(),
                Step::Keep => {
                    let snapshot = reader.snapshot();
                    kept.push((transactions_shown(&snapshot, |i| large.contains(&i)).unwrap(), snapshot));
                }
            }
            let seen = transactions_shown(&reader.snapshot(), |i| large.contains(&i)).unwrap();
            if let Some(then) = shows.get(&seen) {
                prop_assert_eq!(&shown(&reader).unwrap(), then);
            }
            if matches!(step, Step::Refresh | Step::Open) {
                prop_assert_eq!(seen, count, "what was acknowledged is shown");
                let states = |rows: underbelly::Rows<underbelly::SlotRow>| format!("{:?}", rows.collect::<Vec<_>>());
                let (here, there) = (reader.slot_table(None).unwrap(), db.slot_table(None).unwrap());
                prop_assert_eq!(states(here), states(there));
            }
        }
        for (seen, snapshot) in kept {
            prop_assert_eq!(transactions_shown(&snapshot, |i| large.contains(&i)).unwrap(), seen);
        }
    }
}
