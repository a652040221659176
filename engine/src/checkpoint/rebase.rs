//! A new base of the state image, written beside the checkpoints.
//!
//! A base is as long as all that is stored. A checkpoint that wrote a long one would let as much log grow meanwhile as
//! commits make of it, and an opening would replay that. So a checkpoint in the background writes what changed, and where
//! deltas have outgrown a long base the images there are become a new one in steps, between which checkpoints are made that
//! are due. Nothing names it before the next manifest does.

use std::sync::Arc;

use underbelly_storage::disk::Disk;
use underbelly_storage::image::{ImageWriter, Merge};

use super::Chain;
use crate::core::Core;
use crate::error::CommitError;
use crate::files;
use crate::image::{Layer, Overlay, is_outgrown};
use crate::pending::OwnPins;

/// Records that are written between two looks at whether a checkpoint is due.
const STEP_RECORDS: usize = 256;

/// A new base that is being made, or was.
#[derive(Default)]
pub(crate) struct Rebase {
    /// Layers that it takes in, from the base on; 0 where none is being made.
    layers: usize,
    /// Keeps the file of one that no manifest names yet.
    unnamed: Option<OwnPins>,
    /// Bytes of deltas from which on it is tried again after a failure.
    retry_bytes: u64,
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

    /// A manifest names all layers.
    pub(super) fn named(&mut self) {
        self.unnamed = None;
    }
}

impl Chain {
    /// The layers that a new base is to be made of, if one is due that no checkpoint in the background writes.
    fn layers_to_rebase(&self, base_bytes_max: u64) -> Option<Vec<Arc<Layer>>> {
        let (base, deltas) = self.layers.split_first()?;
        let (base, deltas) = (base.reference.bytes, delta_bytes(deltas));
        let is_due = is_outgrown(base, deltas) && base + deltas > base_bytes_max;
        let is_free = self.rebase.layers == 0 && !self.rebase.is_unnamed();
        (is_due && is_free && deltas >= self.rebase.retry_bytes).then(|| self.layers.clone())
    }
}

fn delta_bytes(deltas: &[Arc<Layer>]) -> u64 {
    deltas.iter().map(|delta| delta.reference.bytes).sum()
}

impl Core {
    /// Makes a new base of the state image where the deltas have outgrown one that is too long for a checkpoint.
    ///
    /// What fails here is told in the status, and tried again once there are twice as many bytes of deltas: nothing but the
    /// time of an opening and the space of the deltas hangs on it.
    pub(crate) fn rebase_if_due(&self) -> Result<(), CommitError> {
        let layers = {
            let mut chain = self.sound_chain()?;
            let Some(layers) = chain.layers_to_rebase(self.options.checkpoint_bytes) else { return Ok(()) };
            chain.rebase.layers = layers.len();
            layers
        };
        let made = self.rebase(&layers);
        let mut chain = self.sound_chain()?;
        chain.rebase.layers = 0;
        match made {
            Ok((base, pins)) => {
                chain.layers.splice(..layers.len(), [Arc::new(base)]);
                chain.rebase = Rebase { unnamed: Some(pins), ..Rebase::default() };
                Ok(())
            }
            Err(CommitError::Closed) => Err(CommitError::Closed),
            Err(error) => {
                chain.rebase.retry_bytes = 2 * delta_bytes(layers.get(1..).unwrap_or_default());
                self.note_trouble(format!("no new base of the state image could be written: {error}"));
                Ok(())
            }
        }
    }

    fn rebase(&self, layers: &[Arc<Layer>]) -> Result<(Layer, OwnPins), CommitError> {
        let paced = self.paced_disk();
        let disk = paced.as_ref().map_or(&*self.disk, |paced| paced as &dyn Disk);
        let file = self.new_file();
        let mut pins = self.pending.pin_ahead();
        pins.file(file);
        let below = Merge::new(layers.iter().map(|layer| &layer.image))?;
        let mut overlay = {
            let _folder = self.enter()?;
            let writer = ImageWriter::create(disk, &files::image(file), self.database)?;
            Overlay::new(below, writer, true)
        };
        loop {
            self.options.clock.give_way();
            let checkpoint = match self.signals.is_hung_up() {
                true => Err(CommitError::Closed),
                false => self.checkpoint_if_due(),
            };
            let Ok(_folder) = self.enter() else {
                // What it removes in the end may be another writer's.
                std::mem::forget(overlay);
                return Err(CommitError::Closed);
            };
            // Dropped before the folder is left.
            let mut writing = overlay;
            checkpoint?;
            if writing.advance_by(STEP_RECORDS)? {
                let reference = writing.finish(file)?;
                return Ok((Layer::open(disk, self.database, &reference)?, pins));
            }
            overlay = writing;
        }
    }
}
