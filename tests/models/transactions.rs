//! Transactions that read versions, aliases and annotations before they move them.

use std::cell::Cell;
use std::sync::Barrier;

use underbelly::{
    AliasTarget, Batch, CommitError, Database, MetaValue, Model, Retention, TrainedOn, Training, Transaction,
};
use underbelly_tests::in_memory;

use super::smile;

fn commit(db: &Database, fill: impl FnOnce(&mut Batch) -> Result<(), CommitError>) {
    let mut batch = Batch::new();
    fill(&mut batch).unwrap();
    db.commit(batch).unwrap();
}

fn number(model: Option<Model>) -> Option<u64> {
    model.map(|model| model.info().version)
}

fn production(db: &Database) -> Option<u64> {
    number(db.snapshot().model_alias(&smile("fx"), "production").unwrap())
}

/// Versions of which the quality is told, and none is in production.
fn rated(db: &Database, qualities: &[f64]) {
    for (version, quality) in (1..).zip(qualities) {
        commit(db, |batch| {
            batch.put_model(smile("fx"), vec![version as u8]);
            batch.annotate(&smile("fx"), Some(AliasTarget::Newest), "auc", *quality).map(drop)
        });
    }
}

fn quality(tx: &mut Transaction, version: u64) -> Result<f64, CommitError> {
    match tx.annotation(&smile("fx"), Some(version), "auc")? {
        Some(MetaValue::F64(auc)) => Ok(auc),
        _ => Ok(f64::NEG_INFINITY),
    }
}

/// Puts a version into production where it is there and better than the one that is.
fn promote(tx: &mut Transaction, version: u64) -> Result<bool, CommitError> {
    let fx = smile("fx");
    if tx.model_version(&fx, version)?.is_none() {
        return Ok(false);
    }
    let is_better = match number(tx.model_alias(&fx, "production")?) {
        Some(before) => quality(tx, version)? > quality(tx, before)?,
        None => true,
    };
    if is_better {
        tx.set_alias(&fx, "production", version)?;
    }
    Ok(is_better)
}

/// What somebody else does between the reads and the commit counts: the transaction looks again.
#[test]
fn a_better_version_is_not_replaced_by_a_worse_one() {
    let better = |db: &Database| commit(db, |batch| batch.set_alias(&smile("fx"), "production", 3).map(drop));
    let rating = |db: &Database| {
        commit(db, |batch| batch.annotate(&smile("fx"), Some(1.into()), "auc", 0.95).map(drop));
    };
    let gone = |db: &Database| commit(db, |batch| batch.delete_model_version(&smile("fx"), 2).map(drop));
    let anew = |db: &Database| {
        commit(db, |batch| batch.delete_model(&smile("fx")).map(drop));
        rated(db, &[0.1, 0.2, 0.3]);
    };
    let nothing = |_: &Database| {};
    // What others do, whether version 2 is promoted in the end, what is in production then, and how often it was tried.
    type Others<'o> = &'o dyn Fn(&Database);
    let cases: [(Others<'_>, bool, Option<u64>, u32); 5] = [
        (&nothing, true, Some(2), 1),
        (&better, false, Some(3), 2),
        (&rating, false, Some(1), 2),
        (&gone, false, Some(1), 2),
        (&anew, true, Some(2), 2),
    ];
    for (n, (others, promotes, after, tries)) in cases.into_iter().enumerate() {
        let (_, db) = in_memory().unwrap();
        rated(&db, &[0.5, 0.7, 0.9, 0.6]);
        commit(&db, |batch| batch.set_alias(&smile("fx"), "production", 1).map(drop));
        let tried = Cell::new(0);
        let promoted = db.transact::<_, CommitError>(|tx| {
            let is_better = promote(tx, 2)?;
            if tried.replace(tried.get() + 1) == 0 {
                others(&db);
            }
            Ok(is_better)
        });
        assert_eq!((promoted.unwrap(), production(&db), tried.get()), (promotes, after, tries), "case {n}");
    }
}

/// Of all that promote their own at a time the best one is in production.
#[test]
fn no_promotion_is_lost() {
    let (_, db) = in_memory().unwrap();
    rated(&db, &[0.6, 0.9, 0.7, 0.8]);
    for _ in 0..10 {
        commit(&db, |batch| batch.remove_alias(&smile("fx"), "production").map(drop));
        let all_read = Barrier::new(4);
        std::thread::scope(|scope| {
            for version in 1..=4 {
                let (db, all_read) = (&db, &all_read);
                scope.spawn(move || {
                    let is_first = Cell::new(true);
                    db.transact::<_, CommitError>(|tx| {
                        let is_better = promote(tx, version)?;
                        if is_first.replace(false) {
                            all_read.wait();
                        }
                        Ok(is_better)
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(production(&db), Some(2));
    }
}

/// A transaction reads what it wrote and told itself.
#[test]
fn a_transaction_reads_what_it_told_of_models() {
    let (_, db) = in_memory().unwrap();
    let fx = smile("fx");
    rated(&db, &[0.5, 0.6, 0.7]);
    commit(&db, |batch| batch.set_alias(&fx, "production", 2)?.set_alias(&fx, "old", 1).map(drop));
    db.transact::<_, CommitError>(|tx| {
        assert_eq!(number(tx.model_alias(&fx, "production")?), Some(2));
        assert_eq!(number(tx.model_alias(&fx, "none")?), None);
        tx.put_model(smile("fx"), vec![4])?;
        tx.put_model(smile("fx"), vec![5])?;
        let version = tx.model_version(&fx, 4)?.unwrap();
        assert_eq!((version.info().version, &*version.blob()?), (4, &[4][..]));
        assert_eq!((number(tx.model_version(&fx, 1)?), number(tx.model_version(&fx, 6)?)), (Some(1), None));
        tx.set_alias(&fx, "production", AliasTarget::Newest)?;
        assert_eq!(number(tx.model_alias(&fx, "production")?), Some(5));
        tx.set_alias_if(&fx, "canary", None, 4)?;
        assert_eq!(number(tx.model_alias(&fx, "canary")?), Some(4));
        tx.remove_alias_if(&fx, "old", Some(1))?;
        assert_eq!(number(tx.model_alias(&fx, "old")?), None);
        tx.delete_model_version(&fx, 1)?;
        assert_eq!(number(tx.model_version(&fx, 1)?), None);
        tx.pin_version(&fx, 3, true)?;
        tx.annotate(&fx, Some(AliasTarget::Newest), "auc", 0.9)?;
        tx.annotate(&fx, None, "owner", "desk")?;
        tx.remove_annotation(&fx, Some(3.into()), "auc")?;
        let auc = |tx: &mut Transaction, version| tx.annotation(&fx, Some(version), "auc");
        assert_eq!((auc(tx, 5)?, auc(tx, 3)?), (Some(0.9.into()), None));
        assert_eq!((auc(tx, 2)?, auc(tx, 4)?), (Some(0.6.into()), None));
        assert_eq!(tx.annotation(&fx, None, "owner")?, Some("desk".into()));
        // What stands for the model and for its newest version are no versions.
        assert_eq!(
            (auc(tx, 0)?, auc(tx, u64::MAX)?, tx.annotation(&fx, Some(0), "owner")?),
            (None, None, None)
        );
        assert_eq!(auc(tx, 1)?, None, "it is deleted above");
        tx.trained_on(&fx, AliasTarget::Newest, &Training::new().slot("Book", "2014-06-02", "x", 1))?;
        tx.set_retention(&fx, Some(Retention::keep_last(1)))
    })
    .unwrap();
    let snapshot = db.snapshot();
    let versions = snapshot.model_versions(&fx).unwrap();
    // The newest and those that are named or pinned.
    let shown: Vec<_> = versions.iter().map(|version| (version.info.version, version.is_pinned)).collect();
    assert_eq!(shown, [(5, false), (4, false), (3, true)]);
    let aliases: Vec<_> =
        snapshot.aliases(&fx).unwrap().into_iter().map(|alias| (alias.name, alias.version)).collect();
    assert_eq!(aliases, [("canary".into(), Some(4)), ("production".into(), Some(5))]);
    assert!(snapshot.annotation_history(&fx, Some(0), "owner").unwrap().is_empty());
    let notes = snapshot.annotations(&fx).unwrap();
    let notes: Vec<_> = notes.iter().map(|note| (note.version, &*note.name)).collect();
    assert_eq!(notes, [(None, "owner"), (Some(5), "auc")]);
    assert!(matches!(snapshot.training(&fx, 5).unwrap().unwrap().parts(), [TrainedOn::Slot { .. }]));
    // Of a model that it deletes nothing is left, and what it puts begins anew.
    db.transact::<_, CommitError>(|tx| {
        tx.delete_model(&fx)?;
        assert_eq!((number(tx.model(&fx)?), number(tx.model_version(&fx, 5)?)), (None, None));
        assert_eq!(number(tx.model_alias(&fx, "production")?), None);
        assert_eq!(tx.annotation(&fx, None, "owner")?, None);
        tx.put_model(smile("fx"), vec![1])?;
        assert_eq!(number(tx.model_version(&fx, 1)?), Some(1));
        tx.remove_alias(&fx, "production")
    })
    .unwrap();
    assert_eq!((production(&db), number(db.snapshot().model(&fx).unwrap())), (None, Some(1)));
    let wrong = db.transact::<(), CommitError>(|tx| tx.set_alias_if(&fx, "production", Some(4), 1));
    assert!(matches!(wrong, Err(CommitError::AliasMoved { found: None, .. })), "{wrong:?}");
}
