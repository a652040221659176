//! An index in a folder, kept by sled.
//!
//! Nothing is flushed but by [`SledIndex::close`], and nothing of it is relied on after a crash.

use std::fs;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use sled::IVec;

use super::{Index, IndexError, block};

/// Bytes of pages that sled may keep in memory.
const CACHE_BYTES: u64 = 64 << 20;

/// What is told of a panic: sled prints all that it holds in some.
const PANIC_CHARS: usize = 300;

/// Blocks of one of sled's batches.
const BATCH_BLOCKS: usize = 128;

/// How long sled may take to let go of its files, and how often it is asked.
const RELEASE_MAX: Duration = Duration::from_secs(2);
const RELEASE_STEP: Duration = Duration::from_millis(1);

/// An index in a folder, kept by sled.
#[derive(Debug)]
pub struct SledIndex {
    db: sled::Db,
}

/// Runs `body`; its errors and its panics name `action`.
fn guarded<T>(action: &'static str, body: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(done) => done.map_err(|error| IndexError::Sled { action, what: error.to_string() }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let what = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(IndexError::Panicked { action, what: what.chars().take(PANIC_CHARS).collect() })
        }
    }
}

impl SledIndex {
    /// Opens the index in this folder, or makes one. What stands there must be what sled left there.
    pub(super) fn open(dir: &Path) -> Result<SledIndex, IndexError> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        Ok(SledIndex { db: guarded("open", || config.open())? })
    }

    /// Writes everything to the files and waits until sled lets go of them.
    pub(super) fn close(self, dir: &Path) -> Result<(), IndexError> {
        let SledIndex { db } = self;
        let flushed = guarded("flush", || db.flush());
        let closed = guarded("close", || {
            drop(db);
            Ok(())
        });
        flushed?;
        closed?;
        // sled holds a lock on this file until its last task is done.
        let path = dir.join("db");
        let file = fs::File::open(&path).map_err(IndexError::io("open", &path))?;
        let began = Instant::now();
        while file.try_lock().is_err() {
            if began.elapsed() > RELEASE_MAX {
                return Err(IndexError::Busy { path: path.display().to_string() });
            }
            std::thread::sleep(RELEASE_STEP);
        }
        Ok(())
    }
}

/// Where the block stands that begins with a key: the key, a zero behind each byte `ff`, in the same order.
///
/// sled divides its nodes at cut keys, and looks for what is before one by taking one from its last byte and putting four bytes `ff`
/// behind. Where another key lies between, it looks for it a million times and panics; so no place holds two in a row.
fn place_of(key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(key.len() + 8);
    for byte in key {
        place.push(*byte);
        if *byte == 0xff {
            place.push(0);
        }
    }
    place
}

/// A change of a key: whether it is there from then on.
type Change<'k> = (&'k [u8], bool);

impl SledIndex {
    /// The block in which a key is or would be, and what stands at its place: keys from that on, up to the next block.
    fn block_of(&self, key: &[u8]) -> Result<Option<(IVec, IVec)>, IndexError> {
        guarded("read", || self.db.range(..=place_of(key)).next_back().transpose())
    }

    /// Changes keys of the block that stands at `place`. What leaves it is elsewhere before it is not here, so that who reads
    /// on from here misses nothing.
    fn rewrite(&self, place: &[u8], block: &[u8], changes: &[Change]) -> Result<(), IndexError> {
        let old = block::decode(block)?;
        let mut keys = Vec::with_capacity(old.len() + changes.len());
        let mut old = old.iter().map(Vec::as_slice).peekable();
        // Of changes of one key the last counts.
        for changes in changes.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((key, is_there)) = changes.last() else { continue };
            keys.extend(std::iter::from_fn(|| old.next_if(|old| old < key)));
            let _ = old.next_if_eq(key);
            keys.extend(is_there.then_some(*key));
        }
        keys.extend(old);
        let blocks = block::encode(&keys)?;
        let Some(((_, first), others)) = blocks.split_first() else {
            // All begins with the empty place.
            return guarded("remove from", || match place {
                [] => self.db.insert(place, &[]).map(drop),
                _ => self.db.remove(place).map(drop),
            });
        };
        for some in others.chunks(BATCH_BLOCKS) {
            let mut batch = sled::Batch::default();
            some.iter().for_each(|(first, block)| batch.insert(place_of(first), block.as_slice()));
            guarded("add to", || self.db.apply_batch(batch))?;
        }
        guarded("add to", || self.db.insert(place, first.as_slice()).map(drop))
    }
}

impl Index for SledIndex {
    fn change(&self, puts: &[Vec<u8>], removes: &[Vec<u8>]) -> Result<(), IndexError> {
        let puts = puts.iter().map(|key| (key.as_slice(), true));
        let mut changes: Vec<Change> =
            puts.chain(removes.iter().map(|key| (key.as_slice(), false))).collect();
        changes.sort_by_key(|(key, _)| *key);
        let mut rest = &changes[..];
        while let Some((key, _)) = rest.first() {
            let (place, block) = self.block_of(key)?.unwrap_or_default();
            let next = guarded("read", || self.db.get_gt(&place))?;
            let is_here =
                |(key, _): &Change| next.as_ref().is_none_or(|(next, _)| place_of(key).as_slice() < &**next);
            let (here, later) = rest.split_at(rest.partition_point(is_here));
            self.rewrite(&place, &block, here)?;
            rest = later;
        }
        Ok(())
    }

    fn visit(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let place = self.block_of(from)?.map_or_else(IVec::default, |(place, _)| place);
        let mut blocks = guarded("read", || {
            Ok(match to {
                Some(to) => self.db.range(&*place..&*place_of(to)),
                None => self.db.range(&*place..),
            })
        })?;
        // A block that was divided since its keys were given shows some of them again.
        let mut last: Option<Vec<u8>> = None;
        while let Some((_, block)) = guarded("read", || blocks.next().transpose())? {
            let is_over = !block::each(&block, |key| {
                if key < from || last.as_ref().is_some_and(|last| key <= last) {
                    return true;
                }
                last.get_or_insert_default().clear();
                last.get_or_insert_default().extend(key);
                to.is_none_or(|to| key < to) && visit(key).is_continue()
            })?;
            if is_over {
                break;
            }
        }
        guarded("read", || {
            drop(blocks);
            Ok(())
        })
    }
}
