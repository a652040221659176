//! `ubctl model`: blobs that are found by a metadata dict.

mod versions;

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use underbelly::{
    Batch, Clock, CommitError, Database, MetaValue, Metadata, MetadataError, Model, ModelId, ModelInfo,
    ReadError, Snapshot, SystemClock, View, Where,
};

use crate::error::Failed;
use crate::export::part_of;
use crate::output::{Facts, Field, Format, FormatArg, Listing, print, stdout};
use crate::time::{parse_duration, parse_instant};
use crate::write;
use versions::{Keep, Told, Which, WhichModel, WhichVersion};

/// Bytes of a blob of which one is looked at: no chunk is shorter, but the last and those of a database that was told so.
const LOOKED_BYTES: usize = 1 << 20;

/// Bytes of a blob that are written at once.
const PART_BYTES: u64 = 8 << 20;

/// Blobs that are found by a metadata dict.
#[derive(Subcommand, Debug)]
pub(crate) enum ModelCommand {
    /// Puts a version of a model
    ///
    /// Of the bytes, those are new that no stored chunk holds; they are counted as they were given, before they are
    /// compressed. A blob that goes through the log, up to a mebibyte, is new as a whole.
    Put {
        /// The file with the blob; `-` reads standard input
        file: PathBuf,
        /// The metadata as JSON, or `@FILE`; it needs "type" and "timestamp" (ISO 8601 or seconds since 1970)
        #[arg(long, value_name = "JSON")]
        meta: String,
        /// Takes the present as the timestamp where the metadata has none
        #[arg(long)]
        now: bool,
        /// Compresses chunks where that saves an eighth; they are then copied when they are read
        #[arg(long)]
        compress: bool,
        /// Only where the model has no version; otherwise that is shown, and the file is not read
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Writes a version of a model, the newest unless told otherwise, to standard output or a file
    Get {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        version: WhichVersion,
        /// Only this tensor of a blob in the safetensors format
        #[arg(long, value_name = "NAME")]
        tensor: Option<String>,
        /// Only these bytes: FROM..TO counts from 0, without TO itself, and either may be left out
        #[arg(long, value_name = "FROM..TO", value_parser = byte_range, conflicts_with = "tensor")]
        range: Option<ByteRange>,
        /// Where the blob goes instead of standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Lists the tensors of a version, the newest unless told otherwise, whose blob is in the safetensors format
    Tensors {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        version: WhichVersion,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Deletes all versions of a model, or of all models that fulfil conditions, pinned ones and those that an alias names
    /// among them
    ///
    /// What was told of the model goes along: its aliases with their history, tags, what is to be kept, what it was made from.
    /// Conditions are those of `model ls`: the newest version decides. The models that fulfil them go in one transaction, or
    /// in several of 100,000 each. What is put after that begins anew with version 1: where ID@VERSION was written down, it
    /// names other bytes then.
    ///
    /// With --version that version alone is deleted, unless it is the newest, pinned or named by an alias.
    #[command(group = ArgGroup::new("what").required(true).multiple(true).args(["meta", "id", "model_type", "wanted", "any"]))]
    Rm {
        /// The metadata as JSON, or `@FILE`; "timestamp", "name" and "tags" do not matter
        #[arg(long, value_name = "JSON", conflicts_with_all = ["id", "model_type", "wanted", "any"])]
        meta: Option<String>,
        /// The identity, as `model ls` shows it
        #[arg(long, value_name = "ID", conflicts_with_all = ["model_type", "wanted", "any"])]
        id: Option<String>,
        /// Only this version of the model
        #[arg(long, value_name = "N", conflicts_with_all = ["model_type", "wanted", "any", "dry_run"])]
        version: Option<u64>,
        #[command(flatten)]
        wanted: Wanted,
        /// Lists what would go, with the number of versions, and deletes nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Prints the identity of metadata: the hash by which a model is found
    Id {
        /// The metadata as JSON, or `@FILE`; "timestamp", "name" and "tags" do not matter
        #[arg(long, value_name = "JSON")]
        meta: String,
    },
    /// Lists the versions of a model, newest first
    Versions {
        #[command(flatten)]
        which: WhichModel,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Lists the aliases of a model, or the history of one, or lets one name a version
    ///
    /// A version that an alias named, and which is not to be kept, is deleted at once where the alias moves on.
    Alias {
        #[command(flatten)]
        which: WhichModel,
        /// The alias; without a version its history is shown
        name: Option<String>,
        /// The version that it is to name: a number, newest, or none
        version: Option<String>,
        /// Only where the alias names this version until then: a number, or none
        #[arg(long, value_name = "VERSION", requires = "version")]
        expect: Option<String>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Pins a version, so that no retention deletes it; taken away, one that is not to be kept is deleted at once
    Pin {
        #[command(flatten)]
        which: WhichModel,
        /// The version
        version: u64,
        /// Takes the pin away instead
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Shows which versions of a model are kept, or says which are to be
    ///
    /// What is not to be kept is deleted at once, and from then on whenever a version is put or something is told of the model,
    /// and by its age with each checkpoint. With both, a version is kept that is among the
    /// newest so many and no older than that. The newest version, pinned ones and those that an alias names stay in any case.
    Keep {
        #[command(flatten)]
        which: WhichModel,
        /// The newest so many
        #[arg(long, value_name = "N")]
        last: Option<u64>,
        /// Those put within this time, as 36h or 30d
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        age: Option<Duration>,
        /// All again
        #[arg(long, conflicts_with_all = ["last", "age"])]
        all: bool,
        /// Lists the versions that would be deleted, and deletes none; alone, those that `model gc` would delete of this model
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Tells something of a model or a version, such as auc=0.81, or lists what was told, or what was under one name
    Tag {
        #[command(flatten)]
        which: Which,
        /// What is told; nothing behind the "=" takes it back. A name without "=" shows what was told under it over time
        #[arg(value_name = "NAME[=VALUE]", value_parser = versions::told)]
        told: Vec<Told>,
        /// The version that it is about, instead of the model
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        version: Option<u64>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Shows what a version was made from
    Why {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        version: WhichVersion,
        /// How far models that it was made from are followed
        #[arg(long, value_name = "N", default_value_t = 3)]
        depth: usize,
    },
    /// Deletes versions that are not to be kept and gives their space back
    ///
    /// A file that holds several blobs is written anew once less than half of it is needed. What a process that reads has
    /// open stays until that ends or moves on; which processes read is told.
    Gc {
        #[command(flatten)]
        format: FormatArg,
    },
    /// Lists the newest version of each model, or all versions, by falling timestamps
    ///
    /// This looks at each model: the index of attributes serves the queries of the process that writes alone.
    Ls {
        #[command(flatten)]
        wanted: Wanted,
        /// All versions, those before the newest too: conditions on "timestamp", "name" and "tags" decide of each
        #[arg(long)]
        all_versions: bool,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Passes over so many first: with --limit, a page
        #[arg(long, value_name = "N", default_value_t = 0)]
        skip: usize,
        #[command(flatten)]
        format: FormatArg,
    },
}

/// Conditions on models.
#[derive(Args, Clone, Debug)]
pub(crate) struct Wanted {
    /// Only models of this type
    #[arg(long = "type", value_name = "TYPE")]
    model_type: Option<String>,
    /// Only models whose metadata fulfils this; repeated, all must hold
    ///
    /// A condition is PATH=VALUE, PATH<VALUE, PATH<=VALUE, PATH>VALUE, PATH>=VALUE, PATH^=TEXT (begins with) or PATH
    /// alone (exists). PATH leads into nested objects by dots (fit.desk), and a list stands for each of its elements; within
    /// a name a dot and the signs have a backslash before them (a\.b).
    /// VALUE is a JSON number, true, false, null or quoted text, else plain text; 1, 1.0 and "1" are different values,
    /// but not in ranges. That of "timestamp" is an instant.
    #[arg(long = "where", value_name = "CONDITION", value_parser = condition)]
    wanted: Vec<Where>,
    /// Only models that fulfil one of these conditions; repeated
    #[arg(long, value_name = "CONDITION", value_parser = condition)]
    any: Vec<Where>,
}

impl Wanted {
    fn condition(&self) -> Where {
        let all = self.wanted.iter().cloned().chain(self.any.iter().cloned().reduce(Where::or));
        let of_type = self.model_type.as_deref().map(|wanted| Where::equals("type", wanted));
        all.chain(of_type).fold(Where::any(), Where::and)
    }
}

/// Some bytes of a blob, to its end where there is no other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteRange {
    from: u64,
    to: Option<u64>,
}

fn byte_range(given: &str) -> Result<ByteRange, String> {
    let wrong = || "write FROM..TO, as 0..4096, 4096.. or ..4096".to_string();
    let (from, to) = given.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| match text {
        "" => Ok(None),
        text => text.parse::<u64>().map(Some).map_err(|_| wrong()),
    };
    let (from, to) = (number(from)?.unwrap_or(0), number(to)?);
    match to {
        Some(to) if to < from => Err(format!("{to} is before {from}; {}", wrong())),
        to => Ok(ByteRange { from, to }),
    }
}

/// Metadata from the command line; a timestamp may be text.
fn metadata(given: &str) -> Result<Metadata, Failed> {
    let metadata = match given.strip_prefix('@').map(Path::new) {
        Some(path) => {
            let bytes = std::fs::read(path).map_err(|error| Failed::file("read", path, error))?;
            let text = str::from_utf8(&bytes).map_err(|error| Failed::input(path, error.to_string()))?;
            Metadata::from_json(text).map_err(|error| Failed::input(path, error.to_string()))?
        }
        None => Metadata::from_json(given)?,
    };
    match metadata.entries().get("timestamp") {
        Some(MetaValue::Text(text)) => {
            let instant = parse_instant(text)
                .map_err(|what| Failed::Usage(format!("model metadata entry \"timestamp\": {what}")))?;
            Ok(metadata.with("timestamp", instant))
        }
        _ => Ok(metadata),
    }
}

impl ModelCommand {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Failed> {
        match self {
            ModelCommand::Put { file, meta, now, compress, once, format } => {
                let how = Put { now: *now, compress: *compress, once: *once, format: format.format };
                put(&write(dir)?, file, meta, how)
            }
            ModelCommand::Get { which, version, tensor, range, output } => {
                let db = Database::open_read_only(dir)?;
                let part = match (tensor, range) {
                    (Some(name), _) => Part::Tensor(name),
                    (None, Some(range)) => Part::Range(*range),
                    (None, None) => Part::Range(ByteRange { from: 0, to: None }),
                };
                get(&db, which, version, part, output.as_deref())
            }
            ModelCommand::Tensors { which, version, format } => {
                tensors(&*Database::open_read_only(dir)?, which, version, format.format)
            }
            ModelCommand::Versions { which, format } => {
                versions::list(&*Database::open_read_only(dir)?, &which.which(), format.format)
            }
            ModelCommand::Alias { which, name: Some(name), version: Some(version), expect, format } => {
                versions::set_alias(
                    &write(dir)?,
                    &which.which(),
                    name,
                    version,
                    expect.as_deref(),
                    format.format,
                )
            }
            ModelCommand::Alias { which, name, format, .. } => versions::aliases(
                &*Database::open_read_only(dir)?,
                &which.which(),
                name.as_deref(),
                format.format,
            ),
            ModelCommand::Pin { which, version, off, format } => {
                versions::pin(&write(dir)?, &which.which(), *version, !off, format.format)
            }
            ModelCommand::Keep { which, last, age, all, dry_run, format } => {
                let is_told = *all || last.is_some() || age.is_some();
                let (wanted, format) = (is_told.then_some(Keep { last: *last, age: *age }), format.format);
                match (wanted, dry_run) {
                    (wanted, true) => versions::would_delete(
                        &Database::open_read_only(dir)?,
                        &which.which(),
                        wanted,
                        format,
                    ),
                    (Some(wanted), false) => versions::keep(&write(dir)?, &which.which(), wanted, format),
                    (None, false) => versions::kept(&*Database::open_read_only(dir)?, &which.which(), format),
                }
            }
            ModelCommand::Tag { which, told, version, format } => {
                let looks = told.iter().filter(|told| matches!(told, Told::Looked(_))).count();
                match &told[..] {
                    [] => versions::annotations(&*Database::open_read_only(dir)?, which, *version, format.format),
                    [Told::Looked(name)] => {
                        let db = Database::open_read_only(dir)?;
                        versions::annotation_history(&db, which, *version, name, format.format)
                    }
                    _ if looks > 0 => Err(Failed::Usage(
                        "a name without \"=\" shows what was told under it; give it alone, or write NAME=VALUE".to_string(),
                    )),
                    _ => versions::annotate(&write(dir)?, which, *version, told, format.format),
                }
            }
            ModelCommand::Why { which, version, depth } => {
                versions::why(&*Database::open_read_only(dir)?, which, version, *depth)
            }
            ModelCommand::Gc { format } => versions::collect(dir, format.format),
            ModelCommand::Id { meta } => print(&format!("{}\n", metadata(meta)?.id()?)),
            ModelCommand::Rm { meta, id, version, wanted, dry_run, format } => {
                let which = (meta.is_some() || id.is_some()).then(|| Which::new(meta.clone(), id.clone()));
                if let (Some(which), Some(version)) = (&which, version) {
                    return versions::remove(&write(dir)?, which, *version, format.format);
                }
                match dry_run {
                    true => {
                        would_remove(&*Database::open_read_only(dir)?, which.as_ref(), wanted, format.format)
                    }
                    false => remove(&write(dir)?, which.as_ref(), wanted, format.format),
                }
            }
            ModelCommand::Ls { wanted, all_versions, limit, skip, format } => {
                let (skip, count) = (*skip, limit.unwrap_or(usize::MAX));
                let (snapshot, wanted) = (Database::open_read_only(dir)?.snapshot(), wanted.condition());
                let found = match all_versions {
                    true => snapshot.find_versions(&wanted, .., skip, count)?,
                    false => snapshot.find_models_newest(&wanted, skip, count)?,
                };
                list(found, format.format)
            }
        }
    }
}

/// How a version is put.
#[derive(Clone, Copy)]
struct Put {
    now: bool,
    compress: bool,
    once: bool,
    format: Format,
}

fn put(db: &Database, file: &Path, meta: &str, how: Put) -> Result<(), Failed> {
    let Put { now, compress, once, format } = how;
    let mut metadata = metadata(meta)?;
    let absent = !metadata.entries().contains_key("timestamp");
    if absent && now {
        metadata = metadata.with("timestamp", SystemClock.now());
    }
    let id = metadata.id()?;
    metadata.timestamp().map_err(|error| match error {
        MetadataError::Timestamp if absent => Failed::Usage(format!("{error}, or say --now")),
        error => error.into(),
    })?;
    // Nobody else writes.
    if once && let Some(there) = db.snapshot().model_versions(&id)?.first() {
        let found = db.snapshot().model_version(&id, there.info.version);
        let is_there = |model: Option<Model>| model.map_or(Ok(()), |model| look_through(&model));
        if let Err(error) = found.and_then(is_there) {
            let what = format!(
                "version {} cannot be read: {error}; put the same bytes without --once, which mends it",
                there.info.version
            );
            return Err(Failed::input(file, what));
        }
        let mut facts = Facts::default();
        facts.add("id", id.to_string()).add("version", there.info.version).add("bytes", there.info.bytes);
        facts.add("put", false).add("seq", there.info.seq);
        return facts.print(format);
    }
    let (source, opened): (Box<dyn Read>, _) = match file.as_os_str() == "-" {
        true => (Box::new(io::stdin().lock()), None),
        false => {
            let failed = |error| Failed::file("read", file, error);
            let opened = File::open(file).map_err(failed)?;
            (
                Box::new(opened.try_clone().map_err(failed)?),
                Some((opened.metadata().map_err(failed)?, opened)),
            )
        }
    };
    let mut writer = db.blob_writer().compressed(compress);
    writer.copy(source).map_err(|error| match error {
        CommitError::Source { source } => Failed::file("read", file, source),
        other => other.into(),
    })?;
    let stored = writer.finish()?;
    if let Some((before, opened)) = opened.filter(|(before, _)| before.is_file()) {
        let after = opened.metadata().map_err(|error| Failed::file("read", file, error))?;
        let is_whole = after.len() == stored.bytes() && after.modified().ok() == before.modified().ok();
        if !is_whole {
            return Err(Failed::input(
                file,
                "it changed while it was read, and nothing was put; put it once it is whole",
            ));
        }
    }
    let mut batch = Batch::new();
    batch.put_model_stored(metadata.clone(), &stored);
    let commit = db.commit(batch)?;
    let version = db.snapshot().model(&metadata)?.map(|model| model.info().version);
    let mut facts = Facts::default();
    facts.add("id", id.to_string()).add("version", version).add("bytes", stored.bytes());
    facts.add("new_bytes", stored.bytes_written());
    if once {
        facts.add("put", true);
    }
    facts.add("seq", commit.seq);
    facts.print(format)
}

/// A part of a blob.
enum Part<'a> {
    Range(ByteRange),
    Tensor(&'a str),
}

fn get(
    db: &View,
    which: &Which,
    version: &WhichVersion,
    part: Part<'_>,
    output: Option<&Path>,
) -> Result<(), Failed> {
    if output.is_none() && io::stdout().is_terminal() {
        return Err(Failed::Usage(
            "a model is bytes and standard output is a terminal; say --output FILE or use a pipe".to_string(),
        ));
    }
    let model = which.version(&db.snapshot(), version)?;
    let range = match part {
        Part::Tensor(name) => model.tensor(name)?.info.range,
        Part::Range(ByteRange { from, to }) => {
            let end = model.info().bytes;
            let range = from..to.unwrap_or(end.max(from));
            if range.end > end {
                return Err(ReadError::Range { start: range.start, end: range.end, bytes: end }.into());
            }
            range
        }
    };
    match output {
        Some(path) => {
            let failed = |error| Failed::file("write", path, error);
            // What is no file, such as a pipe or /dev/null, is written to; of a file the old one stays until the new one is whole.
            if path.metadata().is_ok_and(|about| !about.is_file()) {
                return send(&model, range, &mut File::create(path).map_err(failed)?, failed);
            }
            let part = part_of(path);
            let mut file = File::create_new(&part).map_err(|error| Failed::file("make", &part, error))?;
            let written = send(&model, range, &mut file, failed);
            let named = written
                .and_then(|()| file.sync_all().and_then(|()| std::fs::rename(&part, path)).map_err(failed));
            named.inspect_err(|_| {
                // Half a file is of no use to anybody; that it cannot be removed is no news then.
                let _ = std::fs::remove_file(&part);
            })
        }
        None => send(&model, range, &mut stdout(), Failed::output),
    }
}

/// Looks at a byte of each part of a blob, and so whether its files are there.
fn look_through(model: &Model) -> Result<(), ReadError> {
    let bytes = model.info().bytes;
    (0..bytes).step_by(LOOKED_BYTES).try_for_each(|at| model.range(at..at + 1).map(drop))
}

/// Writes the blob, a part at a time.
fn send(
    model: &Model,
    range: Range<u64>,
    to: &mut impl Write,
    failed: impl Fn(io::Error) -> Failed,
) -> Result<(), Failed> {
    let Range { start: mut at, end } = range;
    while at < end {
        let part = model.range(at..end.min(at + PART_BYTES))?;
        to.write_all(&part).map_err(&failed)?;
        at += part.len() as u64;
    }
    to.flush().map_err(failed)
}

fn not_found(id: ModelId) -> Failed {
    Failed::NotFound(format!("no model has this identity ({id}); `ubctl model ls` lists them"))
}

fn tensors(db: &View, which: &Which, version: &WhichVersion, format: Format) -> Result<(), Failed> {
    let model = which.version(&db.snapshot(), version)?;
    let mut listing = Listing::begin(format, ["name", "dtype", "shape", "from", "to", "bytes"])?;
    for tensor in model.tensors()? {
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        let Range { start, end } = tensor.range;
        listing.row([
            tensor.name.into(),
            tensor.dtype.into(),
            Field::Json(format!("[{}]", shape.join(","))),
            start.into(),
            end.into(),
            (end - start).into(),
        ])?;
    }
    listing.end(None)
}

/// Models that are deleted by one transaction.
const REMOVED_AT_ONCE: usize = 100_000;

/// The models that are to go, each with the number of its versions.
fn removed(
    snapshot: &Snapshot,
    which: Option<&Which>,
    wanted: &Wanted,
) -> Result<Vec<(ModelInfo, usize)>, Failed> {
    let models = match which {
        // A blob that is damaged or lost is none to be read for this.
        Some(which) => {
            versions::versions(snapshot, which.model()?)?.into_iter().take(1).map(|v| v.info).collect()
        }
        None => snapshot.find_models_newest(&wanted.condition(), 0, usize::MAX)?,
    };
    let counted = |info: ModelInfo| {
        let versions = snapshot.model_versions(&info.id)?.len();
        Ok((info, versions))
    };
    models.into_iter().map(counted).collect()
}

fn would_remove(db: &View, which: Option<&Which>, wanted: &Wanted, format: Format) -> Result<(), Failed> {
    let models = removed(&db.snapshot(), which, wanted)?;
    let columns = ["type", "timestamp", "versions", "id", "metadata"];
    let mut listing = Listing::begin(format, columns)?;
    for (model, versions) in &models {
        listing.row([
            model.metadata().model_type()?.into(),
            Field::text(model.timestamp),
            (*versions).into(),
            Field::text(model.id),
            Field::Json(model.metadata().to_json()),
        ])?;
    }
    let versions: usize = models.iter().map(|(_, versions)| versions).sum();
    listing.end(Some(&format!("these would go: models {}, versions {versions}", models.len())))
}

fn remove(db: &Database, which: Option<&Which>, wanted: &Wanted, format: Format) -> Result<(), Failed> {
    // Nobody else writes.
    let models = removed(&db.snapshot(), which, wanted)?;
    let (mut seq, mut gone, parts) = (None, 0, models.chunks(REMOVED_AT_ONCE));
    let transactions = parts.len();
    for part in parts {
        let mut batch = Batch::new();
        for (info, _) in part {
            batch.delete_model(&info.id)?;
        }
        let commit = db.commit(batch).map_err(|cause| match gone {
            0 => cause.into(),
            models => Failed::Removed { cause: Box::new(cause.into()), models },
        })?;
        seq = Some(commit.seq);
        gone += part.len();
    }
    let mut facts = Facts::default();
    match which {
        Some(_) => facts.add("id", models.first().map(|(info, _)| info.id.to_string())),
        None => facts.add("models", models.len()),
    };
    facts.add("versions", models.iter().map(|(_, versions)| versions).sum::<usize>());
    if which.is_none() {
        facts.add("transactions", transactions);
    }
    facts.add("seq", seq);
    facts.print(format)
}

/// With which the test of a condition begins.
const SIGNS: [char; 4] = ['=', '<', '>', '^'];

/// A condition from the command line.
fn condition(given: &str) -> Result<Where, String> {
    let mut is_escaped = false;
    let mut is_sign = |c: char| {
        let is_sign = !is_escaped && SIGNS.contains(&c);
        is_escaped = !is_escaped && c == '\\';
        is_sign
    };
    let at = given.find(&mut is_sign).unwrap_or(given.len());
    let (path, rest) = given.split_at(at);
    let path = SIGNS
        .iter()
        .fold(path.trim().to_string(), |path, sign| path.replace(&format!("\\{sign}"), &sign.to_string()));
    let path = &*path;
    if rest.is_empty() {
        return Ok(Where::exists(path));
    }
    // The longer ones first.
    let operators = ["<=", ">=", "^=", "<", ">", "="];
    let Some((operator, text)) = operators.iter().find_map(|sign| Some((*sign, rest.strip_prefix(sign)?)))
    else {
        return Err("\"^\" stands alone; write PATH^=TEXT for text that begins so".to_string());
    };
    let text = text.trim();
    let is_other = path.ends_with(['!', '~'])
        || operator == "=" && text.starts_with('=')
        || text.starts_with(['<', '>']);
    if is_other {
        return Err("there are =, <, <=, >, >= and ^=; quote a value that begins with =, < or >".to_string());
    }
    if operator == "^=" {
        return match path {
            "timestamp" => Err("an instant has no begin; write timestamp>=TIME".to_string()),
            _ => match value(path, text)? {
                MetaValue::Text(begin) => Ok(Where::prefix(path, &begin)),
                _ => Ok(Where::prefix(path, text)),
            },
        };
    }
    let value = value(path, text)?;
    Ok(match operator {
        "<" => Where::between(path, (Bound::Unbounded, Bound::Excluded(value))),
        "<=" => Where::between(path, (Bound::Unbounded, Bound::Included(value))),
        ">" => Where::between(path, (Bound::Excluded(value), Bound::Unbounded)),
        ">=" => Where::between(path, (Bound::Included(value), Bound::Unbounded)),
        _ => Where::equals(path, value),
    })
}

/// A value from the command line. That of the entry "timestamp" is an instant.
fn value(path: &str, text: &str) -> Result<MetaValue, String> {
    if path == "timestamp" && !text.starts_with('"') {
        return parse_instant(text).map(MetaValue::from);
    }
    match serde_json::from_str(text) {
        Ok(serde_json::Value::Array(_) | serde_json::Value::Object(_)) => {
            return Err(format!(
                "{text} is several values; a list is found by each of its elements, an object by its paths"
            ));
        }
        Ok(_) => {}
        Err(_) if text.starts_with('"') => {
            return Err(format!("{text} is no JSON text; end it with a quote"));
        }
        Err(_) => return Ok(text.into()),
    }
    // As metadata is read, so that numbers are what they are there.
    let read = Metadata::from_json(&format!("{{\"v\":{text}}}")).map_err(|error| error.to_string())?;
    let value = read.entries().get("v").cloned().unwrap_or(MetaValue::Null);
    match &value {
        MetaValue::Text(text) if path == "timestamp" => parse_instant(text).map(MetaValue::from),
        _ => Ok(value),
    }
}

fn list(models: Vec<ModelInfo>, format: Format) -> Result<(), Failed> {
    let mut listing = Listing::begin(format, ["type", "timestamp", "version", "bytes", "id", "metadata"])?;
    for model in models {
        listing.row([
            model.metadata().model_type()?.into(),
            Field::text(model.timestamp),
            model.version.into(),
            model.bytes.into(),
            Field::text(model.id),
            Field::Json(model.metadata().to_json()),
        ])?;
    }
    listing.end(None)
}
