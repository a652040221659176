//! Checkpoints: everything that the log says so far, in sealed files, so that the log may be reused.
//!
//! Order: capture under the state's lock; wait until the log is durable up to there; write segments, pack and
//! image, each synced and sealed; write the manifest, which makes them the truth; put the files in the place of
//! what was captured; recycle the log; unlink what no manifest names. A failure before the manifest leaves the
//! log and the older manifest as they were.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use underbelly_query::{MemoryRun, Schema};
use underbelly_storage::disk::Disk;
use underbelly_storage::error::StorageError;
use underbelly_storage::framed::write_framed;
use underbelly_storage::manifest::{remove_manifests_before, write_manifest};
use underbelly_storage::object::{ObjectId, Pack, write_pack};
use underbelly_storage::segment::Seqs;

use crate::core::Core;
use crate::error::CommitError;
use crate::files;
use crate::limits::{
    IMAGE_BYTES_MAX, SEAL_BYTES_MAX, SMALL_FILE_BYTES, SMALL_PACKS_MAX, SMALL_SEGMENT_ROWS,
    SMALL_SEGMENTS_MAX,
};
use crate::objects::{PackFile, Place};
use crate::record::{to_archive, v1};
use crate::series::SegmentRun;
use crate::state::State;

/// What the first eight bytes of a state image are.
pub(crate) const IMAGE_MAGIC: [u8; 8] = *b"UBIMAGE1";

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The last transaction in it.
    pub seq: u64,
    /// Bytes of the files that it wrote.
    pub bytes_written: u64,
    /// Segments that it sealed.
    pub segments: usize,
    /// Objects that it packed.
    pub objects: usize,
    /// How long commits were held up while it captured.
    pub capture: Duration,
    /// How long it took.
    pub took: Duration,
}

/// What was captured of the head.
struct Capture {
    seq: u64,
    manifest: v1::Manifest,
    image: v1::Image,
    tables: Vec<TableCapture>,
    live: HashSet<ObjectId>,
}

/// Young runs of a series and small segments to be merged with them.
struct TableCapture {
    name: Arc<str>,
    schema: Arc<Schema>,
    young: Vec<Arc<MemoryRun>>,
    small: Vec<Arc<SegmentRun>>,
}

impl Core {
    /// Makes a checkpoint.
    pub(crate) fn checkpoint(self: &Arc<Core>) -> Result<CheckpointReport, CommitError> {
        let started = Instant::now();
        let mut manifest_number = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.folder.read().unwrap_or_else(PoisonError::into_inner);
        if folder.is_none() {
            return Err(CommitError::Closed);
        }
        let mut report = CheckpointReport::default();
        let (capture, counted) = {
            let mut state = self.sound_state()?;
            let counted = (
                self.uncheckpointed.0.load(Ordering::Relaxed),
                self.uncheckpointed.1.load(Ordering::Relaxed),
            );
            (self.capture(&mut state)?, counted)
        };
        report.capture = started.elapsed();
        // A number is used once, even where the manifest that was to have it may not have come through.
        *manifest_number += 1;
        let done = self.write_checkpoint(capture, *manifest_number, &mut report);
        if done.is_err() {
            let mut state = self.state();
            state.tables.values_mut().for_each(|table| table.thaw());
        }
        done?;
        self.uncheckpointed.0.fetch_sub(counted.0, Ordering::Relaxed);
        self.uncheckpointed.1.fetch_sub(counted.1, Ordering::Relaxed);
        report.took = started.elapsed();
        Ok(report)
    }

    fn capture(&self, state: &mut State) -> Result<Capture, CommitError> {
        state.drop_versions(self.oldest_reader());
        let named = named_objects(state);
        // What is forgotten here is stored anew when it is put again, in a record behind this checkpoint.
        let live = self.objects.keep_live(&named, &self.pending);
        if let Some(missing) = named.iter().find(|id| !live.contains(id)) {
            let what = format!("object {missing} is named but not stored; the log is kept");
            return Err(CommitError::Internal { what });
        }
        let mut tables = Vec::new();
        let mut series = Vec::new();
        for (name, table) in &mut state.tables {
            let columns = table.schema().columns.iter().map(|column| v1::SchemaColumn {
                name: column.name.to_string(),
                column_type: column.column_type.tag(),
                key: column.key,
            });
            series.push(v1::Series {
                name: name.to_string(),
                columns: columns.collect(),
                segments: table.sealed().iter().map(|run| run.reference().clone()).collect(),
                last_seq: table.last_seq(),
            });
            let is_small = |run: &&Arc<SegmentRun>| {
                run.reference().rows < SMALL_SEGMENT_ROWS && run.reference().bytes < SMALL_FILE_BYTES
            };
            let mut small: Vec<_> = table.sealed().iter().filter(is_small).cloned().collect();
            if small.len() < SMALL_SEGMENTS_MAX {
                small.clear();
            }
            let young = table.freeze();
            if !young.is_empty() || !small.is_empty() {
                tables.push(TableCapture {
                    name: name.clone(),
                    schema: table.schema().clone(),
                    young,
                    small,
                });
            }
        }
        let cells = state.cells.iter().enumerate().filter_map(|(cell, versions)| {
            let newest = versions.last()?;
            let content = newest.content.map_or([0; 32], |content| content.0);
            Some(v1::CellContent { cell: cell as u32, seq: newest.seq, g: newest.g, content })
        });
        let models = state.models.iter().map(|(_, version)| v1::ModelVersion {
            seq: version.seq,
            model: v1::Model {
                metadata: version.cbor.to_vec(),
                object: version.object.0,
                bytes: version.bytes,
            },
        });
        Ok(Capture {
            seq: state.head,
            manifest: v1::Manifest {
                seq: state.head,
                time: state.time.0,
                next_file: 0,
                next_run: state.next_run,
                log_file_bytes: self.options.log_file_bytes,
                image: 0,
                series,
                packs: Vec::new(),
                chunks: Vec::new(),
            },
            image: v1::Image {
                graph: state.graph.to_image(),
                cells: cells.collect(),
                models: models.collect(),
            },
            tables,
            live,
        })
    }

    fn write_checkpoint(
        self: &Arc<Core>,
        capture: Capture,
        number: u64,
        report: &mut CheckpointReport,
    ) -> Result<(), CommitError> {
        let Capture { seq, mut manifest, image, tables, live } = capture;
        report.seq = seq;
        self.log.wait(seq)?;
        let sealed = self.pool.install(|| {
            let seal = |table| self.seal_table(table);
            tables.par_iter().map(seal).collect::<Result<Vec<_>, CommitError>>()
        })?;
        for (table, segment) in tables.iter().zip(&sealed) {
            let Some(series) = manifest.series.iter_mut().find(|series| *series.name == *table.name) else {
                continue;
            };
            let taken_in: Vec<u64> = table.small.iter().map(|run| run.reference().file).collect();
            series.segments.retain(|segment| !taken_in.contains(&segment.file));
            for run in segment {
                series.segments.push(run.reference().clone());
                report.bytes_written += run.reference().bytes;
                report.segments += 1;
            }
        }
        let packing = self.pack(&live, report)?;
        manifest.packs = packing.packs;
        manifest.chunks = packing.chunks;
        let internal = |what| CommitError::Internal { what };
        manifest.image = self.new_file();
        self.disk_dir(files::IMAGES_DIR)?;
        let payload = to_archive(&image).map_err(internal)?;
        if payload.len() as u64 > IMAGE_BYTES_MAX {
            return Err(CommitError::TooLarge {
                what: "the state image",
                found: payload.len() as u64,
                limit: IMAGE_BYTES_MAX,
                remedy: "keep fewer cells and models in one database",
            });
        }
        let image_name = files::image(manifest.image);
        report.bytes_written += write_framed(&*self.disk, &image_name, IMAGE_MAGIC, self.database, &payload)?;
        manifest.next_file = self.next_file.load(Ordering::Relaxed);
        let payload = to_archive(&manifest).map_err(internal)?;
        report.bytes_written += write_manifest(&*self.disk, number, self.database, &payload)?;

        // From here on the new manifest is the truth.
        {
            let mut state = self.state();
            for (table, segment) in tables.iter().zip(sealed) {
                let taken_in: Vec<u64> = table.small.iter().map(|run| run.reference().file).collect();
                if let Some(target) = state.tables.get_mut(&table.name) {
                    target.seal(segment, &taken_in);
                }
            }
            self.objects.settle(&packing.packed, packing.pack.as_ref());
        }
        remove_manifests_before(&*self.disk, number)?;
        self.log.with_log(|log| log.recycle(seq))?;
        self.unlink_unnamed(&manifest)?;
        Ok(())
    }

    /// Merges what was captured of a series into one segment, or into several where it is large.
    fn seal_table(&self, table: &TableCapture) -> Result<Vec<Arc<SegmentRun>>, CommitError> {
        let mut runs = Vec::new();
        for small in &table.small {
            runs.push(Arc::new(read_whole(small, &table.schema)?));
        }
        runs.extend(table.young.iter().cloned());
        let mut sealed = Vec::new();
        let mut rest = runs.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|run| {
                bytes += run.byte_size();
                bytes <= SEAL_BYTES_MAX
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            sealed.push(self.seal_runs(table, now)?);
            rest = later;
        }
        Ok(sealed)
    }

    fn seal_runs(
        &self,
        table: &TableCapture,
        runs: &[Arc<MemoryRun>],
    ) -> Result<Arc<SegmentRun>, CommitError> {
        let merged = match runs {
            [one] => one.clone(),
            several => Arc::new(MemoryRun::merge(several).map_err(crate::error::ReadError::from)?),
        };
        let seqs: Vec<u64> = (0..merged.rows()).map(|row| merged.seqs().get(row)).collect();
        let keys = table.schema.keys().map(|column| &*column.name).collect();
        let file = self.new_file();
        let (segment, reference) =
            self.write_segment(&table.name, file, &merged, Seqs::Each(&seqs), &keys)?;
        Ok(Arc::new(SegmentRun::new(segment, reference)))
    }

    /// Packs live objects that are in memory, and those of packs that are less than half alive.
    fn pack(&self, live: &HashSet<ObjectId>, report: &mut CheckpointReport) -> Result<Packing, CommitError> {
        let mut kept: BTreeMap<u64, (usize, Arc<PackFile>)> = BTreeMap::new();
        let mut chunks = Vec::new();
        let mut loose = Vec::new();
        let all = self.objects.all();
        for (id, place) in &all {
            if !live.contains(id) {
                continue;
            }
            match place {
                Place::Memory(blob) => loose.push((*id, blob.clone())),
                Place::Pack(pack) => kept.entry(pack.file).or_insert_with(|| (0, pack.clone())).0 += 1,
                Place::Chunk(chunk) => {
                    chunks.push(v1::Chunk { id: id.0, file: chunk.file, bytes: chunk.bytes });
                }
            }
        }
        // Small packs are joined when there are many, so that their number does not grow with the checkpoints.
        let is_small = |pack: &PackFile| pack.pack.info().bytes < SMALL_FILE_BYTES;
        let many_small = kept.values().filter(|(_, pack)| is_small(pack)).count() >= SMALL_PACKS_MAX;
        let (full, sparse): (Vec<_>, Vec<_>) = kept
            .into_values()
            .partition(|(alive, pack)| alive * 2 >= pack.pack.ids().len() && !(many_small && is_small(pack)));
        for (_, pack) in &sparse {
            for id in pack.pack.ids().filter(|id| live.contains(id)) {
                if let Some(blob) = pack.pack.get(&id)? {
                    loose.push((id, blob));
                }
            }
        }
        let mut packs: Vec<u64> = full.iter().map(|(_, pack)| pack.file).collect();
        if loose.is_empty() {
            return Ok(Packing { packs, chunks, packed: Vec::new(), pack: None });
        }
        loose.sort_by_key(|(id, _)| *id);
        loose.dedup_by_key(|(id, _)| *id);
        let file = self.new_file();
        self.disk_dir(files::PACKS_DIR)?;
        let name = files::pack(file);
        let info =
            write_pack(&*self.disk, &name, self.database, loose.iter().map(|(id, blob)| (*id, &**blob)))?;
        report.bytes_written += info.bytes;
        report.objects = loose.len();
        let pack = Pack::open(&*self.disk, &name, self.database)?;
        packs.push(file);
        let packed = loose.into_iter().map(|(id, _)| id).collect();
        Ok(Packing { packs, chunks, packed, pack: Some(Arc::new(PackFile { file, pack })) })
    }

    /// Unlinks sealed files that nothing names and nobody is about to name. Mapped pages of an unlinked file live
    /// until the last reader lets go.
    ///
    /// A file is first pending, then named by the state, and never pending again; so the files are listed first,
    /// then what is pending is read, then the state.
    fn unlink_unnamed(&self, manifest: &v1::Manifest) -> Result<(), CommitError> {
        if self.pending.is_held() {
            return Ok(());
        }
        let listed = all_files(&*self.disk)?;
        let pending = self.pending.files();
        let mut named = named_files(manifest);
        for (name, table) in &self.state().tables {
            named.extend(table.sealed().iter().map(|run| files::segment(name, run.reference().file)));
        }
        named.extend(self.objects.all().into_iter().filter_map(|(_, place)| place.file_name()));
        let unnamed = |name: &String| {
            !named.contains(name) && files::number(name).is_some_and(|number| !pending.contains(&number))
        };
        let stale: Vec<String> = listed.into_iter().filter(unnamed).collect();
        Ok(remove_files(&*self.disk, &stale)?)
    }
}

/// Objects that a candidate, a version that a reader may see, or a model names.
fn named_objects(state: &State) -> HashSet<ObjectId> {
    let versions = state.cells.iter().flatten().filter_map(|version| version.content);
    let candidates = state.graph.contents().map(ObjectId);
    let models = state.models.iter().map(|(_, version)| version.object);
    versions.chain(candidates).chain(models).collect()
}

/// What packing decided.
struct Packing {
    packs: Vec<u64>,
    chunks: Vec<v1::Chunk>,
    packed: Vec<ObjectId>,
    pack: Option<Arc<PackFile>>,
}

/// Reads a segment back into memory.
fn read_whole(run: &SegmentRun, schema: &Schema) -> Result<MemoryRun, CommitError> {
    MemoryRun::read(run, schema).map_err(|error| CommitError::Read(error.into()))
}

/// Files that a manifest names.
pub(crate) fn named_files(manifest: &v1::Manifest) -> BTreeSet<String> {
    let segments = manifest
        .series
        .iter()
        .flat_map(|series| series.segments.iter().map(|segment| files::segment(&series.name, segment.file)));
    let packs = manifest.packs.iter().map(|file| files::pack(*file));
    let chunks = manifest.chunks.iter().map(|chunk| files::chunk(chunk.file));
    let image = (manifest.image > 0).then(|| files::image(manifest.image));
    segments.chain(packs).chain(chunks).chain(image).collect()
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
