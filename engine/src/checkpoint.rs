//! Checkpoints: everything that the log says so far, in sealed files, so that the log may be reused.
//!
//! Order: begin the capture under the state's lock; wait until the log is durable up to there; write segments, pack and
//! image, each synced and sealed; write the manifest, which makes them the truth; put the files in the place of what
//! was captured; remove what neither this manifest nor the one before needs. A failure before the manifest leaves the
//! log and the older manifests as they were.
//!
//! What is captured is what was applied when the capture began, though it is read in slices while commits go on:
//! whoever changes something that was not read yet keeps it as it was ([`crate::graph`]'s ledger, [`crate::series`]'s
//! tables), and what only grows is cut where it ended then.

mod cleanup;
mod expire;
mod pack;
mod rebase;
pub(crate) mod reserve;
mod seal;
mod slices;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use underbelly_storage::Timestamp;
use underbelly_storage::disk::{Disk, PacedDisk};
use underbelly_storage::error::StorageError;
use underbelly_storage::image::{ImageWriter, Key, Merge};
use underbelly_storage::object::ObjectId;
use underbelly_wal::Place;

use crate::backlog::Load;
use crate::core::{Chore, Core};
use crate::error::CommitError;
use crate::graph::{Captured, Fact};
use crate::image::{Layer, Overlay, taken_in};
use crate::manifest;
use crate::models::{ChangedMarks, Unstored};
use crate::record::v1;
use crate::state::State;
use crate::variables::Changed;
use crate::{feed, files};

pub(crate) use cleanup::{all_files, kept_files, kept_manifests, named_files, remove_files};
use pack::Packing;
pub(crate) use rebase::Rebase;
use seal::Sealing;
use slices::Slices;

/// Bytes of a record of the image, where there is no image to tell.
const RECORD_BYTES: u64 = 160;

/// What a checkpoint did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The last transaction in it.
    pub seq: u64,
    /// Bytes of the files that it wrote.
    pub bytes_written: u64,
    /// Segments that it sealed.
    pub segments: usize,
    /// Rows that were deleted and that it left out of the segments.
    pub rows_deleted: u64,
    /// Segments and chunk files that are damaged or gone, as this checkpoint or an earlier one since the opening found: they stay as
    /// they are, and so do the deletes that may hide rows of such segments. `ubctl repair` makes a copy without what cannot be read.
    pub damaged: Vec<String>,
    /// Objects that it packed.
    pub objects: usize,
    /// Records of the state image that had changed.
    pub records: u64,
    /// Bytes of the state image that it wrote, with those of older images that it took in.
    pub image_bytes: u64,
    /// Older images that it took in.
    pub images_taken_in: usize,
    /// Times that it held commits up.
    pub slices: u64,
    /// How long it held commits up at most, at a time. What other threads and processes took of the processor meanwhile
    /// counts.
    pub longest_slice: Duration,
    /// How much of the processor it took at most while it held commits up, at a time.
    pub busiest_slice: Duration,
    /// Bytes that are held in reserve for a checkpoint on a full disk.
    pub reserve_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// A manifest in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manifest {
    pub number: u64,
    /// The last transaction in it.
    pub seq: u64,
}

/// What checkpoints go on from.
pub(crate) struct Chain {
    /// The last number that a manifest was given. A number is used once, even where the manifest that was to have it
    /// may not have come through.
    pub last_number: u64,
    /// The manifest that is the truth.
    pub truth: Manifest,
    /// The state image of the truth, base first; or the same with a new base.
    pub layers: Vec<Arc<Layer>>,
    /// A new base, what it takes in.
    pub rebase: Rebase,
}

/// What is captured when a capture begins.
struct Begun {
    seq: u64,
    time: i64,
    next_run: u64,
    models: Unstored,
    marks: ChangedMarks,
    variables: Changed,
    loose: Vec<ObjectId>,
    load: Load,
    /// A place in the log before which no later transaction stands.
    place: Place,
}

/// One attempt at a checkpoint.
struct Attempt<'c> {
    core: &'c Core,
    disk: &'c dyn Disk,
    /// Its number, which is that of the manifest.
    number: u64,
    slices: Slices<'c>,
    report: CheckpointReport,
    /// Files that it made.
    made: Mutex<Vec<String>>,
}

/// What was written.
struct Written {
    tables: Vec<Sealing>,
    packing: Packing,
    layer: Layer,
    /// Older layers that stay.
    kept_layers: usize,
    /// Whether there are segments for the next checkpoint to merge.
    leaves_merges: bool,
}

impl Core {
    /// Makes a checkpoint, at the pace that the settings give where it is `paced`.
    pub(crate) fn checkpoint(&self, paced: bool) -> Result<CheckpointReport, CommitError> {
        let mut chain = self.sound_chain()?;
        // Not held: where the checkpoint gives way, this thread may commit and enters the folder itself. The folder stays
        // as long as `chain` is held.
        if self.folder.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            return Err(CommitError::Closed);
        }
        // Who waits for it, as a close does, has a long base written too.
        let is_short = paced || chain.leaves_base(self.closed.load(Ordering::Acquire));
        let image_bytes_max = if is_short { self.options.checkpoint_bytes } else { u64::MAX };
        let paced = if paced { self.paced_disk() } else { None };
        let disk = paced.as_ref().map_or(&*self.disk, |paced| paced as &dyn Disk);
        if let Err(error) = self.expire_rows() {
            // The next checkpoint tries again.
            self.note_trouble(format!("old rows could not be deleted: {error}"));
        }
        if let Err(error) = self.expire_versions() {
            self.note_trouble(format!("old versions of models could not be deleted: {error}"));
        }
        match self.attempt(&mut chain, disk, image_bytes_max) {
            Err(error) if is_disk_full(&error) => {
                // What the reserve frees is for the checkpoint and not for the next log file.
                let _kept = self.log.keep_space();
                // Nothing but what changed, as the disk has no room for more.
                if reserve::give_up(&*self.disk)? || image_bytes_max > 0 {
                    self.attempt(&mut chain, disk, 0)
                } else {
                    Err(error)
                }
            }
            done => done,
        }
    }

    /// What checkpoints go on from, for who makes one.
    fn sound_chain(&self) -> Result<MutexGuard<'_, Chain>, CommitError> {
        // What a checkpoint that panicked had taken over is in no manifest; the log keeps it.
        let what = "an earlier checkpoint panicked half-way; open the database again";
        self.chain.lock().map_err(|_| CommitError::Internal { what: what.to_string() })
    }

    /// The disk at the pace of the background, where the settings give one.
    fn paced_disk(&self) -> Option<PacedDisk> {
        let rate = self.options.background_bytes_per_second?;
        Some(PacedDisk::new(self.disk.clone(), rate))
    }

    /// Makes a checkpoint, unless the last one holds everything but the record of the opening, which each opening makes
    /// anew.
    pub(crate) fn checkpoint_if_changed(&self) -> Result<CheckpointReport, CommitError> {
        let is_changed = self.touched.load(Ordering::Acquire)
            || self.backlog.load().transactions > 1
            || !self.report.rejected_manifests.is_empty();
        let is_open = self.folder.read().unwrap_or_else(PoisonError::into_inner).is_some();
        match self.chain.lock() {
            Ok(chain) if is_open && !is_changed && !chain.rebase.is_unnamed() => {
                let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Ok(CheckpointReport { seq: chain.truth.seq, damaged, ..Default::default() })
            }
            locked => {
                drop(locked);
                self.checkpoint(false)
            }
        }
    }

    /// `image_bytes_max`: an image that would be longer is left to [`Core::rebase_if_due`].
    fn attempt(
        &self,
        chain: &mut Chain,
        disk: &dyn Disk,
        image_bytes_max: u64,
    ) -> Result<CheckpointReport, CommitError> {
        let started = self.options.clock.instant();
        chain.last_number += 1;
        let mut attempt = Attempt {
            core: self,
            disk,
            number: chain.last_number,
            slices: Slices::new(self),
            report: CheckpointReport::default(),
            made: Mutex::default(),
        };
        attempt.tidy()?;
        let mut begun = attempt.begin()?;
        let written = match attempt.write(chain, &mut begun, image_bytes_max) {
            Ok(written) => written,
            Err(error) => {
                attempt.abandon(begun);
                return Err(error);
            }
        };
        // From here on the new manifest is the truth.
        self.backlog.subtract(&begun.load);
        self.backlog.note_merges(written.leaves_merges);
        if written.leaves_merges {
            self.request(Chore::Checkpoint);
        }
        let previous =
            std::mem::replace(&mut chain.truth, Manifest { number: attempt.number, seq: begun.seq });
        attempt.settle(written, chain);
        self.pending.forget_logged(begun.seq);
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&attempt.report.damaged);
        if let Err(error) = self.clean_up(chain.truth, previous, &mut attempt.slices) {
            // The checkpoint is made; the next one removes what this one could not.
            self.note_trouble(format!("files of an older checkpoint could not be removed: {error}"));
        }
        let mut report = attempt.report;
        report.slices = attempt.slices.count;
        report.longest_slice = attempt.slices.longest;
        report.busiest_slice = attempt.slices.busiest;
        match reserve::hold(&*self.disk, report.bytes_written, self.options.checkpoint_bytes) {
            Ok(held) => report.reserve_bytes = held,
            Err(error) => {
                self.note_trouble(format!("no reserve can be held for the next checkpoint: {error}"))
            }
        }
        report.took = self.options.clock.instant().saturating_duration_since(started);
        Ok(report)
    }
}

/// Whether a checkpoint failed because the disk is full.
fn is_disk_full(error: &CommitError) -> bool {
    matches!(error, CommitError::Storage(StorageError::DiskFull { .. }))
}

impl Attempt<'_> {
    /// Drops what no reader sees any more and forgets what nothing names.
    fn tidy(&mut self) -> Result<(), CommitError> {
        let core = self.core;
        core.objects.look_at_replaced();
        let oldest = core.oldest_reader();
        self.slices.all(|state| state.drop_versions(oldest, 16, &core.objects))?;
        if self.slices.once(|state| state.models.wait_for_index(oldest))? {
            core.attributes.update(|shared| shared.is_wanted = true);
        }
        core.objects.forget_unnamed(&core.pending);
        if let Some(missing) = core.objects.missing() {
            let what = format!("object {missing} is named but not stored; the log is kept");
            return Err(CommitError::Internal { what });
        }
        self.report.records = self.slices.once(|state| {
            let others = state.variables.changed_records() + state.models.marks.changed_records();
            state.graph.changed_records() + others as u64
        })?;
        Ok(())
    }

    /// From here on, whatever changes is kept as it was.
    fn begin(&mut self) -> Result<Begun, CommitError> {
        let number = self.number;
        // Before the capture: what is in the log by now is in the state.
        let place = self.core.log.with_log(|log| log.place());
        let (kept, kept_bytes) = (self.core.options.changes_kept, self.core.options.changes_kept_bytes);
        let begun = self.slices.once(|state| {
            state.recent.close(&mut state.tables, 0);
            // Which transactions were then tells what may go.
            let histories = state.tables.values().map(|table| table.rules().history);
            let kept = histories.fold(kept, Duration::max);
            feed::expire(&mut state.tables, state.head, state.time, kept, kept_bytes);
            state.capture = number;
            state.graph.begin_capture();
            Begun {
                seq: state.head,
                time: state.time.0,
                next_run: state.next_run,
                models: state.models.take_unstored(),
                marks: state.models.marks.take_changed(),
                variables: state.variables.take_changed(),
                loose: self.core.objects.take_loose(),
                load: self.core.backlog.load(),
                place,
            }
        })?;
        self.report.seq = begun.seq;
        self.report.records += begun.models.records();
        Ok(begun)
    }

    fn write(
        &mut self,
        chain: &Chain,
        begun: &mut Begun,
        image_bytes_max: u64,
    ) -> Result<Written, CommitError> {
        let core = self.core;
        let mut tables = self.capture_tables(begun.seq)?;
        core.log.wait(begun.seq)?;
        let place = match core.log.with_log(|log| log.place()) {
            // Nothing was committed meanwhile.
            place if place.seq == begun.seq + 1 => place,
            _ => begun.place,
        };
        // Whoever reads at this seq or later sees what is deleted up to there no more.
        let now = core.options.clock.now().max(Timestamp(begun.time));
        self.seal_tables(&mut tables, core.oldest_reader(), now)?;
        self.report.damaged = seal::damaged(&tables);
        let leaves_merges =
            tables.iter().any(Sealing::has_merged) && tables.iter().any(Sealing::leaves_merges);
        let packing = self.pack(&mut begun.loose)?;
        let sizes: Vec<u64> = chain.layers.iter().map(|layer| layer.reference.bytes).collect();
        let records: u64 = chain.layers.iter().map(|layer| layer.reference.records).sum();
        let each = sizes.iter().sum::<u64>().checked_div(records).unwrap_or(RECORD_BYTES);
        let taken = taken_in(&sizes, each * self.report.records, chain.rebase.layers(), image_bytes_max);
        let (kept, below) = chain.layers.split_at(chain.layers.len() - taken);
        let layer = self.write_image(below, kept.is_empty(), begun)?;
        self.report.images_taken_in = taken;
        self.report.image_bytes = layer.reference.bytes;
        self.report.bytes_written += layer.reference.bytes;
        let kept_layers = kept.len();
        let kept = kept.iter().map(|layer| &**layer);
        let images = kept.chain([&layer]).map(|layer| layer.reference.clone()).collect();
        let series = tables.iter().map(Sealing::series).collect::<Result<_, _>>();
        let manifest = v1::Manifest {
            seq: begun.seq,
            time: begun.time,
            next_file: core.next_file.load(Ordering::Relaxed),
            next_run: begun.next_run,
            log_file_bytes: core.options.log_file_bytes,
            previous: chain.truth.number,
            images,
            series: series.map_err(|what| CommitError::Internal { what })?,
            packs: packing.packs.clone(),
            chunks: packing.chunks.clone(),
            logged: core.pending.logged(begun.seq),
            log: Some(v1::LogPlace::of(place)),
            cleared: tables.iter().flat_map(Sealing::cleared).collect(),
            damaged: self.report.damaged.clone(),
        };
        // What is made so far may be needed by a manifest of which nobody knows whether it came through.
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.report.bytes_written += manifest::write(self.disk, self.number, core.database, &manifest)?;
        Ok(Written { tables, packing, layer, kept_layers, leaves_merges })
    }

    /// Writes the image of what changed over the layers that it takes in.
    fn write_image(
        &mut self,
        below: &[Arc<Layer>],
        is_base: bool,
        begun: &Begun,
    ) -> Result<Layer, CommitError> {
        let core = self.core;
        let file = core.new_file();
        core.disk_dir(files::IMAGES_DIR)?;
        let name = files::image(file);
        let merge = Merge::new(below.iter().map(|layer| &layer.image))?;
        let writer = ImageWriter::create(self.disk, &name, core.database)?;
        let mut overlay = Overlay::new(merge, writer, is_base);
        let (mut bytes, mut records): (Vec<u8>, Vec<(Key, usize)>) = Default::default();
        let mut done = false;
        while !done {
            bytes.clear();
            records.clear();
            done = !self.slices.slice(|state| match state.graph.capture_next(&mut bytes) {
                Captured::Record(key) => {
                    records.push((key, bytes.len()));
                    true
                }
                Captured::Searching => true,
                Captured::Done => false,
            })?;
            let mut from = 0;
            for (key, end) in &records {
                match bytes.get(from..*end).unwrap_or_default() {
                    gone if Fact::is_gone(*key, gone) => overlay.push_removed(*key)?,
                    value => overlay.push(*key, value)?,
                }
                from = *end;
            }
        }
        overlay.push_models(&begun.models)?;
        overlay.push_variables(&begun.variables)?;
        overlay.push_marks(&begun.marks)?;
        let reference = overlay.finish(file)?;
        self.note_made(name);
        Ok(Layer::open(self.disk, core.database, &reference)?)
    }

    /// Puts the files in the place of what was captured.
    fn settle(&mut self, written: Written, chain: &mut Chain) {
        let Written { tables, packing, layer, kept_layers, .. } = written;
        chain.layers.truncate(kept_layers);
        for table in tables {
            self.put_in_place(table);
        }
        self.core.objects.settle(&packing.packed, packing.pack.as_ref(), &packing.taken_in);
        for moved in &packing.moved {
            self.core.objects.settle_chunks(&moved.objects, moved.from, &moved.to);
        }
        let mut ended = None;
        self.slices.once_even_if_poisoned(|state: &mut State| {
            ended = Some(state.graph.end_capture());
            state.capture = 0;
        });
        // Where nobody waits.
        drop(ended);
        chain.layers.push(Arc::new(layer));
        chain.rebase.named();
    }

    /// Counts what was captured as not stored, and removes what was made.
    fn abandon(&mut self, begun: Begun) {
        self.slices.once_even_if_poisoned(|state: &mut State| {
            state.graph.abandon_capture();
            state.models.give_back_unstored(begun.models);
            state.models.marks.give_back_changed(begun.marks);
            state.variables.give_back_changed(begun.variables);
            state.capture = 0;
        });
        self.core.objects.give_back_loose(begun.loose);
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        // What cannot be removed now is removed as a file that nothing names.
        made.iter().for_each(|name| drop(self.core.disk.remove(name)));
    }

    fn note_made(&self, name: String) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Weak};

    use underbelly_storage::Timestamp;
    use underbelly_storage::disk::SimulatedDisk;

    use super::*;
    use crate::clock::Clock;
    use crate::database::Database;
    use crate::options::Options;

    /// A clock that looks where a checkpoint gives way whether the folder is held.
    #[derive(Default)]
    struct Looking {
        core: Mutex<Weak<Core>>,
        is_held: Mutex<Vec<bool>>,
    }

    impl Clock for Looking {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }

        fn give_way(&self) {
            if let Some(core) = self.core.lock().unwrap().upgrade() {
                self.is_held.lock().unwrap().push(core.folder.try_write().is_err());
            }
        }
    }

    /// Who commits where a checkpoint gives way enters the folder. Had the checkpoint entered it too, a close that waits for
    /// it in between would keep both waiting.
    #[test]
    fn a_checkpoint_that_gives_way_does_not_hold_the_folder() {
        let clock = Arc::new(Looking::default());
        let options = Options { workers: 0, clock: clock.clone(), ..Options::default() };
        let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
        let core = db.core().clone();
        *clock.core.lock().unwrap() = Arc::downgrade(&core);
        db.checkpoint().unwrap();
        let is_held = std::mem::take(&mut *clock.is_held.lock().unwrap());
        assert!(is_held.len() > 2 && !is_held.contains(&true), "{is_held:?}");
        // The folder is given up behind a checkpoint, never under it, and nothing is written after that.
        let chain = core.chain.lock().unwrap();
        std::thread::scope(|threads| {
            let released = threads.spawn(|| core.release());
            assert!(core.folder.read().unwrap().is_some());
            drop(chain);
            released.join().unwrap().unwrap();
        });
        assert!(core.folder.read().unwrap().is_none());
        assert!(matches!(core.checkpoint(false), Err(CommitError::Closed)));
    }
}
