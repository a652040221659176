//! Reads everything that is stored and compares every checksum.

use underbelly_storage::framed::read_framed;
use underbelly_storage::manifest::newest_manifest;
use underbelly_storage::object::{ObjectId, verify_chunk};

use crate::checkpoint::IMAGE_MAGIC;
use crate::database::Database;
use crate::error::ReadError;
use crate::files;
use crate::graph::CellId;
use crate::limits::IMAGE_BYTES_MAX;
use crate::objects::Place;
use crate::record::{from_archive, v1};
use crate::slots::content;

/// What was checked and what is wrong.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments.
    pub segments: usize,
    /// Rows, in segments and young.
    pub rows: u64,
    /// Packs.
    pub packs: usize,
    /// Chunk files.
    pub chunks: usize,
    /// Contents of cells.
    pub cells: usize,
    /// Versions of models.
    pub models: usize,
    /// Bytes that were read and compared with a checksum.
    pub bytes: u64,
    /// Each damage, naming the file and the place.
    pub damages: Vec<String>,
}

impl Database {
    /// Reads every sealed file and every object. `progress` is told how many of how many steps are done.
    ///
    /// The log was read and checked when the database was opened; what it holds is in memory.
    ///
    /// # Errors
    /// [`ReadError::Storage`] where the folders of the database cannot be listed. Damage is no error: the report
    /// names it.
    pub fn verify(&self, mut progress: impl FnMut(usize, usize)) -> Result<VerifyReport, ReadError> {
        let core = self.core();
        let snapshot = self.snapshot();
        // Commits and checkpoints go on meanwhile; only, nothing is unlinked.
        let _hold = core.pending.hold();
        let mut report = VerifyReport::default();
        let (segments, cells, models) = {
            let state = core.state();
            let mut segments = Vec::new();
            for (name, table) in &state.tables {
                segments.extend(table.sealed().iter().map(|run| (name.clone(), run.clone())));
            }
            let cells: Vec<ObjectId> = (0..state.cells.len())
                .filter_map(|cell| state.cell_at(CellId(cell as u32), snapshot.seq())?.content)
                .collect();
            let models: Vec<_> = state.models.iter().map(|(id, version)| (*id, version.clone())).collect();
            (segments, cells, models)
        };
        let objects = core.objects.all();
        let total = segments.len() + objects.len() + cells.len() + models.len() + 2;
        let mut done = 0;
        let mut step = || {
            done += 1;
            progress(done, total);
        };
        for (name, run) in &segments {
            match run.segment().verify() {
                Ok(bytes) => report.bytes += bytes,
                Err(error) => report.damages.push(error.to_string()),
            }
            let file = files::segment(name, run.reference().file);
            if run.segment().rows() != run.reference().rows {
                report.damages.push(format!("{file} has another number of rows than was committed"));
            }
            report.segments += 1;
            step();
        }
        let mut packs = std::collections::BTreeSet::new();
        for (id, place) in &objects {
            match place {
                Place::Memory(blob) => {
                    report.bytes += blob.len() as u64;
                    if ObjectId::of(blob) != *id {
                        report.damages.push(format!("object {id} in memory has another hash"));
                    }
                }
                Place::Pack(pack) => {
                    if packs.insert(pack.file) {
                        report.packs += 1;
                        match pack.pack.verify() {
                            Ok(bytes) => report.bytes += bytes,
                            Err(error) => report.damages.push(error.to_string()),
                        }
                    }
                }
                Place::Chunk(chunk) => {
                    report.chunks += 1;
                    match verify_chunk(&*core.disk, &files::chunk(chunk.file), core.database, *id) {
                        Ok(bytes) => report.bytes += bytes,
                        Err(error) => report.damages.push(error.to_string()),
                    }
                }
            }
            step();
        }
        for object in cells {
            let read = core.objects.get(&object).map(|blob| content::decode(&blob).map(|_| ()));
            match read {
                Ok(Ok(())) => {}
                Ok(Err(what)) => report.damages.push(format!("contents of a cell, object {object}: {what}")),
                Err(error) => report.damages.push(error.to_string()),
            }
            report.cells += 1;
            step();
        }
        for (id, version) in models {
            match core.objects.get(&version.object) {
                Ok(blob) if blob.len() as u64 == version.bytes => {}
                Ok(blob) => report.damages.push(format!(
                    "model {id} of transaction {} has {} bytes, not {}",
                    version.seq,
                    blob.len(),
                    version.bytes
                )),
                Err(error) => report.damages.push(format!("model {id}: {error}")),
            }
            report.models += 1;
            step();
        }
        self.verify_manifest(&mut report);
        step();
        for name in snapshot.series_names() {
            report.rows += match snapshot.series(&name)?.count() {
                Ok(rows) => rows,
                Err(error) => {
                    report.damages.push(format!("series {name}: {error}"));
                    0
                }
            };
        }
        step();
        Ok(report)
    }

    /// The manifest and the image that it names. No checkpoint replaces them meanwhile.
    fn verify_manifest(&self, report: &mut VerifyReport) {
        let core = self.core();
        let _still = core.checkpoint.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let manifest = match newest_manifest(&*core.disk) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return report.damages.push("there is no manifest any more".to_string()),
            Err(error) => return report.damages.push(error.to_string()),
        };
        report.bytes += manifest.payload.len() as u64;
        report.damages.extend(manifest.rejected.iter().map(|(name, error)| format!("{name}: {error}")));
        let image = match from_archive::<v1::Manifest>(&manifest.payload) {
            Ok(found) => found.image,
            Err(what) => return report.damages.push(format!("the manifest: {what}")),
        };
        if image == 0 {
            return;
        }
        let name = files::image(image);
        match read_framed(&*core.disk, &name, IMAGE_MAGIC, Some(core.database), IMAGE_BYTES_MAX) {
            Ok(framed) => report.bytes += framed.payload.len() as u64,
            Err(error) => report.damages.push(error.to_string()),
        }
    }
}
