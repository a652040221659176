//! Copies of a database that is in use.
//!
//! Order: the copy is marked as unfinished; a manifest is pinned, so that its files stay; they are linked or copied; the records behind it that are
//! durable are written into a log of their own, with the files that they name; folders are synced; the manifest comes
//! last, and is taken back where the copy turns out not to verify. A backup that is cut short is no database.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use underbelly_storage::disk::{Disk, RealDisk, SharedDisk};
use underbelly_storage::error::StorageError;
use underbelly_storage::manifest::{manifest_numbers, pin_newest_manifest};
use underbelly_storage::sealed::SealedWriter;
use underbelly_wal::{Follower, Log, LogOptions, WalError};

use crate::checkpoint::{all_files, named_files};
use crate::database::Database;
use crate::durable;
use crate::error::{CopyError, OpenError};
use crate::files;
use crate::limits::{COPY_BYTES, READER_TRIES};
use crate::manifest::{self, Stored};
use crate::open::{check_finished, no_manifest};
use crate::reader::is_overtaken;
use crate::record::{self, v1};
use crate::verify::VerifyReport;
use crate::view::View;

/// How a backup is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct BackupOptions {
    /// Copies the bytes of all files, also where hard links would do: a copy that shares no block of the disk with
    /// the original.
    pub copy: bool,
}

/// What a backup holds.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BackupReport {
    /// The last transaction in it.
    pub seq: u64,
    /// The manifest that it was made from.
    pub manifest: u64,
    /// Transactions in its log, behind the manifest.
    pub records: u64,
    /// Sealed files that are hard links to those of the original.
    pub linked: usize,
    /// Sealed files that were copied.
    pub copied: usize,
    /// What was checked of it afterwards.
    pub verified: VerifyReport,
    /// How long it took.
    pub took: Duration,
}

impl View {
    /// Makes a copy of the database in a folder that is empty or not there: everything that is durable now. Commits
    /// and checkpoints go on meanwhile. Every file of the copy is read and checked at the end; `progress` is told how
    /// many of how many bytes of that are done. Opening the copy is all that restoring takes.
    ///
    /// Sealed files are hard links to the original's where the file system allows it, which takes no space and no
    /// time. They never change; but what rots on the disk rots in both. [`BackupOptions::copy`] avoids that.
    ///
    /// # Errors
    /// [`CopyError::NotEmpty`], [`CopyError::Unfinished`] or [`CopyError::Inside`] where the folder cannot be used; [`CopyError::Damaged`] where
    /// the copy does not verify, since the original is damaged; [`CopyError::Full`] where it needs more space than there is;
    /// [`CopyError::Open`] where the original cannot be read
    /// or the copy cannot be written. In each case there is no database in the folder.
    pub fn backup(
        &self,
        dest: impl AsRef<Path>,
        options: BackupOptions,
        progress: impl FnMut(u64, u64),
    ) -> Result<BackupReport, CopyError> {
        Copy::begin(&self.base().disk, dest.as_ref(), options)?.back_up(progress)
    }

    /// As [`View::backup`], onto any disk, which must be empty: one that [`Database::open_on`] opens then. All files are
    /// copied. After a failure there is no database on it.
    ///
    /// # Errors
    /// As [`View::backup`].
    pub fn backup_on(
        &self,
        dest: SharedDisk,
        progress: impl FnMut(u64, u64),
    ) -> Result<BackupReport, CopyError> {
        Copy::begin_on(&self.base().disk, dest, BackupOptions { copy: true })?.back_up(progress)
    }
}

impl Copy {
    fn back_up(self, progress: impl FnMut(u64, u64)) -> Result<BackupReport, CopyError> {
        let (began, disk, copy) = (Instant::now(), &self.source, &self);
        copy.claim()?;
        let mut made = Err(OpenError::Overtaken { dir: disk.describe() });
        let newest = || manifest_numbers(&**disk).map(|numbers| numbers.last().copied());
        for _ in 0..READER_TRIES {
            let before = newest().map_err(|error| copy.give_up(error.into()))?;
            made = copy.make_backup();
            // What is not there although nobody replaced the manifest is lost.
            let goes_on = match &made {
                Err(OpenError::Overtaken { .. }) => true,
                Err(error) if is_overtaken(error) => newest().is_ok_and(|newest| newest != before),
                _ => false,
            };
            if !goes_on {
                break;
            }
            copy.restart().map_err(|error| copy.give_up(error))?;
        }
        let mut report = match made {
            Ok(report) => report,
            Err(error) => return Err(copy.give_up(error)),
        };
        report.verified = copy.verify(progress)?;
        report.took = began.elapsed();
        Ok(report)
    }
}

/// A copy that is being made.
pub(crate) struct Copy {
    source: SharedDisk,
    pub dest: SharedDisk,
    /// Where it is for the operating system, if it is anywhere.
    root: Option<PathBuf>,
    /// Folders that were not there, the inmost first.
    made: Vec<PathBuf>,
    options: BackupOptions,
    /// Whether bytes of sealed files had to be copied.
    has_copied: AtomicBool,
}

/// How a file came to be in a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    Linked,
    Copied,
}

impl Copy {
    pub(crate) fn begin(source: &SharedDisk, dest: &Path, options: BackupOptions) -> Result<Copy, CopyError> {
        let made = dest.ancestors().filter(|dir| !dir.as_os_str().is_empty());
        let made = made.take_while(|dir| fs::symlink_metadata(dir).is_err()).map(Path::to_path_buf).collect();
        let (source, root, has_copied) = (source.clone(), Some(dest.to_path_buf()), AtomicBool::new(false));
        let copy = Copy { source, dest: Arc::new(RealDisk::new(dest)), root, made, options, has_copied };
        copy.prepare().inspect_err(|_| copy.unmake())?;
        let inside = copy.source.path("").and_then(|source| {
            let (source, dest) = (source.canonicalize().ok()?, dest.canonicalize().ok()?);
            dest.starts_with(source).then_some(())
        });
        match inside {
            Some(()) => {
                copy.unmake();
                Err(CopyError::Inside { dir: copy.dest.describe() })
            }
            None => Ok(copy),
        }
    }

    pub(crate) fn begin_on(
        source: &SharedDisk,
        dest: SharedDisk,
        options: BackupOptions,
    ) -> Result<Copy, CopyError> {
        let (source, made, has_copied) = (source.clone(), Vec::new(), AtomicBool::new(false));
        let copy = Copy { source, dest, root: None, made, options, has_copied };
        copy.prepare()?;
        Ok(copy)
    }

    /// Makes the folder, which is to be empty or not there.
    fn prepare(&self) -> Result<(), CopyError> {
        let dir = self.dest.describe();
        let io = |action| {
            let dir = dir.clone();
            move |source| OpenError::Io { action, dir, source }
        };
        match self.dest.list("") {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(CopyError::NotEmpty { dir, found: "it is a file".to_string() });
            }
            entries => {
                if let Some(found) = entries.map_err(io("cannot list"))?.into_iter().next() {
                    if check_finished(&*self.dest).is_err() {
                        return Err(CopyError::Unfinished { dir });
                    }
                    return Err(CopyError::NotEmpty { dir, found });
                }
            }
        }
        let made = self.dest.create_dir("");
        // A link that leads nowhere is there, and is no folder.
        let made = made.and_then(|()| self.root.as_ref().map_or(Ok(()), |root| fs::metadata(root).map(drop)));
        Ok(made.map_err(io("cannot make folder"))?)
    }

    /// Takes the folder for this copy, and says, durably and before anything else is there, that it is not finished: the mark
    /// counts by itself, whatever else a process that is killed leaves. Of two copies that begin at once one makes the mark.
    /// Who makes a database there meanwhile looks for the mark behind its own lock, as this looks for that behind the mark.
    pub(crate) fn claim(&self) -> Result<(), CopyError> {
        let dir = || self.dest.describe();
        match self.dest.create(files::UNFINISHED) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(CopyError::Unfinished { dir: dir() });
            }
            // Nothing there is this copy's, whoever else has put something there by now.
            Err(error) => {
                let error = StorageError::io("make", files::UNFINISHED, error).into();
                self.unmake();
                return Err(self.told(error, || Ok(())));
            }
        }
        let listed = self.dest.list("").map_err(|error| StorageError::io("list", &dir(), error));
        match listed.map(|names| names.into_iter().find(|name| name != files::UNFINISHED)) {
            Ok(None) => {}
            Ok(Some(found)) => {
                self.unmark()?;
                return Err(CopyError::NotEmpty { dir: dir(), found });
            }
            Err(error) => return Err(self.give_up(error.into())),
        }
        let synced = self.dest.sync_dir("");
        let failed = |error| StorageError::io("sync the folder of", files::UNFINISHED, error);
        synced.map_err(|error| self.give_up(failed(error).into()))
    }

    /// Puts the mark there again, as far as the disk takes it.
    fn mark_again(&self) {
        let made = self.dest.create(files::UNFINISHED).map(drop);
        // Where it cannot be made, little is there.
        let _ = made.and_then(|()| self.dest.sync_dir(""));
    }

    /// Takes the mark away, which a full disk may not have taken.
    fn unmark(&self) -> Result<(), OpenError> {
        let failed = |action| move |source| StorageError::io(action, files::UNFINISHED, source);
        match self.dest.remove(files::UNFINISHED) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove")(error).into()),
            _ => Ok(self.dest.sync_dir("").map_err(failed("sync the folder of"))?),
        }
    }

    /// Removes all that a copy puts there: manifests first and the mark last, each durably before what follows. What others
    /// have put there meanwhile stays.
    pub(crate) fn clear(&self) -> Result<(), OpenError> {
        let failed = |action| move |source| StorageError::io(action, &self.dest.describe(), source);
        // It may be gone from a copy that was nearly finished.
        self.mark_again();
        for name in self.dest.list("").map_err(failed("list"))? {
            if name.starts_with("MANIFEST-") {
                self.dest.remove(&name).map_err(failed("empty"))?;
            }
        }
        self.dest.sync_dir("").map_err(failed("sync"))?;
        self.restart()?;
        if let Some(root) = &self.root {
            for entry in self.dest.list("").map_err(failed("list"))?.iter().filter(|entry| is_own(entry)) {
                remove_empty(&root.join(entry))
                    .map_err(|source| StorageError::io("remove", entry, source))?;
            }
        }
        self.sync_all("").map_err(failed("sync"))?;
        // Last: from here on the folder is anybody's.
        self.unmark()?;
        self.unmake();
        Ok(())
    }

    /// Takes away the folders that were made for the copy, as far as they are there and empty.
    fn unmake(&self) {
        // What is not empty keeps those around it from being removed, too.
        self.made.iter().for_each(|dir| drop(fs::remove_dir(dir)));
    }

    /// Syncs the folders that are left.
    fn sync_all(&self, dir: &str) -> io::Result<()> {
        for entry in self.dest.list(dir)? {
            let name = if dir.is_empty() { entry } else { format!("{dir}/{entry}") };
            if is_own(name.split('/').next().unwrap_or_default()) && !name.starts_with("MANIFEST-") {
                self.sync_all(&name)?;
            }
        }
        self.dest.sync_dir(dir)
    }

    /// Takes the copy back because of an error, and answers what to tell of it.
    pub(crate) fn give_up(&self, error: OpenError) -> CopyError {
        self.told(error, || self.clear())
    }

    /// What to tell of an error, once it is cleared up behind it.
    fn told(&self, error: OpenError, clear: impl FnOnce() -> Result<(), OpenError>) -> CopyError {
        let full = match error {
            OpenError::Storage(StorageError::DiskFull { file })
            | OpenError::Log(WalError::DiskFull { file, .. }) => file,
            error => return clear().err().unwrap_or(error).into(),
        };
        let bytes = self.bytes();
        match clear() {
            Ok(()) => CopyError::Full { dir: self.dest.describe(), file: full, bytes },
            Err(error) => error.into(),
        }
    }

    /// About how many bytes the copy takes: those of the log, and of the sealed files where they are copied.
    fn bytes(&self) -> u64 {
        let length = |name: String| self.source.open_read(&name).and_then(|file| file.len()).unwrap_or(0);
        let logs = self.source.list(files::WAL_DIR).unwrap_or_default().into_iter();
        let logs =
            logs.filter(|name| name.ends_with(".wal")).map(|name| format!("{}/{name}", files::WAL_DIR));
        let sealed = match self.has_copied.load(Ordering::Relaxed) {
            true => all_files(&*self.source).unwrap_or_default(),
            false => Vec::new(),
        };
        logs.chain(sealed).map(length).sum()
    }

    /// Removes the files that were put there but the mark, for another attempt.
    pub(crate) fn restart(&self) -> Result<(), OpenError> {
        let names = self.dest.list("").map(|names| names.into_iter().filter(|name| is_own(name)).collect());
        let removed = names.and_then(|names: Vec<String>| match &self.root {
            Some(root) => names.iter().try_for_each(|name| remove_path(&root.join(name))),
            None => remove_listed(&*self.dest, "", names),
        });
        removed.map_err(|source| StorageError::io("empty", &self.dest.describe(), source).into())
    }

    /// Puts a sealed file of the original into the copy. Its folder is not synced.
    pub(crate) fn place(&self, name: &str) -> Result<Placed, StorageError> {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.dest.create_dir(folder).map_err(|error| StorageError::io("make the folder of", name, error))?;
        // A link to a link would be one to what others may take away.
        let is_file = |path: &PathBuf| !fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink());
        let from = self.source.path(name).filter(|from| !self.options.copy && is_file(from));
        if let (Some(from), Some(to)) = (from, self.dest.path(name)) {
            match fs::hard_link(from, to) {
                Ok(()) => return Ok(Placed::Linked),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Placed::Linked),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(StorageError::io("link", name, error));
                }
                // Another file system, or one without hard links.
                Err(_) => {}
            }
        }
        self.has_copied.store(true, Ordering::Relaxed);
        // Read and not mapped: what the disk cannot read is an error then, and a signal that ends the process otherwise.
        let file = self.source.open_read(name).map_err(|error| StorageError::io("open", name, error))?;
        let mut writer = match SealedWriter::create(&*self.dest, name) {
            Err(StorageError::Exists { .. }) => return Ok(Placed::Copied),
            writer => writer?,
        };
        let length = file.len().map_err(|error| StorageError::io("measure", name, error))?;
        // With room for one byte more, so that a whole file is read at once.
        let mut part = vec![0; usize::try_from(length).unwrap_or(COPY_BYTES).min(COPY_BYTES) + 1];
        loop {
            let read = file.read_at(&mut part, writer.length());
            let read = read.map_err(|error| StorageError::io("read", name, error))?;
            writer.append(part.get(..read).unwrap_or_default())?;
            if read < part.len() {
                break;
            }
        }
        writer.publish()?;
        Ok(Placed::Copied)
    }

    /// Syncs all folders of the copy and makes those that an empty database has.
    pub(crate) fn sync_folders(&self) -> Result<(), StorageError> {
        let failed = |name: &str| {
            let name = name.to_string();
            move |error| StorageError::io("sync", &name, error)
        };
        for dir in [files::SEGMENTS_DIR, files::PACKS_DIR, files::CHUNKS_DIR, files::IMAGES_DIR] {
            self.dest.create_dir(dir).map_err(|error| StorageError::io("make folder", dir, error))?;
            self.dest.sync_dir(dir).map_err(failed(dir))?;
        }
        for series in self.dest.list(files::SEGMENTS_DIR).map_err(failed(files::SEGMENTS_DIR))? {
            let dir = format!("{}/{series}", files::SEGMENTS_DIR);
            self.dest.sync_dir(&dir).map_err(failed(&dir))?;
        }
        self.dest.sync_dir("").map_err(failed(""))
    }

    /// The log of the copy, whose first record follows a manifest.
    pub(crate) fn log(&self, database: [u8; 16], manifest: &v1::Manifest) -> Result<CopyLog, OpenError> {
        let options = LogOptions::with_file_len(manifest.log_file_bytes);
        let log = Log::create(self.dest.clone(), database, manifest.seq + 1, options)?;
        Ok(CopyLog { log, waiting: Vec::new(), bytes: 0 })
    }

    /// Writes the manifest, which makes the copy a database.
    pub(crate) fn write_manifest(
        &self,
        number: u64,
        database: [u8; 16],
        manifest: &mut v1::Manifest,
    ) -> Result<(), StorageError> {
        // The copy has no older manifest to fall back to until its first checkpoint, and a log of its own.
        (manifest.previous, manifest.log) = (0, None);
        manifest::write(&*self.dest, number, database, manifest).map(drop)
    }

    fn make_backup(&self) -> Result<BackupReport, OpenError> {
        let disk = &self.source;
        let pinned = pin_newest_manifest(&**disk)?;
        let (found, _pin) = pinned.ok_or_else(|| no_manifest(disk))?;
        let dir = disk.describe();
        let corrupt = |what: String| OpenError::Corrupt { dir: dir.clone(), what };
        let Stored { number, database, mut manifest, .. } = Stored::decode(found)?;
        let mut report = BackupReport { seq: manifest.seq, manifest: number, ..BackupReport::default() };
        let mut count = |placed| match placed {
            Placed::Linked => report.linked += 1,
            Placed::Copied => report.copied += 1,
        };
        // The log first: its end moves on.
        let mut follower = Follower::open(disk.clone(), database, manifest.log_start())?;
        let mut log = self.log(database, &manifest)?;
        durable::read(disk, database, &mut follower, (number, manifest.seq), &mut |seq, payload| {
            let (_, record) = record::decode(payload)
                .map_err(|what| corrupt(format!("the log's transaction {seq} cannot be read: {what}")))?;
            for name in record_files(&record) {
                count(self.place(&name)?);
            }
            Ok(log.add(seq, payload.to_vec())?)
        })?;
        let records = log.end()?;
        for name in named_files(&manifest) {
            count(self.place(&name)?);
        }
        self.sync_folders()?;
        self.write_manifest(number, database, &mut manifest)?;
        report.records = records;
        report.seq += records;
        Ok(report)
    }

    /// Checks the whole copy; takes it back where something is wrong with it, and says where not that it is whole.
    pub(crate) fn verify(&self, progress: impl FnMut(u64, u64)) -> Result<VerifyReport, CopyError> {
        let verified = Database::verify_copy(self.dest.clone(), progress);
        let damages = match verified {
            Ok(report) if report.damages.is_empty() => {
                return self.unmark().map(|()| report).map_err(|e| self.give_up(e));
            }
            Ok(report) => report.damages,
            Err(error) => return Err(self.give_up(error)),
        };
        self.clear()?;
        Err(CopyError::Damaged { dir: self.dest.describe(), damages })
    }
}

/// Whether a name in the folder is one that a copy puts there, the mark left out.
fn is_own(name: &str) -> bool {
    let folders =
        [files::WAL_DIR, files::SEGMENTS_DIR, files::PACKS_DIR, files::CHUNKS_DIR, files::IMAGES_DIR];
    folders.contains(&name) || name.starts_with("MANIFEST-")
}

/// Removes a folder and those below it, as far as they are empty: what somebody else put there stays.
fn remove_empty(dir: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(dir)?.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        remove_empty(&entry?.path())?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}

/// Removes a file, or those in a folder and below, but no folder.
fn remove_path(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    fs::read_dir(path)?.try_for_each(|entry| remove_path(&entry?.path()))
}

/// Removes names on a disk of which nothing but the names is known: one that cannot be removed is taken for a folder, and the
/// error answered where it cannot be listed either.
fn remove_listed(disk: &dyn Disk, dir: &str, names: Vec<String>) -> io::Result<()> {
    for entry in names {
        let name = if dir.is_empty() { entry } else { format!("{dir}/{entry}") };
        let Err(error) = disk.remove(&name) else { continue };
        let is_folder = matches!(
            error.kind(),
            io::ErrorKind::IsADirectory | io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
        );
        match disk.list(&name) {
            Ok(names) if is_folder => remove_listed(disk, &name, names)?,
            _ => return Err(error),
        }
    }
    Ok(())
}

/// Sealed files that a record names.
pub(crate) fn record_files(record: &v1::Record) -> Vec<String> {
    let segments = record.appends.iter().filter_map(|append| match &append.rows {
        v1::Rows::Segment(reference) => Some(files::segment(&append.series, reference.file)),
        v1::Rows::Inline { .. } => None,
    });
    let chunks = record.objects.iter().filter_map(|object| match object {
        v1::Object::Chunk { file, .. } => Some(files::chunk(*file)),
        v1::Object::Inline { .. } => None,
    });
    // The chunks of a blob share a file.
    let files: BTreeSet<String> = segments.chain(chunks).collect();
    files.into_iter().collect()
}

/// The log of a copy, written in large steps.
pub(crate) struct CopyLog {
    log: Log,
    waiting: Vec<(u64, Vec<u8>)>,
    bytes: usize,
}

impl CopyLog {
    pub(crate) fn add(&mut self, seq: u64, payload: Vec<u8>) -> Result<(), underbelly_wal::WalError> {
        self.bytes += payload.len();
        self.waiting.push((seq, payload));
        if self.bytes < COPY_BYTES {
            return Ok(());
        }
        self.bytes = 0;
        self.log.write(&std::mem::take(&mut self.waiting))
    }

    /// Writes the rest and seals the log; answers how many records it holds.
    pub(crate) fn end(mut self) -> Result<u64, underbelly_wal::WalError> {
        self.log.write(&self.waiting)?;
        self.log.seal()?;
        Ok(self.log.stats().records)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use underbelly_storage::disk::{Act, FaultyDisk};

    use super::*;

    /// Folders are gone through, and a file that may not be removed is that error.
    #[test]
    fn a_file_that_may_not_be_removed_is_named_as_that() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(RealDisk::new(dir.path()));
        disk.create_dir("a").unwrap();
        disk.create_dir("a/b").unwrap();
        let fill =
            || ["one", "a/two", "a/b/three"].map(|name| fs::write(dir.path().join(name), "x").unwrap());
        fill();
        remove_listed(&disk, "", disk.list("").unwrap()).unwrap();
        assert!(!dir.path().join("a/b/three").exists());
        fill();
        disk.watch(|call| match (call.act, call.name) {
            (Act::Remove, "a/two") => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        });
        let refused = remove_listed(&disk, "", disk.list("").unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
