//! The log for people: its files, and what each record does.

use std::path::Path;
use std::sync::Arc;

use underbelly_storage::disk::{RealDisk, SharedDisk};
use underbelly_storage::manifest::{manifest_name, manifest_numbers, newest_manifest};
use underbelly_storage::object::ObjectId;
use underbelly_storage::{Timestamp, Value};
use underbelly_wal::{
    FileInspection, PassedOver, Place, Sound, Start, WalError, first_seqs, gaps, inspect, log_name, owner,
    visit_sound_upto,
};

use crate::database::Database;
use crate::durable;
use crate::error::OpenError;
use crate::graph::{Deadline, Event, Outcome, Setback, Stamp, Submission};
use crate::limits::READER_TRIES;
use crate::manifest::Stored;
use crate::models::{MarkKind, Metadata, ModelId, value_of_cbor};
use crate::open::no_manifest;
use crate::record::{self, v1};
use crate::variables::Change;

/// A record of the log: one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogRecord {
    /// The transaction's place in the order of all.
    pub seq: u64,
    /// Its commit time; `None` where the record cannot be read.
    pub time: Option<Timestamp>,
    /// Length of the record in bytes.
    pub bytes: usize,
    /// What it does, a line for each part; what is wrong with it, where it cannot be read.
    pub does: Vec<String>,
    /// The file of the log in which it was found, relative to the database, and the byte at which its batch begins; `None` in what
    /// [`Reader::refresh_with_records`](crate::Reader::refresh_with_records) answers.
    pub place: Option<(String, u64)>,
}

/// The log as it is on the disk.
#[derive(Debug)]
#[non_exhaustive]
pub struct LogInspection {
    /// Its files, oldest first.
    pub files: Vec<FileInspection>,
    /// Each damage, naming the file and the place.
    pub damages: Vec<String>,
}

/// How often the log is looked at: a writer may be in the middle of a change.
const LOOKS: usize = 3;

/// Looks at every file of a log. A file may be recycled, or end, while it is looked at; damage stays.
fn look(disk: &SharedDisk, database: [u8; 16]) -> Result<Vec<FileInspection>, WalError> {
    let mut looked = inspect(disk.clone(), database);
    for _ in 1..LOOKS {
        if matches!(&looked, Ok(files) if files.iter().all(|file| file.damages().is_empty())) {
            break;
        }
        looked = inspect(disk.clone(), database);
    }
    looked
}

/// From where on the log is needed.
struct Needed {
    /// The newest manifest.
    number: u64,
    /// Where the log goes on behind it.
    start: Start,
    /// The manifest before it, to which an opening would fall back, and the first seq that it lacks.
    previous: Option<(u64, u64)>,
}

impl Needed {
    /// As the newest manifest says; `None` where it cannot be read.
    fn read(disk: &SharedDisk, database: [u8; 16]) -> Option<Needed> {
        let number = manifest_numbers(&**disk).ok()?.pop()?;
        let mine = |number| Stored::read(&**disk, number).ok().filter(|found| found.database == database);
        let manifest = mine(number)?.manifest;
        let previous = (manifest.previous > 0).then(|| mine(manifest.previous)).flatten();
        let previous = previous.map(|found| (found.number, found.manifest.log_start().seq));
        Some(Needed { number, start: manifest.log_start(), previous })
    }
}

/// What is missing of a log on the way to an older manifest, in words.
pub(crate) fn beyond(gap: WalError, manifest: u64) -> String {
    let gap = PassedOver::of(gap).map_or_else(|error| error.to_string(), |gap| gap.to_string());
    format!(
        "{gap}; an opening that falls back to {} would need it, until the next checkpoint",
        manifest_name(manifest)
    )
}

/// Every file of a log, and what is wrong with it. What is missing is told where a writer has not made another checkpoint
/// meanwhile, which lets go of files.
pub(crate) fn look_whole(
    disk: &SharedDisk,
    database: [u8; 16],
) -> Result<(Vec<FileInspection>, Vec<String>), WalError> {
    let mut looks = 1;
    loop {
        let needed = Needed::read(disk, database);
        let files = look(disk, database)?;
        let gaps = needed.as_ref().map(|needed| missing(&files, needed)).unwrap_or_default();
        let newest = || manifest_numbers(&**disk).ok().and_then(|numbers| numbers.last().copied());
        let is_overtaken = !gaps.is_empty() && newest() != needed.as_ref().map(|needed| needed.number);
        if is_overtaken && looks < LOOKS {
            looks += 1;
            continue;
        }
        let mut damages = damages(&files, needed.and_then(|needed| needed.start.place));
        if !is_overtaken {
            damages.extend(gaps);
        }
        return Ok((files, damages));
    }
}

/// Files that are missing: for the newest manifest, and for the one before.
fn missing(files: &[FileInspection], needed: &Needed) -> Vec<String> {
    let mine = gaps(files, needed.start.seq);
    let newest = mine.len();
    let mut missing: Vec<String> = mine.iter().map(ToString::to_string).collect();
    if let Some((manifest, seq)) = needed.previous {
        // Gaps are told from the newest on, so those of both come first.
        missing.extend(gaps(files, seq).into_iter().skip(newest).map(|gap| beyond(gap, manifest)));
    }
    missing
}

/// What is wrong with the files of a log. `place` is where it goes on behind the newest manifest: what is damaged before
/// that is lost to nobody.
fn damages(files: &[FileInspection], place: Option<Place>) -> Vec<String> {
    let mut damages = Vec::new();
    if files.is_empty() {
        damages.push(WalError::Missing { dir: crate::files::WAL_DIR.to_string() }.to_string());
    }
    for file in files {
        match place.filter(|place| file.number <= place.file) {
            Some(place) if file.number == place.file => {
                let (before, behind) = file.damages_around(&place);
                damages.extend(before.iter().map(ToString::to_string));
                damages.extend(behind.iter().map(ToString::to_string));
            }
            // Older files are needed by nobody.
            Some(_) => damages.extend(file.damages().into_iter().map(|damage| {
                PassedOver::of(damage).map_or_else(|error| error.to_string(), |damage| damage.to_string())
            })),
            None => damages.extend(file.damages().iter().map(ToString::to_string)),
        }
    }
    damages
}

/// A log to be read.
struct Source {
    disk: SharedDisk,
    database: [u8; 16],
    /// Where the log goes on behind the newest manifest, if one can be read.
    checkpoint: Option<Start>,
}

fn source(dir: &Path) -> Result<Source, OpenError> {
    let disk: SharedDisk = Arc::new(RealDisk::new(dir));
    // Damaged manifests are no hindrance: the log itself says whose it is.
    let newest = newest_manifest(&*disk).ok().flatten().and_then(|found| Stored::decode(found).ok());
    let database = match &newest {
        Some(found) => Some(found.database),
        None => owner(disk.clone())?,
    };
    let database = database.ok_or_else(|| no_manifest(&disk))?;
    Ok(Source { disk, database, checkpoint: newest.map(|found| found.manifest.log_start()) })
}

impl Database {
    /// Looks at every file of the log, oldest first. A process may write it meanwhile. Damage is part of the answer.
    ///
    /// # Errors
    /// [`OpenError::NotFound`] where there is no database, [`OpenError::Log`] where the log cannot be read.
    pub fn inspect_log(dir: impl AsRef<Path>) -> Result<LogInspection, OpenError> {
        let Source { disk, database, .. } = source(dir.as_ref())?;
        let (files, damages) = look_whole(&disk, database)?;
        Ok(LogInspection { files, damages })
    }

    /// Gives each record from seq `from` on, or from the first that the log still holds, as far as they follow each other, and answers how far that is. Where damage
    /// ends that before the place where the log goes on behind the newest checkpoint, it goes on there, and the answer
    /// tells of the damage.
    ///
    /// A process may write the log meanwhile: what was durable when the reading began is given, but for records
    /// whose file was recycled before they were read, since a checkpoint holds them.
    ///
    /// # Errors
    /// As [`Database::inspect_log`], and whatever `visit` answers.
    pub fn read_log<E: From<OpenError>>(
        dir: impl AsRef<Path>,
        from: u64,
        mut visit: impl FnMut(LogRecord) -> Result<(), E>,
    ) -> Result<Sound, E> {
        let dir = dir.as_ref();
        let Source { disk, database, .. } = source(dir)?;
        // What a writer's checkpoints change.
        let kept = || {
            let newest = manifest_numbers(&*disk).ok().and_then(|numbers| numbers.last().copied());
            (newest, first_seqs(&disk, database).ok().and_then(|seqs| seqs.first().copied()))
        };
        let mut upto = durable::limit(&disk, database);
        let (mut next, mut tries) = (from, 0);
        loop {
            let before = kept();
            let place = source(dir)?.checkpoint.and_then(|start| start.place);
            let seqs = first_seqs(&disk, database).map_err(OpenError::from)?;
            let seq = next.max(seqs.first().copied().flatten().unwrap_or(1));
            let is_behind = place.is_none_or(|place| place.seq <= seq);
            let mut read = |start: Start| {
                visit_sound_upto::<Stop<E>>(
                    disk.clone(),
                    database,
                    start,
                    upto,
                    &mut |seq, payload, (file, offset)| {
                        let place = Some((log_name(file), offset));
                        visit(LogRecord { place, ..describe(seq, payload) }).map_err(Stop::Visitor)?;
                        next = seq + 1;
                        Ok(())
                    },
                )
            };
            let sound = match read(Start { seq, place: place.filter(|_| is_behind) }) {
                Err(Stop::Visitor(error)) => return Err(error),
                Err(Stop::Log(error)) => Err(error),
                Ok(sound) => Ok(sound),
            };
            // What looks like damage may be what a writer does meanwhile.
            let is_overtaken = match &sound {
                Ok(Sound { damage: None, .. }) => false,
                _ => kept() != before || (upto == u64::MAX && durable::limit(&disk, database) != upto),
            };
            if is_overtaken && tries < READER_TRIES {
                tries += 1;
                if upto == u64::MAX {
                    upto = durable::limit(&disk, database);
                }
                continue;
            }
            let sound = sound.map_err(OpenError::from)?;
            let later = match place.filter(|_| !is_behind) {
                Some(held) => Some(Start { seq: held.seq, place }),
                // Without a checkpoint it goes on with the oldest file that says where it begins.
                None => seqs.iter().flatten().next().map(|first| Start { seq: *first, place: None }),
            };
            return match later {
                Some(later) if sound.damage.is_some() && sound.next_seq < later.seq => {
                    let mut rest = read(later).map_err(|stop| match stop {
                        Stop::Log(error) => OpenError::from(error).into(),
                        Stop::Visitor(error) => error,
                    })?;
                    rest.damage = rest.damage.take().or(sound.damage);
                    Ok(rest)
                }
                _ => Ok(sound),
            };
        }
    }
}

enum Stop<E> {
    Log(underbelly_wal::WalError),
    Visitor(E),
}

impl<E> From<underbelly_wal::WalError> for Stop<E> {
    fn from(error: underbelly_wal::WalError) -> Stop<E> {
        Stop::Log(error)
    }
}

pub(crate) fn describe(seq: u64, payload: &[u8]) -> LogRecord {
    match record::decode(payload) {
        Ok((time, record)) => {
            LogRecord { seq, time: Some(time), bytes: payload.len(), does: parts(record), place: None }
        }
        Err(what) => {
            let does = vec![format!("unreadable: {what}")];
            LogRecord { seq, time: None, bytes: payload.len(), does, place: None }
        }
    }
}

fn parts(record: v1::Record) -> Vec<String> {
    // By name, so that none is forgotten.
    let v1::Record {
        objects,
        deletes,
        appends,
        deleted_models,
        models,
        marks,
        removed,
        collects,
        variables,
        event,
        rules,
        types,
    } = record;
    let mut does = Vec::new();
    for object in objects {
        does.push(match object {
            v1::Object::Inline { bytes } => {
                format!("object {} of {} bytes", ObjectId::of(&bytes), bytes.len())
            }
            v1::Object::Chunk { id, file, bytes } => {
                format!("object {} of {bytes} bytes in {}", ObjectId(id), crate::files::chunk(file))
            }
        });
    }
    does.extend(deletes.into_iter().map(|v1::SeriesDelete { series, delete }| {
        let keys = delete.keys.iter().map(|(name, value)| format!(" of {name} {}", Value::from(value)));
        let (first, last) = (Timestamp(delete.first), Timestamp(delete.last));
        let filtered = if delete.predicates.is_empty() { "" } else { " that are filtered" };
        format!(
            "delete rows of series {series:?}{}{filtered} from {first} to {last}",
            keys.collect::<String>()
        )
    }));
    does.extend(rules.into_iter().map(|rules| match rules.rules() {
        Ok(known) => format!("define series {:?}: {known}", rules.series),
        Err(what) => what,
    }));
    for (series, types) in types {
        let types: Vec<String> =
            types.iter().map(|(column, logical)| format!("{column} {logical}")).collect();
        does.push(format!("series {series:?} has {}", types.join(", ")));
    }
    for append in appends {
        let series = append.series;
        does.push(match append.rows {
            v1::Rows::Inline { timestamps, columns } => {
                format!("append {} rows of {} columns to series {series:?}", timestamps.len(), columns.len())
            }
            v1::Rows::Segment(reference) => {
                let file = crate::files::segment(&series, reference.file);
                format!("append {} rows in {file} to series {series:?}", reference.rows)
            }
        });
    }
    does.extend(deleted_models.into_iter().map(|id| format!("delete model {}", ModelId(id))));
    for model in models {
        let metadata = Metadata::from_cbor(&model.metadata).map(|metadata| metadata.to_json().to_string());
        let metadata = metadata.unwrap_or_else(|error| error.to_string());
        does.push(format!("put model {metadata}, {} bytes", model.bytes));
    }
    does.extend(marks.into_iter().map(mark));
    does.extend(
        removed
            .into_iter()
            .map(|v1::Removed { id, number }| format!("delete version {number} of model {}", ModelId(id))),
    );
    if collects {
        does.push("delete the versions of models that are not to be kept".to_string());
    }
    does.extend(variables.into_iter().map(|variable| {
        let Change { name, value } = variable.into();
        match value {
            Some(value) => {
                format!("set variable {name} to {} of {} bytes", value.variable_type(), value.byte_size())
            }
            None => format!("remove variable {name}"),
        }
    }));
    if let Some(event) = event {
        match Event::try_from(event) {
            Ok(event) => events(event, &mut does),
            Err(error) => does.push(format!("an event that cannot be read: {error}")),
        }
    }
    does
}

fn mark(mark: v1::Mark) -> String {
    let v1::Mark { id, kind, version, name, value } = mark;
    let model = match version {
        0 => format!("model {}", ModelId(id)),
        u64::MAX => format!("the newest version of model {}", ModelId(id)),
        version => format!("version {version} of model {}", ModelId(id)),
    };
    let json = |value| Metadata::from_entries([("v".to_string(), value)].into()).to_json();
    let value = value.map(|cbor| match value_of_cbor(&cbor).map(json) {
        // The dict around it is not shown.
        Ok(json) => {
            json.strip_prefix("{\"v\":").and_then(|json| json.strip_suffix('}')).unwrap_or(&json).to_string()
        }
        Err(what) => what,
    });
    match (MarkKind::of(kind), value) {
        (Some(MarkKind::Alias), Some(value)) => format!("let alias {name:?} of {model} name {value}"),
        (Some(MarkKind::Alias), None) => format!("take away alias {name:?} of {model}"),
        (Some(MarkKind::Note), Some(value)) => format!("tell {name:?} of {model}: {value}"),
        (Some(MarkKind::Note), None) => format!("take back {name:?} of {model}"),
        (Some(MarkKind::Pin), Some(_)) => format!("pin {model}"),
        (Some(MarkKind::Pin), None) => format!("unpin {model}"),
        (Some(MarkKind::Retention), Some(value)) => format!("keep versions of {model}: {value}"),
        (Some(MarkKind::Retention), None) => format!("keep all versions of {model}"),
        (Some(MarkKind::Lineage), Some(value)) => format!("tell what {model} was made from: {value}"),
        (Some(MarkKind::Lineage), None) => format!("take back what {model} was made from"),
        (None, _) => format!("a mark of the unknown kind {kind} on {model}"),
    }
}

fn events(event: Event, does: &mut Vec<String>) {
    match event {
        Event::DefineSlot(slot) => does.push(format!("define slot {:?}", slot.name)),
        Event::Register(producer) => does.push(format!("register producer {:?}", producer.name)),
        Event::Attach { producer, host } => {
            let host = host.map_or(String::new(), |h| format!(" of process {} on {}", h.process, h.machine));
            does.push(format!("attach producer {producer}{host}"));
        }
        Event::Reopen => does.push("open for writing".to_string()),
        Event::Detach { producer, epoch, lost } => {
            let how = if lost { "lose" } else { "end" };
            does.push(format!("{how} session {epoch} of producer {producer}"));
        }
        Event::Commit(Submission { writes, ends, backfill, as_of, session, deadlines }) => {
            does.extend(session.map(|stamp| {
                let Stamp { producer, epoch, sequence } = stamp;
                format!("commit {sequence} of daemon {producer} in session {epoch}")
            }));
            does.extend(as_of.map(|time| format!("as of {time}")));
            does.extend(deadlines.into_iter().map(|Deadline { due_by, slot, date }| {
                format!("have slot {slot} up to date for {date} by {due_by}")
            }));
            for write in writes {
                let what = write
                    .content
                    .map_or("retract".to_string(), |content| format!("put {}", ObjectId(content)));
                let (slot, date, key) = (write.slot.0, write.date, write.key);
                does.push(format!("{what} in slot {slot}, {date} {key} at {}", write.priority));
            }
            does.extend(ends.into_iter().map(|date| format!("end of {date}")));
            if backfill {
                does.push("as a backfill".to_string());
            }
        }
        Event::Start { bundle, run, batch } => {
            let of = if run == batch { String::new() } else { format!(" in the batch of run {}", batch.0) };
            does.push(format!("start run {} of bundle {}{of}", run.0, bundle.0));
        }
        Event::Several(parts) => parts.into_iter().for_each(|part| events(part, does)),
        Event::Tick => does.push("time has passed".to_string()),
        Event::Retract { cell, priority } => does.push(format!("retract cell {cell} at {priority}")),
        Event::Force(bundle) => does.push(format!("force bundle {bundle}")),
        Event::Cancel { bundle, reason } => does.push(format!("cancel bundle {bundle}: {reason}")),
        Event::Deregister(producer) => does.push(format!("deregister producer {producer}")),
        Event::End { run, outcome, .. } => does.push(match outcome {
            Outcome::Data(outputs) => format!("end run {} with {} outputs", run.0, outputs.len()),
            Outcome::Declined(reason) => format!("run {} declined: {reason}", run.0),
            Outcome::Failed(reason) => format!("run {} failed: {reason}", run.0),
            Outcome::Again { why: Setback::Rejected, message, wait } => {
                format!("run {} was rejected, again after {wait:?}: {message}", run.0)
            }
            Outcome::Again { why: Setback::Failed, message, wait } => {
                format!("run {} failed, again after {wait:?}: {message}", run.0)
            }
            Outcome::Again { why: Setback::Halved(most), message, .. } => {
                format!("the batch of run {} died, again with {most} at most: {message}", run.0)
            }
        }),
    }
}
