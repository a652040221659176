//! The thread that opens, compares, builds and moves on the index of attributes, and puts it away.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use underbelly_storage::index::{Found, Index, IndexError, IndexFolder, MemoryIndex, SealInfo};

use super::attributes::{Attributes, Backend, Live, Phase};
use super::catalogue::behind;
use super::entry::keys_of;
use super::{Metadata, ModelId};
use crate::files;
use crate::view::Base;

/// Models looked at under the state's lock at a time.
pub(crate) const SLICE_MODELS: usize = 256;

/// Transactions by which the index moves on at a time.
const STEP_VERSIONS: usize = 1_024;

/// Keys that a new index is given at a time.
const BUILD_KEYS: usize = 1 << 20;

/// Of one model in so many the keys tell where a new index is divided.
const SAMPLE: usize = 64;

/// Failures of sled in one process after which the index is kept in memory.
const SLED_FAILURES_MAX: usize = 2;

/// Number and order-independent sum of keys: equal for equal sets, and for others hardly ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Digest {
    keys: u64,
    sum: u128,
}

impl Digest {
    fn add(&mut self, key: &[u8]) {
        let mut half = [0; 16];
        half.copy_from_slice(&blake3::hash(key).as_bytes()[..16]);
        self.keys += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(half));
    }
}

/// Stretches of keys, the last without an end, each with about so many keys of a sample.
fn parts(mut sample: Vec<Vec<u8>>, keys: usize) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
    sample.sort_unstable();
    let mut edges = sample.into_iter().step_by(keys.max(1)).skip(1);
    let mut from = Some(Vec::new());
    std::iter::from_fn(move || {
        let begin = from.take()?;
        from = edges.next();
        Some((begin, from.clone()))
    })
}

/// The body of the thread.
pub(crate) fn keep(base: &Weak<Base>, attributes: &Attributes) {
    let keeper = Keeper { base, attributes };
    if catch_unwind(AssertUnwindSafe(|| keeper.run())).is_err() {
        attributes.shared().set_aside.push("the index's thread panicked; queries scan".to_string());
    }
    attributes.update(|shared| {
        shared.live = None;
        shared.phase = Phase::Closed;
    });
    if let Some(base) = base.upgrade() {
        base.state().models.note_indexed(u64::MAX);
    }
}

struct Keeper<'a> {
    base: &'a Weak<Base>,
    attributes: &'a Attributes,
}

impl Keeper<'_> {
    fn is_ending(&self) -> bool {
        self.base.strong_count() == 0 || self.attributes.shared().is_ending
    }

    /// The folder may be another's by now.
    fn is_given_up(&self) -> bool {
        self.attributes.shared().is_given_up
    }

    fn base(&self) -> Result<Arc<Base>, IndexError> {
        self.base.upgrade().ok_or(IndexError::Stopped)
    }

    fn visible(&self) -> Result<u64, IndexError> {
        Ok((self.base()?.visible)())
    }

    /// From now on the catalogue keeps what it held after this transaction, or after what is visible, until the index
    /// has moved on. What it does not hold any more is not there as of then.
    fn note_indexed(&self, seq: Option<u64>) -> Result<u64, IndexError> {
        let base = self.base()?;
        let mut state = base.state();
        let seq = seq.unwrap_or_else(|| (base.visible)());
        state.models.note_indexed(seq);
        Ok(seq)
    }

    fn run(&self) {
        let mut folder = match self.base() {
            Ok(base) => IndexFolder::new(&base.disk, base.database, files::INDEX_DIR),
            Err(_) => return,
        };
        let mut stored = folder.as_ref().map(|folder| self.take(folder));
        let mut failures = 0;
        while !self.is_ending() {
            let made = match stored.take() {
                Some(Ok(Some(live))) => Ok(live),
                Some(Err(error)) => Err(error),
                Some(Ok(None)) | None => self.build(folder.as_ref()),
            };
            let error = match made.and_then(|live| self.attend(Arc::new(live), folder.as_ref())) {
                Ok(()) | Err(IndexError::Stopped) => break,
                Err(error) => error,
            };
            let is_crash = matches!(error, IndexError::NotSealed);
            self.attributes.shared().set_aside.push(error.to_string());
            failures += usize::from(!is_crash);
            if self.is_given_up() {
                break;
            }
            let moved = folder.as_ref().filter(|_| !is_crash).map(IndexFolder::set_aside);
            if let Some(Err(error)) = &moved {
                self.attributes.shared().set_aside.push(error.to_string());
            }
            if matches!(moved, Some(Err(_))) || failures > SLED_FAILURES_MAX {
                folder = None;
            }
            if failures > 2 * SLED_FAILURES_MAX {
                break;
            }
        }
    }

    /// The index that was put away, if it is the catalogue's as of its stamp.
    fn take(&self, folder: &IndexFolder) -> Result<Option<Live>, IndexError> {
        let visible = self.visible()?;
        let mut expected = Digest::default();
        if let Some(sealed) = folder.sealed()? {
            if sealed.seq > visible {
                return Err(IndexError::Future { stamp: sealed.seq, last: visible });
            }
            self.note_indexed(Some(sealed.seq))?;
            self.for_each_newest(sealed.seq, |id, metadata| {
                keys_of(id, metadata).iter().for_each(|key| expected.add(key));
                Ok(())
            })?;
        }
        let (index, sealed) = match folder.take(&|| self.is_ending())? {
            Found::Nothing => return Ok(None),
            Found::Index(index, sealed) => (index, sealed),
        };
        let mut found = Digest::default();
        index.visit(&[], None, &mut |key| {
            found.add(key);
            if self.is_ending() || found.keys > expected.keys {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if self.is_ending() {
            // What was taken and not used is as it was left.
            folder.put_away(index, sealed, &|| self.is_given_up())?;
            return Err(IndexError::Stopped);
        }
        if found != expected {
            return Err(IndexError::Contents);
        }
        Ok(Some(Live::new(Backend::Sled(index), sealed.seq, found.keys)))
    }

    /// A new index of what is visible now.
    fn build(&self, folder: Option<&IndexFolder>) -> Result<Live, IndexError> {
        let backend = match folder {
            Some(folder) => Backend::Sled(folder.create()?),
            None => Backend::Memory(MemoryIndex::default()),
        };
        let seq = self.note_indexed(None)?;
        let filled = self.fill(backend.index(), seq, BUILD_KEYS);
        if let (Err(IndexError::Stopped), Some(folder)) = (&filled, folder) {
            drop(backend);
            if !self.is_given_up() {
                folder.clear()?;
            }
            return Err(IndexError::Stopped);
        }
        Ok(Live::new(backend, seq, filled?))
    }

    /// Adds all keys as of `seq` to an empty index in their order, which makes sled's pages dense and touches each of them
    /// once; answers how many. The models are gone through once for each part of the keys, as all at once would not fit
    /// into little memory.
    fn fill(&self, index: &dyn Index, seq: u64, keys_max: usize) -> Result<u64, IndexError> {
        let (mut sample, mut models, mut due) = (Vec::new(), 0, 0);
        self.for_each_newest(seq, |id, metadata| {
            let mut keys = keys_of(id, metadata);
            due += keys.len() as u64;
            if models % SAMPLE == 0 {
                sample.append(&mut keys);
            }
            models += 1;
            Ok(())
        })?;
        let mut count = 0;
        for (from, to) in parts(sample, keys_max / SAMPLE) {
            let mut keys = Vec::new();
            self.for_each_newest(seq, |id, metadata| {
                let of_model = keys_of(id, metadata).into_iter();
                keys.extend(of_model.filter(|key| *key >= from && to.as_ref().is_none_or(|to| key < to)));
                Ok(())
            })?;
            keys.sort_unstable();
            count += keys.len() as u64;
            index.change(&keys, &[])?;
        }
        if count == due { Ok(count) } else { Err(IndexError::Contents) }
    }

    /// Gives `each` the newest version as of `seq` of each model.
    fn for_each_newest(
        &self,
        seq: u64,
        mut each: impl FnMut(&ModelId, &Metadata) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let mut last = None;
        loop {
            if self.is_ending() {
                return Err(IndexError::Stopped);
            }
            let slice = self.base()?.state().models.slice_behind(last.as_ref(), seq, SLICE_MODELS);
            let Some((id, _)) = slice.last() else { return Ok(()) };
            last = Some(*id);
            for (id, version) in &slice {
                if let Some(version) = version {
                    each(id, &version.metadata)?;
                }
            }
        }
    }

    /// Lets queries use an index and moves it on, until it is to be put away or fails.
    fn attend(&self, live: Arc<Live>, folder: Option<&IndexFolder>) -> Result<(), IndexError> {
        let done = self.move_on(&live).and_then(|()| {
            self.attributes.update(|shared| {
                (shared.phase, shared.live) = (Phase::Ready, Some(live.clone()));
                shared.failure = None;
            });
            loop {
                let failure = self.attributes.wait(None, |shared| {
                    let is_due = shared.is_ending || shared.is_wanted || shared.failure.is_some();
                    shared.is_wanted = false;
                    is_due.then(|| shared.failure.take())
                });
                if let Some(failure) = failure.flatten() {
                    return Err(failure);
                }
                if self.is_ending() {
                    return Ok(());
                }
                self.move_on(&live)?;
                self.attributes.update(|_| ());
            }
        });
        self.attributes.update(|shared| (shared.phase, shared.live) = (Phase::Building, None));
        let backend = live.backend.write().unwrap_or_else(PoisonError::into_inner).take();
        match (done, backend, folder) {
            (Ok(()) | Err(IndexError::Stopped), Some(Backend::Sled(index)), Some(folder)) => {
                let seq = live.stamp.load(Ordering::Acquire);
                let keys = live.keys.load(Ordering::Acquire);
                folder.put_away(index, SealInfo { seq, keys }, &|| self.is_given_up())
            }
            (done, _, _) => done,
        }
    }

    /// Moves an index on to what is visible now.
    fn move_on(&self, live: &Live) -> Result<(), IndexError> {
        let backend = live.backend.read().unwrap_or_else(PoisonError::into_inner);
        let Some(backend) = &*backend else { return Err(IndexError::Stopped) };
        let visible = self.visible()?;
        loop {
            let stamp = live.stamp.load(Ordering::Acquire);
            if self.is_ending() || stamp >= visible {
                return Ok(());
            }
            let (next, changed) = {
                let base = self.base()?;
                let state = base.state();
                let next =
                    state.models.seq_after(stamp, STEP_VERSIONS).map_or(visible, |seq| seq.min(visible));
                let changed = state.models.changed_behind(behind(stamp), next, usize::MAX);
                let changed: BTreeSet<ModelId> = changed.into_iter().map(|(_, id)| id).collect();
                let version =
                    |id: &ModelId, seq| state.models.newest(id, seq).map(|version| version.metadata.clone());
                let pairs = changed.into_iter().map(|id| (id, version(&id, stamp), version(&id, next)));
                (next, pairs.collect::<Vec<_>>())
            };
            let (mut puts, mut removes) = (Vec::new(), Vec::new());
            for (id, old, new) in changed {
                let old = old.map(|old| keys_of(&id, &old)).unwrap_or_default();
                let new = new.map(|new| keys_of(&id, &new)).unwrap_or_default();
                let missing = |key: &Vec<u8>, keys: &[Vec<u8>]| keys.binary_search(key).is_err();
                puts.extend(new.iter().filter(|key| missing(key, &old)).cloned());
                removes.extend(old.into_iter().filter(|key| missing(key, &new)));
            }
            backend.index().change(&puts, &[])?;
            live.stamp.store(next, Ordering::Release);
            backend.index().change(&[], &removes)?;
            self.note_indexed(Some(next))?;
            live.keys.fetch_add(puts.len() as u64, Ordering::AcqRel);
            live.keys.fetch_sub(removes.len() as u64, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use underbelly_storage::disk::SimulatedDisk;

    use super::*;
    use crate::batch::Batch;
    use crate::database::Database;
    use crate::options::Options;

    #[test]
    fn parts_hold_each_key_once() {
        for count in [0, 1, 2, 10, 11, 300] {
            for keys in [0, 1, 3, 10, 1_000] {
                let sample: Vec<Vec<u8>> = (0..count).rev().map(|n: u16| n.to_be_bytes().to_vec()).collect();
                let parts: Vec<_> = parts(sample.clone(), keys).collect();
                assert_eq!(parts.len(), usize::from(count).div_ceil(keys.max(1)).max(1), "{count} {keys}");
                for key in sample {
                    let holds = |(from, to): &&(Vec<u8>, Option<Vec<u8>>)| {
                        key >= *from && to.as_ref().is_none_or(|to| key < *to)
                    };
                    assert_eq!(parts.iter().filter(holds).count(), 1, "{count} {keys}");
                }
            }
        }
    }

    /// An index that is built in many parts holds what one holds that is built at once.
    #[test]
    fn an_index_is_the_same_in_any_number_of_parts() {
        let options = Options { index_models_min: usize::MAX, ..Options::default() };
        let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
        let mut batch = Batch::new();
        for n in 0..700i64 {
            let at = underbelly_storage::Timestamp(n);
            batch.put_model(
                Metadata::new("net").with("n", n % 50 - 25).with("timestamp", at).with("i", n),
                vec![1],
            );
        }
        db.commit(batch).unwrap();
        let snapshot = db.snapshot();
        let base = Arc::downgrade(snapshot.base());
        let keeper = Keeper { base: &base, attributes: &Attributes::default() };
        let built = |keys_max: usize| {
            let index = MemoryIndex::default();
            let count = keeper.fill(&index, snapshot.seq(), keys_max).unwrap();
            let mut keys = Vec::new();
            let mut take = |key: &[u8]| {
                keys.push(key.to_vec());
                ControlFlow::Continue(())
            };
            index.visit(&[], None, &mut take).unwrap();
            assert_eq!(keys.len() as u64, count);
            keys
        };
        let at_once = built(usize::MAX);
        assert!(at_once.len() >= 4 * 700);
        assert!(built(1) == at_once && built(300) == at_once);
    }
}
