//! What a power cut in the middle of a history leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use underbelly::{Database, Options, SimulatedDisk};
use underbelly_tests::options;

use crate::histories::{Cut, Plan, Promises, Recorded, all_objects, history, shown};
use crate::history::{Access, Entry, Object, Outcome};

/// What a replay of the commits up to `seq`, in their order, leaves of each object.
fn replayed(entries: &[Entry], seq: u64) -> BTreeMap<Object, Vec<i64>> {
    let place = |entry: &&Entry| match entry.outcome {
        Outcome::Committed { seq: at } if at <= seq => Some(at),
        _ => None,
    };
    let mut commits: Vec<&Entry> = entries.iter().filter(|entry| place(entry).is_some()).collect();
    commits.sort_by_key(place);
    let mut left: BTreeMap<Object, Vec<i64>> = BTreeMap::new();
    for access in commits.into_iter().flat_map(|entry| &entry.accesses) {
        if let Access::Write(object, value) = access {
            let values = left.entry(*object).or_default();
            if !object.is_list() {
                values.clear();
            }
            values.push(*value);
        }
    }
    left
}

/// How many transactions of a history were lost that nobody had promised to keep.
fn check(recorded: &Recorded, cut: &Cut) -> u64 {
    let db = Database::open_on(Arc::new(cut.left.clone()), options()).unwrap();
    let found = db.recovery_report().last_seq;
    let answered = recorded.kept.iter().filter(|(answered, _)| *answered < cut.moment);
    let promised = answered.map(|(_, seq)| *seq).max().unwrap_or(0);
    assert!(
        found >= promised,
        "seq {promised} was answered as durable, and {found} is the last that is left"
    );
    assert!(found <= cut.head, "seq {found} is left, and {} was the last", cut.head);
    let expected = replayed(&recorded.entries, found);
    for object in all_objects() {
        let left = shown(&db.snapshot(), object);
        assert_eq!(left, expected.get(&object).cloned().unwrap_or_default(), "{object:?} after seq {found}");
    }
    cut.head - found
}

/// What a power cut leaves of a history, at any moment, is what its transactions up to one of them left, in their order;
/// and all that were answered as durable before the cut are among these. Those that were answered when they were
/// visible may be missing.
#[test]
fn a_power_cut_in_a_history_leaves_a_prefix_with_all_that_was_answered_as_durable() {
    for promises in [Promises::Sync, Promises::Mixed] {
        for seed in 200..204 {
            // Nothing is written but by who waits for it.
            let options = Options { buffered_delay: None, seal_after: None, ..options() };
            let disk = SimulatedDisk::new();
            let db = Database::create_on(Arc::new(disk.clone()), options).unwrap();
            let recorded = history(db, Some(&disk), Plan { seed, threads: 4, each: 40, promises });
            assert_eq!(recorded.cuts.len(), 6);
            let lost: u64 = recorded.cuts.iter().map(|cut| check(&recorded, cut)).sum();
            assert!(lost > 0 || promises == Promises::Sync, "the last one was not waited for");
        }
    }
}
