//! What transactions under way are about to name: files that they wrote, objects that they count on. A checkpoint
//! keeps its hands off both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use underbelly_storage::object::ObjectId;

/// All pins of a database.
#[derive(Clone, Default)]
pub(crate) struct Pending(Arc<Mutex<Names>>);

#[derive(Default)]
struct Names {
    files: BTreeSet<u64>,
    objects: BTreeMap<ObjectId, usize>,
    /// Files that the log behind the manifest in force names, and the seqs of those transactions.
    logged: BTreeMap<u64, u64>,
    /// How many read all files and want none unlinked meanwhile.
    holders: usize,
}

/// While this lives no file is unlinked.
pub(crate) struct Hold(Pending);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.names().holders -= 1;
    }
}

/// The pins of one transaction, from before it writes or asks for something until it is applied or given up.
pub(crate) struct Pins<'a> {
    pending: &'a Pending,
    files: Vec<u64>,
    objects: Vec<ObjectId>,
}

/// The pins of what is written ahead of a transaction, as long as somebody may still commit it.
pub(crate) struct OwnPins {
    pending: Pending,
    files: Vec<u64>,
    objects: Vec<ObjectId>,
}

impl Pending {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether these are the pins of the same opening of a database.
    pub(crate) fn is(&self, other: &Pending) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Pins for a transaction.
    pub(crate) fn pin(&self) -> Pins<'_> {
        Pins { pending: self, files: Vec::new(), objects: Vec::new() }
    }

    /// Pins that belong to nobody's transaction yet.
    pub(crate) fn pin_ahead(&self) -> OwnPins {
        OwnPins { pending: self.clone(), files: Vec::new(), objects: Vec::new() }
    }

    fn pin_file(&self, file: u64) {
        self.names().files.insert(file);
    }

    fn pin_object(&self, id: ObjectId) {
        *self.names().objects.entry(id).or_insert(0) += 1;
    }

    fn unpin(&self, files: &[u64], objects: &[ObjectId]) {
        if files.is_empty() && objects.is_empty() {
            return;
        }
        let mut names = self.names();
        for file in files {
            names.files.remove(file);
        }
        for id in objects {
            if let Some(count) = names.objects.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    names.objects.remove(id);
                }
            }
        }
    }

    /// Keeps all files where they are.
    pub(crate) fn hold(&self) -> Hold {
        self.names().holders += 1;
        Hold(self.clone())
    }

    /// Whether somebody reads all files.
    pub(crate) fn is_held(&self) -> bool {
        self.names().holders > 0
    }

    /// Numbers of pinned files, and of those that the log behind the manifest in force names.
    pub(crate) fn files(&self) -> BTreeSet<u64> {
        let names = self.names();
        names.files.iter().chain(names.logged.keys()).copied().collect()
    }

    /// Notes the files that transaction `seq` names in the log.
    pub(crate) fn log(&self, seq: u64, files: &[u64]) {
        if !files.is_empty() {
            self.names().logged.extend(files.iter().map(|file| (*file, seq)));
        }
    }

    /// Files that the log names up to `seq`.
    pub(crate) fn logged(&self, seq: u64) -> Vec<u64> {
        self.names().logged.iter().filter(|(_, at)| **at <= seq).map(|(file, _)| *file).collect()
    }

    /// Forgets files that the log names up to `seq`: a manifest lists them.
    pub(crate) fn forget_logged(&self, seq: u64) {
        self.names().logged.retain(|_, at| *at > seq);
    }

    /// Whether a transaction counts on an object.
    pub(crate) fn is_pinned(&self, id: &ObjectId) -> bool {
        self.names().objects.contains_key(id)
    }
}

impl OwnPins {
    /// All pins of the database.
    pub(crate) fn pending(&self) -> &Pending {
        &self.pending
    }
}

impl Pins<'_> {
    /// Pins a file before it is made.
    pub(crate) fn file(&mut self, file: u64) {
        self.pending.pin_file(file);
        self.files.push(file);
    }

    /// Pins an object before it is looked for.
    pub(crate) fn object(&mut self, id: ObjectId) {
        self.pending.pin_object(id);
        self.objects.push(id);
    }
}

impl OwnPins {
    /// Pins a file before it is made.
    pub(crate) fn file(&mut self, file: u64) {
        self.pending.pin_file(file);
        self.files.push(file);
    }

    /// Pins an object before it is looked for.
    pub(crate) fn object(&mut self, id: ObjectId) {
        self.pending.pin_object(id);
        self.objects.push(id);
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        self.pending.unpin(&self.files, &self.objects);
    }
}

impl Drop for OwnPins {
    fn drop(&mut self) {
        self.pending.unpin(&self.files, &self.objects);
    }
}
