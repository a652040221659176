//! Versions by the time of their metadata, of one model and of all.

use std::ops::Bound;
use std::sync::Arc;

use proptest::prelude::*;
use underbelly::{
    Batch, Database, Direction, Metadata, ModelInfo, SimulatedDisk, Snapshot, Timestamp, Where,
};
use underbelly_tests::options;

use super::find::{LONG, indexed};

/// A version as a model of the database keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    of: (u8, u8),
    name: u8,
    at: i64,
    version: u64,
    seq: u64,
}

/// Type and an attribute are the identity; the name is outside.
fn metadata((model_type, x): (u8, u8), name: u8, at: i64) -> Metadata {
    let of_type = Metadata::new(["m", "n"][usize::from(model_type)]);
    of_type.with("x", i64::from(x)).with("name", i64::from(name)).with("timestamp", Timestamp(at))
}

#[derive(Clone, Debug)]
enum Step {
    /// Versions of models, in one transaction.
    Put(Vec<((u8, u8), u8, i64)>),
    Delete((u8, u8)),
    /// Of this model the version so many before the newest.
    DeleteVersion((u8, u8), usize),
    Checkpoint,
    Index,
}

fn step() -> impl Strategy<Value = Step> {
    let of = || (0u8..2, 0u8..2);
    // Some models get later and later versions, others do not.
    let put = (of(), 0u8..3, 0i64..8);
    prop_oneof![
        12 => proptest::collection::vec(put, 1..4).prop_map(Step::Put),
        1 => of().prop_map(Step::Delete),
        3 => (of(), 1usize..4).prop_map(|(of, back)| Step::DeleteVersion(of, back)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Index),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    All,
    OfType(u8),
    Named(u8),
    Both(u8, u8),
    Either(u8, u8),
    From(i64),
}

impl Asked {
    fn wanted(self) -> Where {
        let of_type = |n: u8| Where::equals("type", ["m", "n"][usize::from(n)]);
        let named = |n: u8| Where::equals("name", i64::from(n));
        match self {
            Asked::All => Where::any(),
            Asked::OfType(n) => of_type(n),
            Asked::Named(n) => named(n),
            Asked::Both(n, name) => of_type(n).and(named(name)),
            Asked::Either(x, name) => Where::equals("x", i64::from(x)).or(named(name)),
            Asked::From(at) => Where::between("timestamp", Timestamp(at)..),
        }
    }

    fn takes(self, kept: &Kept) -> bool {
        match self {
            Asked::All => true,
            Asked::OfType(n) => kept.of.0 == n,
            Asked::Named(n) => kept.name == n,
            Asked::Both(n, name) => kept.of.0 == n && kept.name == name,
            Asked::Either(x, name) => kept.of.1 == x || kept.name == name,
            Asked::From(at) => kept.at >= at,
        }
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    prop_oneof![
        Just(Asked::All),
        (0u8..2).prop_map(Asked::OfType),
        (0u8..3).prop_map(Asked::Named),
        (0u8..2, 0u8..3).prop_map(|(n, name)| Asked::Both(n, name)),
        (0u8..2, 0u8..3).prop_map(|(x, name)| Asked::Either(x, name)),
        (0i64..8).prop_map(Asked::From),
    ]
}

type Times = (Bound<Timestamp>, Bound<Timestamp>);

fn times() -> impl Strategy<Value = Times> {
    let end = || {
        (0u8..3, 0i64..8).prop_map(|(kind, at)| match kind {
            0 => Bound::Unbounded,
            1 => Bound::Included(Timestamp(at)),
            _ => Bound::Excluded(Timestamp(at)),
        })
    };
    (end(), end())
}

fn is_in((from, to): &Times, at: i64) -> bool {
    let is_behind = match from {
        Bound::Unbounded => true,
        Bound::Included(from) => at >= from.0,
        Bound::Excluded(from) => at > from.0,
    };
    is_behind
        && match to {
            Bound::Unbounded => true,
            Bound::Included(to) => at <= to.0,
            Bound::Excluded(to) => at < to.0,
        }
}

fn of(info: &ModelInfo) -> (i64, u64, [u8; 32], u64) {
    (info.timestamp.0, info.seq, info.id.0, info.version)
}

/// What the model says, newest first.
fn expected(kept: &[Kept], asked: Asked, times: &Times) -> Vec<(i64, u64, [u8; 32], u64)> {
    let found = kept.iter().filter(|kept| asked.takes(kept) && is_in(times, kept.at));
    let id = |kept: &Kept| metadata(kept.of, 0, 0).id().unwrap().0;
    let mut found: Vec<_> = found.map(|kept| (kept.at, kept.seq, id(kept), kept.version)).collect();
    found.sort_unstable();
    found.reverse();
    found
}

/// The version that is nearest to a time on a side, of several the newest.
fn closest(kept: &[Kept], of: (u8, u8), at: i64, direction: Direction) -> Option<u64> {
    let versions = || kept.iter().filter(|kept| kept.of == of);
    let before = versions().filter(|kept| kept.at <= at).max_by_key(|kept| (kept.at, kept.version));
    let after = versions().filter(|kept| kept.at >= at).min_by_key(|kept| (kept.at, u64::MAX - kept.version));
    let nearest = match (before, after) {
        (Some(before), Some(after)) if after.at - at < at - before.at => Some(after),
        (before, after) => before.or(after),
    };
    let found = match direction {
        Direction::Backward => before,
        Direction::Forward => after,
        Direction::Nearest => nearest,
    };
    found.map(|kept| kept.version)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// All versions are found that a snapshot shows, by what they are and when, with an index and without.
    #[test]
    fn versions_of_all_models_are_found_by_time(
        steps in proptest::collection::vec(step(), 1..30),
        queries in proptest::collection::vec((asked(), times(), 0usize..4, 0usize..6), 8),
        is_indexed: bool,
    ) {
        let disk = SimulatedDisk::new();
        let own = if is_indexed { indexed() } else { options() };
        let db = Database::create_on(Arc::new(disk.clone()), own.clone()).unwrap();
        let mut kept: Vec<Kept> = Vec::new();
        let mut held: Vec<(Snapshot, Vec<Kept>)> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            let mut batch = Batch::new();
            match step {
                Step::Put(puts) => {
                    for ((model, name, at), seq) in puts.into_iter().zip(std::iter::repeat(db.head_seq() + 1)) {
                        let newest = kept.iter().filter(|kept| kept.of == model).map(|kept| kept.version).max();
                        kept.push(Kept { of: model, name, at, version: newest.unwrap_or(0) + 1, seq });
                        batch.put_model(metadata(model, name, at), vec![name]);
                    }
                    db.commit(batch).unwrap();
                }
                Step::Delete(model) => {
                    kept.retain(|kept| kept.of != model);
                    batch.delete_model(&metadata(model, 0, 0)).unwrap();
                    db.commit(batch).unwrap();
                }
                Step::DeleteVersion(model, back) => {
                    let Some(gone) = kept.iter().rev().filter(|kept| kept.of == model).nth(back).cloned() else {
                        continue;
                    };
                    kept.retain(|kept| *kept != gone);
                    batch.delete_model_version(&metadata(model, 0, 0), gone.version).unwrap();
                    db.commit(batch).unwrap();
                }
                Step::Checkpoint => drop(db.checkpoint().unwrap()),
                Step::Index => prop_assert_eq!(db.wait_index(LONG), is_indexed),
            }
            if n % 5 == 0 {
                held.push((db.snapshot(), kept.clone()));
            }
        }
        held.push((db.snapshot(), kept.clone()));
        let crashed = Database::open_on(Arc::new(disk.crash()), own).unwrap();
        held.push((crashed.snapshot(), kept));
        for (snapshot, kept) in &held {
            for (asked, times, skip, count) in &queries {
                let all = expected(kept, *asked, times);
                let found = snapshot.find_versions(&asked.wanted(), *times, 0, usize::MAX).unwrap();
                prop_assert_eq!(&found.iter().map(of).collect::<Vec<_>>(), &all, "{:?} {:?}", asked, times);
                let page = snapshot.find_versions(&asked.wanted(), *times, *skip, *count).unwrap();
                let expected: Vec<_> = all.into_iter().skip(*skip).take(*count).collect();
                prop_assert_eq!(page.iter().map(of).collect::<Vec<_>>(), expected);
            }
            for (model, at) in [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().flat_map(|of| (-1..9).map(move |at| (of, at))) {
                for direction in [Direction::Backward, Direction::Forward, Direction::Nearest] {
                    let found = snapshot.model_closest(&metadata(model, 0, 0), Timestamp(at), direction).unwrap();
                    let found = found.map(|model| model.info().version);
                    prop_assert_eq!(found, closest(kept, model, at, direction), "{:?} {} {:?}", model, at, direction);
                }
            }
        }
    }
}

/// Of many versions a page is found where it is, and times at the ends of the range are no others.
#[test]
fn pages_of_many_versions_are_of_their_time() {
    let (_, db) = underbelly_tests::in_memory().unwrap();
    let hour = |n: i64| Timestamp(n * 3_600_000_000_000);
    for from in (0..1_000).step_by(100) {
        let mut batch = Batch::new();
        for n in from..from + 100 {
            batch.put_model(Metadata::new("smile").with("timestamp", hour(n)), vec![1]);
        }
        db.commit(batch).unwrap();
    }
    let smiles = Where::equals("type", "smile");
    let snapshot = db.snapshot();
    let page = |times: std::ops::RangeInclusive<Timestamp>, skip, count| -> Vec<u64> {
        let found = snapshot.find_versions(&smiles, times, skip, count).unwrap();
        found.iter().map(|info| info.version).collect()
    };
    assert_eq!(page(hour(500)..=hour(502), 0, 9), [503, 502, 501]);
    assert_eq!(page(hour(100)..=hour(900), 700, 2), [201, 200]);
    assert_eq!(page(Timestamp::MIN..=Timestamp::MAX, 998, 9), [2, 1]);
    assert!(snapshot.find_versions(&smiles, hour(5)..hour(5), 0, 9).unwrap().is_empty());
    let none = (Bound::Excluded(Timestamp::MAX), Bound::Unbounded);
    assert!(snapshot.find_versions(&smiles, none, 0, 9).unwrap().is_empty());
    assert_eq!(snapshot.find_versions(&smiles, .., 0, usize::MAX).unwrap().len(), 1_000);
}
