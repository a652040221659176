//! A new base of the state image, written beside the checkpoints.
//!
//! A base is as long as all that is stored. A checkpoint that wrote a long one would let as much log grow meanwhile as
//! commits make of it, and an opening would replay that. So a checkpoint in the background writes what changed, and where
//! deltas have outgrown a long base, or are too many, the images there are become a new one in steps, between which checkpoints
//! are made that are due. Nothing names it before the next manifest does.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use underbelly_storage::disk::Disk;
use underbelly_storage::image::{ImageWriter, Merge};

use super::Chain;
use crate::core::Core;
use crate::error::CommitError;
use crate::files;
use crate::image::{Layer, Overlay, is_outgrown};
use crate::pending::OwnPins;

/// Steps that a base of [`checkpoint_bytes`](crate::Options::checkpoint_bytes) takes; a longer one takes more.
const STEPS: u64 = 64;

/// How many times as much as the image of a checkpoint is written before another comes between, so that deltas stay shorter
/// than the base also where a checkpoint is always due.
const BYTES_ALONE: u64 = 4;

/// Deltas from which on a base is made though they have not outgrown it: each opening lays them over each other.
const LAYERS_MAX: usize = 32;

/// Time after a failure before another try; it doubles with each.
const RETRY: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// A new base that is being made, or was.
#[derive(Default)]
pub(crate) struct Rebase {
    /// Layers that it takes in, from the base on; 0 where none is being made.
    layers: usize,
    /// Keeps the file of one that no manifest names yet.
    unnamed: Option<OwnPins>,
    /// When it is tried again after failures, and how long it waited.
    retry_at: Option<(Instant, Duration)>,
    /// The close came in between. It does not begin anew what took so long.
    is_cut_short: bool,
}

impl Rebase {
    /// Layers that a base is being made of.
    pub(super) fn layers(&self) -> usize {
        self.layers
    }

    /// Whether there is a new base that no manifest names.
    pub(super) fn is_unnamed(&self) -> bool {
        self.unnamed.is_some()
    }

    fn put_off(&mut self, now: Instant) {
        let wait = self.retry_at.map_or(RETRY, |(_, wait)| (2 * wait).min(RETRY_MAX));
        self.retry_at = Some((now + wait, wait));
    }

    /// A manifest names all layers.
    pub(super) fn named(&mut self) {
        self.unnamed = None;
    }
}

/// Frees the layers where the making of a base panics.
struct Reserved<'c>(&'c Core);

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.chain.lock().unwrap_or_else(PoisonError::into_inner).rebase.layers = 0;
        }
    }
}

/// Why no base was made.
enum Unmade {
    /// The making failed itself.
    Failed(CommitError),
    /// A checkpoint that was due failed, or the database is being closed.
    Stopped(CommitError),
}

impl From<CommitError> for Unmade {
    fn from(error: CommitError) -> Unmade {
        match error {
            CommitError::Closed => Unmade::Stopped(error),
            error => Unmade::Failed(error),
        }
    }
}

impl Core {
    /// Makes a new base of the state image where the deltas have outgrown one that is too long for a checkpoint, or are many,
    /// and a checkpoint that names it.
    ///
    /// What fails in the making is told in the status and tried again later: nothing but the time of an opening and
    /// the space of the deltas hangs on it. An error of a checkpoint, which is tried once more when the file is gone, is answered.
    pub(crate) fn rebase_if_due(&self) -> Result<(), CommitError> {
        let now = self.options.clock.instant();
        // The disk may be full, and what is left on it is for the checkpoint.
        if self.is_checkpoint_put_off() {
            return Ok(());
        }
        let layers = {
            let mut chain = self.sound_chain()?;
            if chain.rebase.retry_at.is_some_and(|(at, _)| now < at) {
                return Ok(());
            }
            let Some(layers) = chain.layers_to_rebase() else { return Ok(()) };
            chain.rebase.layers = layers.len();
            layers
        };
        let reserved = Reserved(self);
        let made = self.rebase(&layers);
        drop(reserved);
        {
            let mut chain = self.sound_chain()?;
            let is_wanted = std::mem::take(&mut chain.rebase.layers) > 0;
            match made {
                Ok((base, _pins)) if !is_wanted => {
                    let name = files::image(base.reference.file);
                    drop(base);
                    // Where the close has given the folder up, the next opening removes it.
                    let folder = self.folder.read().unwrap_or_else(PoisonError::into_inner);
                    if folder.is_some() {
                        let _ = self.disk.remove(&name);
                    }
                    return Err(CommitError::Closed);
                }
                Ok((base, pins)) => {
                    chain.layers.splice(..layers.len(), [Arc::new(base)]);
                    chain.rebase = Rebase { unnamed: Some(pins), ..Rebase::default() };
                }
                Err(Unmade::Failed(error)) => {
                    chain.rebase.put_off(self.options.clock.instant());
                    self.note_trouble(format!("no new base of the state image could be written: {error}"));
                    return Ok(());
                }
                Err(Unmade::Stopped(CommitError::Closed)) => {
                    chain.rebase.is_cut_short = true;
                    return Err(CommitError::Closed);
                }
                Err(Unmade::Stopped(error)) => {
                    chain.rebase.put_off(self.options.clock.instant());
                    drop(chain);
                    // There is the space of the base by now, which it may have lacked.
                    return self.checkpoint(true).map_or(Err(error), |_| Ok(()));
                }
            }
        }
        drop(layers);
        self.checkpoint(true).map(drop)
    }

    fn rebase(&self, layers: &[Arc<Layer>]) -> Result<(Layer, OwnPins), Unmade> {
        let paced = self.paced_disk();
        let disk = paced.as_ref().map_or(&*self.disk, |paced| paced as &dyn Disk);
        let file = self.new_file();
        let mut pins = self.pending.pin_ahead();
        pins.file(file);
        let merge = Merge::new(layers.iter().map(|layer| &layer.image)).map_err(CommitError::from)?;
        let mut overlay = {
            let _folder = self.enter()?;
            let writer = ImageWriter::create(disk, &files::image(file), self.database);
            Overlay::new(merge, writer.map_err(CommitError::from)?, true)
        };
        let step_bytes = self.options.checkpoint_bytes / STEPS;
        let mut alone = 0u64;
        loop {
            self.options.clock.give_way();
            let checkpoint = match self.signals.is_hung_up() {
                true => Err(CommitError::Closed),
                false if alone > 0 => Ok(None),
                false => self.checkpoint_if_due(),
            };
            alone = match &checkpoint {
                Ok(Some(report)) => BYTES_ALONE * report.image_bytes.max(step_bytes),
                _ => alone.saturating_sub(step_bytes.max(1)),
            };
            // Until the close has given it up, what is there is removed.
            let folder = self.folder.read().unwrap_or_else(PoisonError::into_inner);
            if folder.is_none() {
                overlay.leave();
                return Err(Unmade::Stopped(CommitError::Closed));
            }
            // Dropped before the folder is left.
            let mut writing = overlay;
            checkpoint.map_err(Unmade::Stopped)?;
            if writing.advance_by(step_bytes).map_err(CommitError::from)? {
                let reference = writing.finish(file).map_err(CommitError::from)?;
                let base = Layer::open(disk, self.database, &reference).map_err(CommitError::from)?;
                return Ok((base, pins));
            }
            overlay = writing;
        }
    }
}

impl Chain {
    /// Whether a close that came in between leaves the base to the next life: not where deltas have come to as much, since the
    /// next life may end like this one. What is being made of it then comes to nothing.
    pub(super) fn leaves_base(&mut self, is_closing: bool) -> bool {
        let Some((base, deltas)) = self.layers.split_first() else { return false };
        let bytes: u64 = deltas.iter().map(|delta| delta.reference.bytes).sum();
        let is_short = bytes < base.reference.bytes;
        if is_closing && !is_short {
            self.rebase.layers = 0;
        }
        is_short && (self.rebase.is_cut_short || is_closing && self.rebase.layers > 0)
    }

    /// The layers that a new base is to be made of, if one is due.
    fn layers_to_rebase(&self) -> Option<Vec<Arc<Layer>>> {
        let (base, deltas) = self.layers.split_first()?;
        let bytes = deltas.iter().map(|delta| delta.reference.bytes).sum();
        let is_due = is_outgrown(base.reference.bytes, bytes) || deltas.len() > LAYERS_MAX;
        let is_free = self.rebase.layers == 0 && !self.rebase.is_unnamed();
        (is_due && is_free && !deltas.is_empty()).then(|| self.layers.clone())
    }
}
