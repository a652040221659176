//! What is removed when a manifest is in force.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use underbelly_storage::disk::Disk;
use underbelly_storage::error::StorageError;
use underbelly_storage::manifest::{manifest_numbers, remove_manifests_except};

use super::{Manifest, slices::Slices};
use crate::core::Core;
use crate::error::CommitError;
use crate::files;
use crate::manifest::Stored;
use crate::objects::LOST;
use crate::record::v1;

/// Numbers of the manifests that must stay, with their files: the truth, and the one before, to which opening falls
/// back.
pub(crate) fn kept_manifests(truth: u64, previous: Option<u64>) -> BTreeSet<u64> {
    [truth].into_iter().chain(previous).collect()
}

impl Core {
    /// Removes older manifests, recycles the log before the previous manifest, and unlinks files that no kept manifest
    /// names.
    pub(super) fn clean_up(
        &self,
        truth: Manifest,
        previous: Manifest,
        slices: &mut Slices<'_>,
    ) -> Result<(), CommitError> {
        let kept = kept_manifests(truth.number, Some(previous.number));
        remove_manifests_except(&*self.disk, &kept)?;
        let done = slices.with_log(|log| log.recycling(previous.seq))?.run();
        slices.with_log(|log| log.recycled(done))?;
        self.unlink_unnamed(slices)
    }

    /// Unlinks sealed files that nothing names and nobody is about to name. Mapped pages of an unlinked file live
    /// until the last reader lets go.
    ///
    /// A file is first pending, then named by the state, and never pending again; so the files are listed first,
    /// then what is pending is read, then the state.
    fn unlink_unnamed(&self, slices: &mut Slices<'_>) -> Result<(), CommitError> {
        if self.pending.is_held() {
            return Ok(());
        }
        let mut stale = all_files(&*self.disk)?;
        let pending = self.pending.files();
        stale.retain(|name| files::number(name).is_some_and(|number| !pending.contains(&number)));
        let kept = kept_files(&*self.disk)?;
        stale.retain(|name| !kept.contains(name));
        if stale.is_empty() {
            return Ok(());
        }
        let mut named: HashSet<String> = HashSet::new();
        let mut last: Option<Arc<str>> = None;
        slices.all(|state| {
            let after = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let Some((name, table)) = state.tables.range::<str, _>((after, Bound::Unbounded)).next() else {
                return false;
            };
            named.extend(table.sealed().iter().map(|run| files::segment(name, run.reference().file)));
            last = Some(name.clone());
            true
        })?;
        named.extend(self.objects.chunks().iter().map(|(chunk, _)| files::chunk(chunk.file)));
        stale.retain(|name| !named.contains(name));
        Ok(remove_files(&*self.disk, &stale)?)
    }
}

/// Files that opening may need, and those that readers pin.
#[derive(Default)]
pub(crate) struct Kept {
    /// Files that some manifest on the disk names.
    names: BTreeSet<String>,
    /// Numbers of files that the log names before the newest manifest: opening may fall back to the one before it.
    numbers: BTreeSet<u64>,
}

impl Kept {
    /// Keeps a file of which the number is known.
    pub(crate) fn insert_number(&mut self, number: u64) {
        self.numbers.insert(number);
    }

    /// Keeps a file more.
    pub(crate) fn insert(&mut self, name: String) {
        self.names.insert(name);
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names.contains(name) || files::number(name).is_some_and(|number| self.numbers.contains(&number))
    }
}

/// What the manifests on the disk keep.
pub(crate) fn kept_files(disk: &dyn Disk) -> Result<Kept, StorageError> {
    let mut kept = Kept::default();
    let mut newest = true;
    for number in manifest_numbers(disk)?.into_iter().rev() {
        if let Some(manifest) = read(disk, number)? {
            kept.names.append(&mut named_files(&manifest));
            if std::mem::take(&mut newest) {
                kept.numbers.extend(manifest.logged);
            }
        }
    }
    Ok(kept)
}

/// The manifest of this number; `None` where it is damaged, since then nobody can open it.
fn read(disk: &dyn Disk, number: u64) -> Result<Option<v1::Manifest>, StorageError> {
    match Stored::read(disk, number) {
        Ok(found) => Ok(Some(found.manifest)),
        Err(error) if error.may_be_sound() => Err(error),
        Err(_) => Ok(None),
    }
}

/// Files that a manifest names.
pub(crate) fn named_files(manifest: &v1::Manifest) -> BTreeSet<String> {
    let segments = manifest
        .series
        .iter()
        .flat_map(|series| series.segments.iter().map(|segment| files::segment(&series.name, segment.file)));
    let packs = manifest.packs.iter().map(|file| files::pack(*file));
    let chunks = manifest.chunks.iter().filter(|chunk| chunk.file != LOST);
    let chunks = chunks.map(|chunk| files::chunk(chunk.file));
    let images = manifest.images.iter().map(|image| files::image(image.file));
    segments.chain(packs).chain(chunks).chain(images).collect()
}

/// All sealed files that are there. What is not named by a number is not the engine's.
pub(crate) fn all_files(disk: &dyn Disk) -> Result<Vec<String>, StorageError> {
    let list = |dir: &str| match disk.list(dir) {
        // A file where the engine has folders is somebody else's.
        Err(source) if source.kind() == std::io::ErrorKind::NotADirectory => Ok(Vec::new()),
        listed => listed.map_err(|source| StorageError::io("list", dir, source)),
    };
    let mut dirs: Vec<String> =
        [files::IMAGES_DIR, files::PACKS_DIR, files::CHUNKS_DIR].map(String::from).into();
    dirs.extend(list(files::SEGMENTS_DIR)?.into_iter().map(|dir| format!("{}/{dir}", files::SEGMENTS_DIR)));
    let mut all = Vec::new();
    for dir in dirs {
        let ours = list(&dir)?.into_iter().filter(|name| files::number(name).is_some());
        all.extend(ours.map(|name| format!("{dir}/{name}")));
    }
    Ok(all)
}

/// Unlinks files.
pub(crate) fn remove_files(disk: &dyn Disk, names: &[String]) -> Result<(), StorageError> {
    for name in names {
        disk.remove(name).map_err(|source| StorageError::io("remove", name, source))?;
    }
    Ok(())
}
