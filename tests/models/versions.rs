//! Versions have numbers that stay, are found by number, time, alias and place, and are kept as long as they should.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use underbelly::{
    AliasTarget, Batch, CommitError, Database, Location, ManualClock, MetaValue, ModelName, Options,
    ReadError, Retention, SimulatedDisk, Timestamp, TrainedOn, Training,
};
use underbelly_tests::options;

use super::{put, smile};

const SECOND: i64 = 1_000_000_000;

fn clocked() -> (SimulatedDisk, Database, Arc<ManualClock>) {
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::new(Timestamp(0))));
    let options = Options { clock: clock.clone(), workers: 0, ..options() };
    (disk.clone(), Database::create_on(Arc::new(disk), options).unwrap(), clock)
}

fn reopened(disk: &SimulatedDisk) -> Database {
    Database::open_on(Arc::new(disk.crash()), Options { workers: 0, ..options() }).unwrap()
}

fn commit(
    db: &Database,
    fill: impl FnOnce(&mut Batch) -> Result<(), CommitError>,
) -> Result<u64, CommitError> {
    let mut batch = Batch::new();
    fill(&mut batch)?;
    db.commit(batch).map(|commit| commit.seq)
}

fn alias(db: &Database, name: &str, target: impl Into<AliasTarget>) -> Result<u64, CommitError> {
    commit(db, |batch| batch.set_alias(&smile("fx"), name, target).map(drop))
}

fn keep(db: &Database, retention: Option<Retention>) {
    commit(db, |batch| batch.set_retention(&smile("fx"), retention).map(drop)).unwrap();
}

fn numbers(db: &Database) -> Vec<u64> {
    db.snapshot().model_versions(&smile("fx")).unwrap().iter().map(|version| version.info.version).collect()
}

/// The version by each way of asking; each blob holds its number.
fn by(
    db: &Database,
    ask: impl FnOnce(&underbelly::Snapshot) -> Result<Option<underbelly::Model>, ReadError>,
) -> Option<u64> {
    let model = ask(&db.snapshot()).unwrap()?;
    assert_eq!(*model.blob().unwrap(), [model.info().version as u8]);
    Some(model.info().version)
}

/// What is told of a model in the transaction that deletes and puts it is told of the new one, whenever the old is dropped.
#[test]
fn marks_of_a_new_life_outlive_the_old() {
    let (disk, db, _) = clocked();
    put(&db, smile("fx"), vec![1]).unwrap();
    alias(&db, "production", 1).unwrap();
    let fx = smile("fx");
    commit(&db, |batch| {
        batch.delete_model(&fx)?.put_model(fx.clone(), vec![1]);
        batch.set_alias(&fx, "production", AliasTarget::Newest)?.pin_version(&fx, 1, true)?;
        batch.set_retention(&fx, Some(Retention { keep_last: Some(1), ..Retention::default() })).map(drop)
    })
    .unwrap();
    for version in [2, 3] {
        put(&db, smile("fx"), vec![version]).unwrap();
    }
    db.checkpoint().unwrap();
    let crashed = reopened(&disk);
    for db in [db, crashed] {
        assert_eq!(by(&db, |snapshot| snapshot.model_alias(&fx, "production")), Some(1));
        assert_eq!(numbers(&db), [3, 1], "version 1 is pinned");
    }
}

/// A version that was deleted alone takes its own marks with it, and not those of another of its number; what may be deleted
/// does not hang on who still reads.
#[test]
fn marks_go_with_their_version_and_with_no_other() {
    let (disk, db, _) = clocked();
    let fx = smile("fx");
    for version in [1, 2] {
        put(&db, smile("fx"), vec![version]).unwrap();
    }
    let held = db.snapshot();
    commit(&db, |batch| batch.delete_model_version(&fx, 1).map(drop)).unwrap();
    commit(&db, |batch| batch.delete_model(&fx).map(drop)).unwrap();
    put(&db, smile("fx"), vec![1]).unwrap();
    commit(&db, |batch| batch.pin_version(&fx, 1, true).map(drop)).unwrap();
    drop(held);
    put(&db, smile("fx"), vec![2]).unwrap();
    put(&db, smile("fx"), vec![3]).unwrap();
    let error = commit(&db, |batch| batch.delete_model_version(&fx, 1).map(drop)).unwrap_err();
    assert!(matches!(error, CommitError::VersionHeld { version: 1, .. }), "{error}");
    assert_eq!(numbers(&reopened(&disk)), [3, 2, 1]);
}

/// What an alias named, and what was told, before a model was deleted is not told of the one that is put under its identity.
#[test]
fn the_history_of_a_deleted_model_is_not_that_of_the_next() {
    let (disk, db, _) = clocked();
    let fx = smile("fx");
    let told = |snapshot: &underbelly::Snapshot| {
        let aliases = snapshot.alias_history(&fx, "production").unwrap();
        let notes = snapshot.annotation_history(&fx, None, "auc").unwrap();
        let aliases: Vec<_> = aliases.iter().map(|alias| alias.version).collect();
        (aliases, notes.into_iter().map(|note| note.value).collect::<Vec<_>>())
    };
    let tell = |auc: i64| {
        put(&db, smile("fx"), vec![1]).unwrap();
        alias(&db, "production", 1).unwrap();
        commit(&db, |batch| batch.annotate(&fx, None, "auc", auc).map(drop)).unwrap();
    };
    tell(1);
    let held = db.snapshot();
    commit(&db, |batch| batch.delete_model(&fx).map(drop)).unwrap();
    put(&db, smile("fx"), vec![1]).unwrap();
    assert_eq!(told(&db.snapshot()), (Vec::new(), Vec::new()));
    tell(2);
    let expected = (vec![Some(1)], vec![Some(MetaValue::I64(2))]);
    assert_eq!(told(&db.snapshot()), expected);
    assert_eq!(told(&held), (vec![Some(1)], vec![Some(MetaValue::I64(1))]));
    assert_eq!(told(&reopened(&disk).snapshot()), expected);
    drop(held);
    db.checkpoint().unwrap();
    assert_eq!((told(&db.snapshot()), told(&reopened(&disk).snapshot())), (expected.clone(), expected));
}

/// Puts the version of this number, and tells of it in the same transaction.
fn put_told(db: &Database, clock: &ManualClock, number: u64) {
    clock.set(Timestamp(number as i64 * SECOND));
    let fx = smile("fx");
    commit(db, |batch| {
        batch.put_model(fx.clone().with("timestamp", Timestamp(number as i64)), vec![number as u8]);
        batch.annotate(&fx, Some(AliasTarget::Newest), "auc", number as i64)?;
        batch.pin_version(&fx, number, number.is_multiple_of(7)).map(drop)
    })
    .unwrap();
}

/// The numbers of all versions that [`put_told`] put, newest first, each with what was told of it and with no other's.
fn whole(snapshot: &underbelly::Snapshot) -> Vec<u64> {
    let fx = smile("fx");
    let versions = snapshot.model_versions(&fx).unwrap();
    let numbers: Vec<u64> = versions.iter().map(|version| version.info.version).collect();
    assert!(versions.iter().all(|version| version.is_pinned == (version.info.version % 7 == 0)));
    let told = snapshot.annotations(&fx).unwrap();
    assert!(told.iter().all(|told| told.value == Some(MetaValue::I64(told.version.unwrap() as i64))));
    let mut of: Vec<u64> = told.iter().filter_map(|told| told.version).collect();
    of.reverse();
    assert_eq!(of, numbers);
    numbers
}

/// What there is much of is read a part at a time, and nothing of it is left out or told twice, whatever is put, deleted and
/// dropped beside.
#[test]
fn listings_are_whole_whatever_goes_on_beside() {
    const MANY: u64 = 700;
    let (_, db, clock) = clocked();
    put_told(&db, &clock, 1);
    keep(&db, Some(Retention::keep_last(300)));
    (2..=MANY).for_each(|number| put_told(&db, &clock, number));
    let kept = |newest: u64| -> Vec<u64> {
        (1..=newest).rev().filter(|n| *n + 300 > newest || n % 7 == 0).collect()
    };
    let held = db.snapshot();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let newest = std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let mut number = MANY;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) || number < MANY + 50 {
                number += 1;
                put_told(&db, &clock, number);
                if number.is_multiple_of(25) {
                    db.checkpoint().unwrap();
                }
            }
            number
        });
        for _ in 0..100 {
            let snapshot = db.snapshot();
            let numbers = whole(&snapshot);
            assert_eq!(numbers, kept(numbers[0]));
            assert_eq!(whole(&held), kept(MANY));
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        beside.join().unwrap()
    });
    assert_eq!((whole(&db.snapshot()), whole(&held)), (kept(newest), kept(MANY)));
}

/// What there is much of is read a part at a time, and nothing of it is left out or told twice.
#[test]
fn many_versions_and_what_is_told_of_them_are_read_whole() {
    const MANY: u64 = 700;
    let (disk, db, clock) = clocked();
    let fx = smile("fx");
    let all = |numbers: std::ops::RangeInclusive<u64>| numbers.rev().collect::<Vec<u64>>();
    (1..=MANY).for_each(|number| put_told(&db, &clock, number));
    let held = db.snapshot();
    let whole = |snapshot: &underbelly::Snapshot| {
        let numbers = whole(snapshot);
        for number in [1, 255, 256, 257, 400, MANY, MANY + 9] {
            let newest = numbers.iter().find(|known| **known <= number).copied();
            let found = |found: Result<Option<underbelly::Model>, ReadError>| {
                found.unwrap().map(|model| model.info().version)
            };
            assert_eq!(found(snapshot.model_as_of(&fx, Timestamp(number as i64))), newest);
            assert_eq!(found(snapshot.model_put_by(&fx, Timestamp(number as i64 * SECOND))), newest);
            let back = numbers.get(number as usize).copied();
            assert_eq!(found(snapshot.model_back(&fx, number as usize)), back);
        }
        numbers
    };
    assert_eq!(whole(&held), all(1..=MANY));
    keep(&db, Some(Retention::keep_last(300)));
    let left: Vec<u64> = all(1..=MANY).into_iter().filter(|n| *n > MANY - 300 || n % 7 == 0).collect();
    assert_eq!((whole(&held), whole(&db.snapshot())), (all(1..=MANY), left.clone()));
    assert_eq!(whole(&reopened(&disk).snapshot()), left);
    commit(&db, |batch| batch.delete_model(&fx).map(drop)).unwrap();
    assert_eq!((whole(&held), whole(&db.snapshot())), (all(1..=MANY), Vec::new()));
    drop(held);
    for n in 0..MANY as i64 {
        put(&db, fx.clone().with("n", n), vec![1]).unwrap();
    }
    let models: Vec<_> = db.snapshot().models().iter().map(|info| info.id).collect();
    assert!(models.len() == MANY as usize && models.is_sorted());
}

#[test]
fn versions_are_found_by_number_time_and_place() {
    let (disk, db, clock) = clocked();
    // Event times are not those of the commits: version 3 is about an earlier time.
    for (number, (put_at, about)) in [(10, 1), (20, 5), (30, 3), (40, 5)].into_iter().enumerate() {
        clock.set(Timestamp(put_at * SECOND));
        put(&db, smile("fx").with("timestamp", Timestamp(about * SECOND)), vec![number as u8 + 1]).unwrap();
        if number == 1 {
            db.checkpoint().unwrap();
        }
    }
    for (number, about) in [(1, 9), (2, 4)] {
        put(&db, smile("late").with("timestamp", Timestamp(about * SECOND)), vec![number]).unwrap();
    }
    let id = smile("fx").id().unwrap();
    for db in [&db, &reopened(&disk)] {
        let late = |t: i64| by(db, |s| s.model_as_of(&smile("late"), Timestamp(t * SECOND)));
        assert_eq!([3, 4, 8, 9].map(late), [None, Some(2), Some(2), Some(1)]);
        assert_eq!(numbers(db), [4, 3, 2, 1]);
        let version = |n| by(db, |s| s.model_version(&smile("fx"), n));
        assert_eq!([0, 1, 3, 4, 5].map(version), [None, Some(1), Some(3), Some(4), None]);
        let back = |n| by(db, |s| s.model_back(&id, n));
        assert_eq!([0, 1, 3, 4].map(back), [Some(4), Some(3), Some(1), None]);
        // At or before, by the metadata; of two at one time the later.
        let as_of = |t: i64| by(db, |s| s.model_as_of(&id, Timestamp(t * SECOND)));
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 9].map(as_of),
            [None, Some(1), Some(1), Some(3), Some(3), Some(4), Some(4)]
        );
        // By what was known then.
        let put_by = |t: i64| by(db, |s| s.model_put_by(&id, Timestamp(t * SECOND)));
        assert_eq!([9, 10, 25, 30, 99].map(put_by), [None, Some(1), Some(2), Some(3), Some(4)]);
        for (place, found) in [
            (id.to_string(), Some(4)),
            (format!("{id}@2"), Some(2)),
            (format!("{id}@9"), None),
            (format!("{id}@best"), None),
        ] {
            let location = Location::parse(&place).unwrap();
            assert_eq!(location.to_string(), place);
            assert_eq!(by(db, |s| s.model_at(&location)), found, "{place}");
        }
    }
    for wrong in ["", "@1", "12@3", &format!("{id}@"), &format!("{id}@a\nb")] {
        assert!(matches!(Location::parse(wrong), Err(ReadError::Location { .. })), "{wrong:?}");
    }
}

#[test]
fn aliases_move_by_compare_and_set_and_keep_their_history() {
    let (disk, db, clock) = clocked();
    assert!(matches!(alias(&db, "best", 1), Err(CommitError::UnknownVersion { .. })));
    for n in 1..=3 {
        put(&db, smile("fx"), vec![n]).unwrap();
    }
    let head = db.head_seq();
    for (name, target) in [("best", 4), ("best", 0), ("7", 1), ("", 1), ("a\nb", 1)] {
        assert!(alias(&db, name, target).is_err(), "{name} {target}");
    }
    assert_eq!(db.head_seq(), head, "what is refused has no seq");
    clock.set(Timestamp(5 * SECOND));
    let first = alias(&db, "best", 2).unwrap();
    let before = db.snapshot();
    let moved = |expected, target: AliasTarget| {
        commit(&db, |batch| batch.set_alias_if(&smile("fx"), "best", expected, target).map(drop))
    };
    match moved(Some(1), AliasTarget::Newest) {
        Err(CommitError::AliasMoved { expected: Some(1), found: Some(2), .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(moved(None, AliasTarget::Newest).is_err());
    let removed =
        |expected| commit(&db, |batch| batch.remove_alias_if(&smile("fx"), "best", expected).map(drop));
    assert!(matches!(removed(Some(1)), Err(CommitError::AliasMoved { found: Some(2), .. })));
    assert!(matches!(removed(None), Err(CommitError::AliasMoved { found: Some(2), .. })));
    // What a batch did before counts.
    let twice = |first: u64, between: Option<u64>, then: u64| {
        let fx = smile("fx");
        commit(&db, |batch| {
            batch
                .set_alias_if(&fx, "twice", Some(2), first)?
                .set_alias_if(&fx, "twice", between, then)
                .map(drop)
        })
    };
    alias(&db, "twice", 2).unwrap();
    match twice(1, Some(2), 3) {
        Err(CommitError::AliasMoved { expected: Some(2), found: Some(1), .. }) => {}
        other => panic!("{other:?}"),
    }
    twice(1, Some(1), 2).unwrap();
    let again = commit(&db, |batch| {
        batch.remove_alias(&smile("fx"), "twice")?.set_alias_if(&smile("fx"), "twice", None, 2).map(drop)
    });
    again.unwrap();
    assert_eq!(by(&db, |s| s.model_alias(&smile("fx"), "twice")), Some(2));
    commit(&db, |batch| batch.remove_alias(&smile("fx"), "twice").map(drop)).unwrap();
    // Its place would be that of the newest version.
    assert!(matches!(alias(&db, "newest", 1), Err(CommitError::Name { .. })));
    // No version has the numbers that stand for others within.
    for version in [0, u64::MAX] {
        let refused = [
            commit(&db, |batch| batch.pin_version(&smile("fx"), version, true).map(drop)),
            commit(&db, |batch| batch.annotate(&smile("fx"), Some(version.into()), "auc", 1.0).map(drop)),
            commit(&db, |batch| batch.delete_model_version(&smile("fx"), version).map(drop)),
            alias(&db, "other", version),
        ];
        for refused in refused {
            assert!(matches!(refused, Err(CommitError::UnknownVersion { .. })), "{version}: {refused:?}");
        }
        if version == 0 {
            let text = alias(&db, "other", version).unwrap_err().to_string();
            assert!(text.contains("no version 0: they are numbered from 1, and the newest is 3;"), "{text}");
        }
    }
    db.checkpoint().unwrap();
    let second = moved(Some(2), AliasTarget::Newest).unwrap();
    // A version and its alias in one transaction.
    commit(&db, |batch| {
        batch.put_model(smile("fx"), vec![4]);
        batch.set_alias(&smile("fx"), "canary", AliasTarget::Newest).map(drop)
    })
    .unwrap();
    commit(&db, |batch| batch.remove_alias(&smile("fx"), "best").map(drop)).unwrap();
    assert_eq!(before.model_alias(&smile("fx"), "best").unwrap().unwrap().info().version, 2);
    assert!(before.aliases(&smile("fx")).unwrap().len() == 1);
    for db in [&db, &reopened(&disk)] {
        assert_eq!(by(db, |s| s.model_alias(&smile("fx"), "best")), None);
        assert_eq!(by(db, |s| s.model_alias(&smile("fx"), "canary")), Some(4));
        let id = smile("fx").id().unwrap();
        assert_eq!(by(db, |s| s.model_at(&Location::parse(&format!("{id}@canary")).unwrap())), Some(4));
        let history = db.snapshot().alias_history(&smile("fx"), "best").unwrap();
        let named: Vec<_> = history.iter().map(|alias| alias.version).collect();
        assert_eq!(named, [Some(2), Some(3), None]);
        assert_eq!((history[0].seq, history[1].seq), (first, second));
        assert_eq!(history[0].time, Timestamp(5 * SECOND));
        let newest = &db.snapshot().model_versions(&smile("fx")).unwrap()[0];
        assert_eq!((&*newest.aliases[0], newest.is_pinned), ("canary", false));
    }
}

/// Retention takes all but the newest so many and the old ones, and spares what is newest, pinned or named.
#[test]
fn retention_spares_the_newest_the_pinned_and_the_named() {
    let (disk, db, clock) = clocked();
    for n in 1..=6 {
        put(&db, smile("fx"), vec![n]).unwrap();
    }
    commit(&db, |batch| batch.pin_version(&smile("fx"), 2, true).map(drop)).unwrap();
    alias(&db, "production", 1).unwrap();
    let before = db.snapshot();
    keep(&db, Some(Retention::keep_last(2)));
    assert_eq!(numbers(&db), [6, 5, 2, 1]);
    assert_eq!(db.snapshot().retention(&smile("fx")).unwrap(), Some(Retention::keep_last(2)));
    put(&db, smile("fx"), vec![7]).unwrap();
    assert_eq!(numbers(&db), [7, 6, 2, 1]);
    // Who looked before still sees all of it, and no checkpoint takes it away.
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    let seen: Vec<u64> =
        before.model_versions(&smile("fx")).unwrap().iter().map(|version| version.info.version).collect();
    assert_eq!(seen, [6, 5, 4, 3, 2, 1]);
    assert_eq!(*before.model_version(&smile("fx"), 3).unwrap().unwrap().blob().unwrap(), [3]);
    drop(before);
    assert_eq!(numbers(&reopened(&disk)), [7, 6, 2, 1]);
    // An alias that moves and a pin that is taken away no longer hold.
    alias(&db, "production", 7).unwrap();
    assert_eq!(numbers(&db), [7, 6, 2]);
    commit(&db, |batch| batch.pin_version(&smile("fx"), 2, false).map(drop)).unwrap();
    assert_eq!(numbers(&db), [7, 6]);
    // Age counts from the commit.
    keep(&db, Some(Retention::max_age(Duration::from_secs(60))));
    clock.set(Timestamp(100 * SECOND));
    put(&db, smile("fx"), vec![8]).unwrap();
    assert_eq!(numbers(&db), [8, 7], "the alias holds");
    clock.set(Timestamp(130 * SECOND));
    put(&db, smile("fx"), vec![9]).unwrap();
    clock.set(Timestamp(161 * SECOND));
    assert_eq!(numbers(&db), [9, 8, 7]);
    commit(&db, |batch| {
        batch.collect_models();
        Ok(())
    })
    .unwrap();
    assert_eq!(numbers(&db), [9, 7]);
    clock.set(Timestamp(999 * SECOND));
    commit(&db, |batch| {
        batch.collect_models();
        Ok(())
    })
    .unwrap();
    assert_eq!(numbers(&db), [9, 7], "the newest stays");
    keep(&db, None);
    for _ in 0..3 {
        db.checkpoint().unwrap();
    }
    put(&db, smile("fx"), vec![10]).unwrap();
    for db in [&db, &reopened(&disk)] {
        assert_eq!(numbers(db), [10, 9, 7]);
    }
}

/// What a retention would delete is told before, for any that may be set, and is what goes.
#[test]
fn a_retention_says_beforehand_what_it_deletes() {
    let fx = smile("fx");
    let lasts = [None, Some(1), Some(2), Some(4), Some(9)];
    let ages = [None, Some(1), Some(SECOND as u64), Some(3 * SECOND as u64), Some(u64::MAX)];
    let mut deleted = 0;
    for (keep_last, age) in lasts.into_iter().flat_map(|last| ages.map(|age| (last, age))) {
        let (_, db, clock) = clocked();
        for second in 1..=6_u8 {
            clock.set(Timestamp(i64::from(second) * SECOND));
            put(&db, fx.clone(), vec![second]).unwrap();
        }
        commit(&db, |batch| batch.pin_version(&fx, 2, true).map(drop)).unwrap();
        alias(&db, "production", 1).unwrap();
        let retention = Retention { keep_last, max_age: age.map(Duration::from_nanos) };
        let before = numbers(&db);
        // A commit comes behind the one before, also where the clock stands still.
        let at = Timestamp(db.status().time.0 + 1);
        let told = db.snapshot().versions_outside(&fx, retention, at).unwrap();
        let told: Vec<u64> = told.iter().map(|version| version.info.version).collect();
        assert_eq!(numbers(&db), before, "nothing is deleted by asking");
        keep(&db, Some(retention));
        let after = numbers(&db);
        assert_eq!(
            told,
            before.into_iter().filter(|n| !after.contains(n)).collect::<Vec<_>>(),
            "{retention:?}"
        );
        deleted += told.len();
    }
    assert!(deleted > 20, "{deleted}");
    let (_, db, _) = clocked();
    let none = db.snapshot().versions_outside(&fx, Retention::keep_last(1), Timestamp(0)).unwrap();
    assert!(none.is_empty());
}

/// A checkpoint takes what grew too old of models that nobody puts any more, and commits nothing where there is none.
#[test]
fn a_checkpoint_deletes_what_grew_too_old() {
    let (disk, db, clock) = clocked();
    for second in 1..=4 {
        clock.set(Timestamp(second * SECOND));
        put(&db, smile("fx"), vec![second as u8]).unwrap();
    }
    alias(&db, "production", 1).unwrap();
    keep(&db, Some(Retention::max_age(Duration::from_secs(60))));
    let before = db.snapshot();
    let head = db.head_seq();
    for (second, left, commits) in [
        (61, vec![4, 3, 2, 1], 0),
        (62, vec![4, 3, 2, 1], 0),
        (63, vec![4, 3, 1], 1),
        (63, vec![4, 3, 1], 1),
        (999, vec![4, 1], 2),
        (9_999, vec![4, 1], 2),
    ] {
        clock.set(Timestamp(second * SECOND));
        db.checkpoint().unwrap();
        assert_eq!((numbers(&db), db.head_seq() - head), (left, commits), "at {second} s");
    }
    assert_eq!(before.model_versions(&smile("fx")).unwrap().len(), 4);
    assert_eq!(numbers(&reopened(&disk)), [4, 1]);
}

/// Blobs of versions that are gone are gone too.
#[test]
fn the_space_of_versions_that_are_not_kept_comes_back() {
    let (disk, db, _) = clocked();
    put(&db, smile("fx"), vec![0; 300_000]).unwrap();
    keep(&db, Some(Retention::keep_last(1)));
    for n in 1..=20u8 {
        put(&db, smile("fx"), (0..300_000u32).map(|i| (i >> 3) as u8 ^ n).collect::<Vec<u8>>()).unwrap();
    }
    for _ in 0..3 {
        db.checkpoint().unwrap();
    }
    let bytes: usize = disk
        .files()
        .iter()
        .filter(|name| name.starts_with("packs/") || name.starts_with("chunks/"))
        .map(|name| disk.contents(name).unwrap().len())
        .sum();
    assert!(bytes < 700_000, "{bytes}");
    assert_eq!((numbers(&db), db.counts().objects), (vec![21], 1));
}

#[test]
fn single_versions_are_deleted_unless_something_holds_them() {
    let (disk, db, _) = clocked();
    for n in 1..=4 {
        put(&db, smile("fx"), vec![n]).unwrap();
    }
    alias(&db, "production", 2).unwrap();
    let delete = |n| commit(&db, |batch| batch.delete_model_version(&smile("fx"), n).map(drop));
    let held = |n| matches!(delete(n), Err(CommitError::VersionHeld { version, .. }) if version == n);
    assert!(held(4) && held(2));
    let deleted = |snapshot: &underbelly::Snapshot| snapshot.deleted_versions(&smile("fx")).unwrap();
    let before = db.snapshot();
    let unknown = |n| match delete(n) {
        Err(error @ CommitError::UnknownVersion { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(unknown(9).contains("version 9: they are numbered from 1, and the newest is 4;"));
    delete(3).unwrap();
    assert!(unknown(3).contains("version 3: it was deleted;"));
    put(&db, smile("fx"), vec![5]).unwrap();
    for db in [&db, &reopened(&disk)] {
        assert_eq!((numbers(db), deleted(&db.snapshot())), (vec![5, 4, 2, 1], vec![3..=3]));
        assert_eq!(by(db, |s| s.model_back(&smile("fx"), 2)), Some(2));
    }
    // What one transaction does counts together: it may free what it deletes, and hold it.
    let both = |fill: fn(&mut Batch) -> Result<(), CommitError>| commit(&db, fill);
    for hold in [
        (|batch| batch.set_alias(&smile("fx"), "canary", 1)?.delete_model_version(&smile("fx"), 1).map(drop))
            as fn(&mut Batch) -> Result<(), CommitError>,
        |batch| batch.delete_model_version(&smile("fx"), 1)?.pin_version(&smile("fx"), 1, true).map(drop),
    ] {
        let held = both(hold);
        assert!(matches!(held, Err(CommitError::VersionHeld { version: 1, .. })), "{held:?}");
    }
    both(|batch| {
        batch.remove_alias(&smile("fx"), "production")?.delete_model_version(&smile("fx"), 2).map(drop)
    })
    .unwrap();
    both(|batch| {
        batch.put_model(smile("fx"), vec![6]);
        batch.delete_model_version(&smile("fx"), 5).map(drop)
    })
    .unwrap();
    let gone =
        both(|batch| batch.delete_model(&smile("fx"))?.delete_model_version(&smile("fx"), 1).map(drop));
    assert!(matches!(gone, Err(CommitError::UnknownVersion { .. })), "{gone:?}");
    assert_eq!(numbers(&db), [6, 4, 1]);
    assert_eq!((deleted(&db.snapshot()), deleted(&before)), (vec![2..=3, 5..=5], vec![]));
    keep(&db, Some(Retention::keep_last(1)));
    assert_eq!(deleted(&db.snapshot()), [1..=5]);
    // What begins anew has nothing of what was before.
    commit(&db, |batch| batch.delete_model(&smile("fx")).map(drop)).unwrap();
    put(&db, smile("fx"), vec![1]).unwrap();
    for _ in 0..2 {
        db.checkpoint().unwrap();
    }
    for db in [&db, &reopened(&disk)] {
        assert_eq!(numbers(db), [1]);
        assert!(db.snapshot().aliases(&smile("fx")).unwrap().is_empty());
        assert!(db.snapshot().alias_history(&smile("fx"), "production").unwrap().is_empty());
    }
}

/// Of a number and an age each takes what the other would leave.
#[test]
fn a_number_and_an_age_hold_together() {
    let (_, db, clock) = clocked();
    let both = Retention { keep_last: Some(3), max_age: Some(Duration::from_secs(60)) };
    for second in 1..=5 {
        clock.set(Timestamp(second * SECOND));
        put(&db, smile("fx"), vec![second as u8]).unwrap();
    }
    // All are young enough.
    keep(&db, Some(both));
    assert_eq!(numbers(&db), [5, 4, 3]);
    clock.set(Timestamp(64 * SECOND + SECOND / 2));
    put(&db, smile("fx"), vec![6]).unwrap();
    assert_eq!(numbers(&db), [6, 5], "the third is older than a minute");
}

#[test]
fn a_model_is_put_once_where_it_is_asked_for() {
    let (_, db, _) = clocked();
    let (first, is_new) = db.put_model_once(&smile("fx"), vec![1]).unwrap();
    assert!(is_new && first.info().version == 1);
    let (second, is_new) = db.put_model_once(&smile("fx").with("timestamp", Timestamp(9)), vec![2]).unwrap();
    assert!(!is_new && second.info().version == 1 && *second.blob().unwrap() == [1]);
    assert_eq!(numbers(&db), [1]);
    // Of many at a time one does.
    for round in 0..20 {
        let (of, start) = (smile("rates").with("round", round), Barrier::new(8));
        let once = |n: u8| {
            start.wait();
            // Long enough that they meet.
            let (model, is_new) = db.put_model_once(&of, vec![n; 1 << 18]).unwrap();
            (is_new, model.info().version, model.blob().unwrap()[0])
        };
        let puts: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || once(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(puts.iter().filter(|(is_new, ..)| *is_new).count(), 1);
        let (_, _, blob) = puts.iter().find(|(is_new, ..)| *is_new).unwrap();
        assert!(puts.iter().all(|(_, version, found)| (*version, found) == (1, blob)), "{puts:?}");
    }
}

/// What was told of a model that was deleted stays with whoever read before, and in no image.
#[test]
fn an_old_life_is_not_told_after_a_restart() {
    let (disk, db, _) = clocked();
    let fx = smile("fx");
    put(&db, smile("fx"), vec![1]).unwrap();
    for _ in 0..2 {
        alias(&db, "best", 1).unwrap();
        commit(&db, |batch| batch.remove_alias(&fx, "best").map(drop)).unwrap();
    }
    db.checkpoint().unwrap();
    let held = db.snapshot();
    commit(&db, |batch| batch.delete_model(&fx).map(drop)).unwrap();
    put(&db, smile("fx"), vec![1]).unwrap();
    // The reader keeps the old life from being dropped before the image is written.
    db.checkpoint().unwrap();
    assert_eq!(held.alias_history(&fx, "best").unwrap().len(), 4);
    assert!(reopened(&disk).snapshot().alias_history(&fx, "best").unwrap().is_empty());
}

/// A repair without any image keeps what the log says of versions: marks, removals and retention.
#[test]
fn a_repair_without_an_image_keeps_what_is_told_of_versions() {
    let (dir, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let db = Database::create_with(dir.path(), options()).unwrap();
    let fx = smile("fx");
    for n in 1..=5 {
        put(&db, smile("fx"), vec![n]).unwrap();
    }
    commit(&db, |batch| {
        batch.set_alias(&fx, "best", 2)?.pin_version(&fx, 3, true)?.delete_model_version(&fx, 4)?;
        batch.annotate(&fx, Some(1.into()), "auc", 0.5).map(drop)
    })
    .unwrap();
    commit(&db, |batch| batch.set_retention(&fx, Some(Retention::keep_last(2))).map(drop)).unwrap();
    let told = |db: &Database| {
        let snapshot = db.snapshot();
        (
            numbers(db),
            snapshot.aliases(&fx).unwrap(),
            snapshot.annotations(&fx).unwrap(),
            snapshot.retention(&fx).unwrap(),
        )
    };
    let before = told(&db);
    assert_eq!(before.0, [5, 3, 2]);
    drop(db);
    std::fs::remove_dir_all(dir.path().join("images")).unwrap();
    Database::repair(dir.path(), place.path().join("saved"), |_, _| ()).unwrap();
    assert_eq!(told(&Database::open_with(place.path().join("saved"), options()).unwrap()), before);
}

/// Tags and metrics come later, are no part of the identity, and keep what they were.
#[test]
fn annotations_have_a_history_and_change_no_identity() {
    let (disk, db, _) = clocked();
    let id = smile("fx").id().unwrap();
    let note = |version: Option<AliasTarget>, name: &str, value: MetaValue| {
        commit(&db, |batch| batch.annotate(&id, version, name, value).map(drop))
    };
    assert!(matches!(note(None, "owner", "fx desk".into()), Err(CommitError::UnknownVersion { .. })));
    put(&db, smile("fx"), vec![1]).unwrap();
    note(None, "owner", "fx desk".into()).unwrap();
    note(Some(AliasTarget::Newest), "auc", 0.75.into()).unwrap();
    let before = db.snapshot();
    note(Some(1.into()), "auc", 0.8.into()).unwrap();
    assert!(matches!(note(Some(2.into()), "auc", 0.9.into()), Err(CommitError::UnknownVersion { .. })));
    assert!(matches!(note(None, "x", f64::NAN.into()), Err(CommitError::Metadata(_))));
    db.checkpoint().unwrap();
    commit(&db, |batch| batch.remove_annotation(&id, None, "owner").map(drop)).unwrap();
    for db in [&db, &reopened(&disk)] {
        let notes = db.snapshot().annotations(&smile("fx")).unwrap();
        assert_eq!((notes.len(), notes[0].version, notes[0].value.clone()), (1, Some(1), Some(0.8.into())));
        let history = db.snapshot().annotation_history(&id, Some(1), "auc").unwrap();
        let values: Vec<_> = history.into_iter().map(|note| note.value.unwrap()).collect();
        assert_eq!(values, [0.75.into(), 0.8.into()]);
        let owner = db.snapshot().annotation_history(&id, None, "owner").unwrap();
        assert_eq!(owner.iter().map(|note| note.value.is_some()).collect::<Vec<_>>(), [true, false]);
        assert_eq!(smile("fx").model_id().unwrap(), id);
    }
    assert_eq!(before.annotations(&id).unwrap().len(), 2);
}

#[test]
fn what_a_version_was_made_from_is_told() {
    let (disk, db, _) = clocked();
    put(&db, smile("base"), vec![1]).unwrap();
    let base = db.snapshot().model(&smile("base")).unwrap().unwrap();
    let snapshot = db.snapshot();
    let training = Training::new()
        .series("trade", Timestamp(0), Timestamp(9), &snapshot)
        .slot("Desk.Book", "2014-06-02", "fx", 7)
        .model(base.info());
    commit(&db, |batch| {
        batch.put_model(smile("fx"), vec![1]);
        batch.trained_on(&smile("fx"), AliasTarget::Newest, &training).map(drop)
    })
    .unwrap();
    for db in [&db, &reopened(&disk)] {
        let told = db.snapshot().training(&smile("fx"), 1).unwrap().unwrap();
        assert_eq!(told, training);
        let (series, seq) = ("trade".to_string(), snapshot.seq());
        assert_eq!(told.parts()[0], TrainedOn::Series { series, from: Timestamp(0), to: Timestamp(9), seq });
        assert!(matches!(&told.parts()[1], TrainedOn::Slot { generation: 7, .. }));
        assert!(matches!(&told.parts()[2], TrainedOn::Model { version: 1, .. }));
        assert!(db.snapshot().training(&smile("base"), 1).unwrap().is_none());
    }
}
