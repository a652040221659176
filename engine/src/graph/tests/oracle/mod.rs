//! The rules again, small and slow, from their text alone: after each event everything is recomputed from facts by
//! names, with no index, no counter and no queue.
//!
//! `facts` is what events leave behind, `join` which bundles there are and what they read, `hold` who may still make
//! their inputs, `reads` what runs report beside them, `sessions` members, ages and deadlines, `rules` what follows from all that, `compare` whether a graph shows the same.

mod compare;
mod facts;
mod hold;
mod join;
mod reads;
mod rules;
mod sessions;

pub(super) use compare::{bundle_name, cell_name};
pub(super) use facts::{BundleName, CellName, Oracle, Subject};
pub(super) use join::shifted;
pub(super) use reads::BESIDE;
