//! What is kept of the newest rows is what a read of everything finds, at whatever commit it is asked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use underbelly_query::{LastPoints, Source, Tombstone, last_point, last_points};
use underbelly_storage::Value;

use crate::deletes::{Delete, Without, any_delete};
use crate::model::{self, NAMES};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn known_last_points_are_those_that_are_found(
        runs in model::any_runs(),
        deletes in prop::collection::vec(any_delete(), 0..4),
        asked in prop::collection::vec((0u64..9, any::<bool>(), prop::collection::vec(any::<bool>(), 0..6)), 1..8),
    ) {
        let tombstones: Vec<Arc<Tombstone>> = deletes.iter().map(Delete::tombstone).collect();
        let mut source = Without { of: model::source(&runs, u64::MAX), tombstones };
        let schema = source.schema().clone();
        let keys_of = |row: &[Value]| {
            let columns = schema.columns.iter().zip(row).filter(|(column, _)| column.key);
            columns.map(|(column, value)| (column.name.to_string(), value.clone())).collect::<Vec<_>>()
        };
        // Those of all rows, and one that no row has.
        let everything = last_points(&source).unwrap();
        let mut keys: Vec<_> = (0..everything.rows()).map(|row| keys_of(&everything.row(row)[1..])).collect();
        keys.push(keys_of(&vec![Value::Null; NAMES.len()]));
        let mut known = LastPoints::new();
        let mut seqs = BTreeSet::new();
        for (seq, all, some) in asked {
            source.of.seq = seq;
            seqs.insert(seq);
            for (key, _) in keys.iter().zip(some).filter(|(_, is_asked)| *is_asked) {
                let named: Vec<(&str, Value)> = key.iter().map(|(name, value)| (&**name, value.clone())).collect();
                let found = known.last_point(&source, 0, &named).unwrap();
                prop_assert_eq!(found.map(|rows| model::listed(&rows)), last_point(&source, &named).unwrap().map(|rows| model::listed(&rows)), "{:?} at {} of {:?}", key, seq, seqs);
            }
            if all {
                let found = model::listed(&known.last_points(&source, 0).unwrap());
                prop_assert_eq!(found, model::listed(&last_points(&source).unwrap()), "at {} of {:?}", seq, seqs);
            }
        }
    }
}
