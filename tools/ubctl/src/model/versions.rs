//! `ubctl model versions|alias|pin|keep|tag|why|gc`: versions of a model and what is told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use underbelly::{
    Alias, AliasTarget, Annotation, Batch, Clock, CommitError, Database, Extent, Lineage, Location,
    MetaValue, Metadata, Model, ModelId, Reader, Retention, Snapshot, SystemClock, Timestamp, TrainedOn,
    VersionInfo, View,
};

use super::{metadata, not_found};
use crate::error::Failed;
use crate::output::{Facts, Field, Format, Listing, printable};
use crate::stderr;
use crate::time::{duration_text, parse_instant};
use crate::write;

/// Which model: by its metadata or by its identity.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// The metadata as JSON, or `@FILE`; "timestamp", "name" and "tags" do not matter
    #[arg(long, value_name = "JSON")]
    meta: Option<String>,
    /// The identity, as `model ls` shows it; where a version is asked for also a place: ID@VERSION or ID@ALIAS
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

/// Which model, by its metadata or by its identity, where no version is asked for.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichModel {
    /// The metadata as JSON, or `@FILE`; "timestamp", "name" and "tags" do not matter
    #[arg(long, value_name = "JSON")]
    meta: Option<String>,
    /// The identity, as `model ls` shows it
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

impl WhichModel {
    pub(super) fn which(&self) -> Which {
        Which::new(self.meta.clone(), self.id.clone())
    }
}

/// Which version of it.
#[derive(Args, Clone, Debug, Default)]
#[group(multiple = false)]
pub(crate) struct WhichVersion {
    /// The version of this number
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// The version so many before the newest, of those that there are: deleted ones do not count
    #[arg(long, value_name = "N")]
    back: Option<usize>,
    /// The version that this alias names
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// The latest version whose metadata has this timestamp or an earlier one
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    as_of: Option<Timestamp>,
    /// The newest version that had been put by this time
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    put_by: Option<Timestamp>,
}

impl Which {
    pub(super) fn new(meta: Option<String>, id: Option<String>) -> Which {
        Which { meta, id }
    }

    fn location(&self) -> Result<Location, Failed> {
        match (&self.meta, &self.id) {
            (Some(meta), _) => {
                Ok(Location { id: metadata(meta)?.id()?, target: AliasTarget::Newest, alias: None })
            }
            (None, Some(id)) => Ok(Location::parse(id)?),
            (None, None) => Err(Failed::Usage("say --meta or --id".to_string())),
        }
    }

    /// The model, of which no version may be named.
    pub(crate) fn model(&self) -> Result<ModelId, Failed> {
        let location = self.location()?;
        match (&location.alias, location.target) {
            (None, AliasTarget::Newest) => Ok(location.id),
            _ => Err(Failed::Usage(format!(
                "{location} names a version; give --id {} alone, and the version by its number where the command takes one",
                location.id
            ))),
        }
    }

    /// The model, and the version that a number or a place names, if one does.
    fn about(&self, snapshot: &Snapshot, version: Option<u64>) -> Result<(ModelId, Option<u64>), Failed> {
        if version.is_some() || !self.id.as_ref().is_some_and(|id| id.contains('@')) {
            return Ok((self.model()?, version));
        }
        let found = self.version(snapshot, &WhichVersion::default())?;
        Ok((self.location()?.id, Some(found.info().version)))
    }

    /// A version of the model.
    pub(crate) fn version(&self, snapshot: &Snapshot, version: &WhichVersion) -> Result<Model, Failed> {
        let WhichVersion { version, back, alias, as_of, put_by } = version;
        let location = self.location()?;
        let is_named = version.is_some() || back.is_some() || alias.is_some() || as_of.is_some();
        // What names a version already is not to name another.
        let id = if is_named || put_by.is_some() { self.model()? } else { location.id };
        let found = match (version, back, alias, as_of, put_by) {
            (Some(version), ..) => snapshot.model_version(&id, *version)?,
            (_, Some(back), ..) => snapshot.model_back(&id, *back)?,
            (_, _, Some(alias), ..) => snapshot.model_alias(&id, alias)?,
            (_, _, _, Some(at), _) => snapshot.model_as_of(&id, *at)?,
            (.., Some(at)) => snapshot.model_put_by(&id, *at)?,
            _ => snapshot.model_at(&location)?,
        };
        let asked = match (version, back, alias, as_of, put_by) {
            (Some(version), ..) => format!("version {version}"),
            (_, Some(back), ..) => format!("version {back} before the newest"),
            (_, _, Some(alias), ..) => format!("alias {alias:?}"),
            (_, _, _, Some(at), _) => format!("version of a timestamp up to {at}"),
            (.., Some(at)) => format!("version that had been put by {at}"),
            _ => match (&location.alias, location.target) {
                (Some(alias), _) => format!("alias {alias:?}"),
                (None, AliasTarget::Version(version)) => format!("version {version}"),
                (None, AliasTarget::Newest) => "version".to_string(),
            },
        };
        let info = found.as_ref().map(Model::info);
        let number = info.map_or(0, |info| info.version);
        let is_counted = back.is_some() || as_of.is_some() || put_by.is_some();
        let mut deleted = if is_counted { snapshot.deleted_versions(&id)? } else { Vec::new() };
        // Numbers rise with the times of puts; timestamps are as somebody chose them.
        deleted.retain(|gone| match (back, as_of, put_by) {
            (_, Some(at), _) => *gone.start() > number || info.is_none_or(|info| info.timestamp < *at),
            (.., Some(_)) => *gone.start() == number + 1,
            _ => back.is_some() && *gone.start() > number,
        });
        let deleted = stretches(&deleted);
        let is_of_time = as_of.is_some() || put_by.is_some();
        if let (Some(info), Some(deleted)) = (info, &deleted) {
            let why = match as_of {
                Some(at) if info.timestamp == *at => {
                    format!("may have been the one of that time, if of the timestamp {at}")
                }
                Some(at) => {
                    let from = info.timestamp;
                    format!("may have been the one of that time, if of a timestamp from {from} to {at}")
                }
                None if is_of_time => "may have been the one of that time".to_string(),
                None => "not counted".to_string(),
            };
            stderr::line(&format!("this is version {number}; {deleted} deleted, and {why}"));
        }
        let asked_number = version.or(match (is_named, location.target) {
            (false, AliasTarget::Version(version)) => Some(version),
            _ => None,
        });
        let missing = || match snapshot.model_versions(&id) {
            Ok(all) if !all.is_empty() => {
                let newest = all.first().map_or(0, |newest| newest.info.version);
                let is_gone = asked_number.is_some_and(|number| (1..=newest).contains(&number));
                let asked = if is_gone { format!("{asked}: it was deleted") } else { asked };
                let deleted = deleted.filter(|_| is_of_time).map(|gone| format!(", and {gone} deleted"));
                let before = match is_of_time {
                    true => "if it was removed as a whole once, what it had before is not known any more; ",
                    false => "",
                };
                Failed::NotFound(format!(
                    "model {id} has no {asked}{}; {before}`ubctl model versions --id {id}` lists what there is",
                    deleted.unwrap_or_default()
                ))
            }
            _ => not_found(id),
        };
        found.ok_or_else(missing)
    }
}

/// Stretches of deleted versions that are told, the newest.
const TOLD_MAX: usize = 4;

/// "version 1 was", "versions 1, 3 to 4 were"; `None` where there is none.
fn stretches(deleted: &[RangeInclusive<u64>]) -> Option<String> {
    let newest = deleted.get(deleted.len().saturating_sub(TOLD_MAX)..).unwrap_or_default();
    let before = (newest.len() < deleted.len()).then(|| "some before".to_string());
    let all = newest.iter().map(|gone| match (gone.start(), gone.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first} to {last}"),
    });
    let all = before.into_iter().chain(all).collect::<Vec<_>>().join(", ");
    match deleted {
        [] => None,
        [one] if one.start() == one.end() => Some(format!("version {all} was")),
        _ => Some(format!("versions {all} were")),
    }
}

/// The versions of a model, which is there.
pub(crate) fn versions(snapshot: &Snapshot, id: ModelId) -> Result<Vec<VersionInfo>, Failed> {
    let versions = snapshot.model_versions(&id)?;
    if versions.is_empty() { Err(not_found(id)) } else { Ok(versions) }
}

pub(crate) fn list(db: &View, which: &Which, format: Format) -> Result<(), Failed> {
    list_versions(versions(&db.snapshot(), which.model()?)?, None, format)
}

fn list_versions(versions: Vec<VersionInfo>, note: Option<&str>, format: Format) -> Result<(), Failed> {
    let columns = ["version", "timestamp", "put", "seq", "bytes", "aliases", "pinned", "content"];
    let mut listing = Listing::begin(format, columns)?;
    for version in versions {
        let info = &version.info;
        listing.row([
            info.version.into(),
            Field::text(info.timestamp),
            Field::text(info.time),
            info.seq.into(),
            info.bytes.into(),
            Field::Texts(version.aliases.iter().map(|alias| alias.to_string()).collect()),
            Field::Bool(version.is_pinned),
            Field::text(info.content),
        ])?;
    }
    listing.end(note)
}

/// Changes something of a model and says when, and how many versions that let go of, as retention says.
fn change(
    db: &Database,
    id: ModelId,
    format: Format,
    fill: impl FnOnce(&mut Batch) -> Result<(), CommitError>,
) -> Result<(), Failed> {
    // Nobody else writes.
    let before = versions(&db.snapshot(), id)?.len();
    let mut batch = Batch::new();
    fill(&mut batch)?;
    let mut facts = Facts::default();
    facts.add("seq", db.commit(batch)?.seq);
    let deleted = before.saturating_sub(db.snapshot().model_versions(&id)?.len());
    if deleted > 0 {
        facts.add("deleted", deleted);
    }
    facts.print(format)
}

fn list_aliases(aliases: &[Alias], format: Format) -> Result<(), Failed> {
    let mut listing = Listing::begin(format, ["alias", "version", "seq", "time"])?;
    for alias in aliases {
        let version = alias.version.map_or(Field::Null, Field::from);
        listing.row([Field::text(&alias.name), version, alias.seq.into(), Field::text(alias.time)])?;
    }
    listing.end(None)
}

pub(crate) fn aliases(db: &View, which: &Which, name: Option<&str>, format: Format) -> Result<(), Failed> {
    let (snapshot, id) = (db.snapshot(), which.model()?);
    versions(&snapshot, id)?;
    let Some(name) = name else { return list_aliases(&snapshot.aliases(&id)?, format) };
    let history = snapshot.alias_history(&id, name)?;
    if history.is_empty() {
        return Err(Failed::NotFound(format!(
            "model {id} never had an alias {name:?}; `ubctl model alias` lists those that it has"
        )));
    }
    list_aliases(&history, format)
}

/// Which version an alias is to name: `newest`, a number, or `none`.
pub(crate) fn set_alias(
    db: &Database,
    which: &Which,
    name: &str,
    target: &str,
    expected: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    let id = which.model()?;
    // One that an older engine took can be taken away.
    if matches!(name, "newest" | "none") && target != "none" {
        return Err(Failed::Usage(format!("{name:?} says a version and is no alias; take another name")));
    }
    let number = |text: &str| -> Result<u64, Failed> {
        text.parse()
            .map_err(|_| Failed::Usage(format!("{text:?} is no version; give a number, newest or none")))
    };
    let expected = match expected {
        None => None,
        Some("none") => Some(None),
        Some(text) => {
            let wrong = || Failed::Usage(format!("{text:?} is no version; --expect takes a number or none"));
            Some(Some(text.parse().map_err(|_| wrong())?))
        }
    };
    let target = match target {
        "newest" => Some(AliasTarget::Newest),
        "none" => None,
        text => Some(number(text)?.into()),
    };
    let names = |alias: &Alias| *alias.name == *name && alias.version.is_some();
    versions(&db.snapshot(), id)?;
    if target.is_none() && expected.is_none() && !db.snapshot().aliases(&id)?.iter().any(names) {
        let what = format!("model {id} has no alias {name:?}; `ubctl model alias` lists those that it has");
        return Err(Failed::NotFound(what));
    }
    change(db, id, format, |batch| {
        match (target, expected) {
            (Some(target), Some(expected)) => batch.set_alias_if(&id, name, expected, target)?,
            (Some(target), None) => batch.set_alias(&id, name, target)?,
            (None, Some(expected)) => batch.remove_alias_if(&id, name, expected)?,
            (None, None) => batch.remove_alias(&id, name)?,
        };
        Ok(())
    })
}

pub(crate) fn pin(
    db: &Database,
    which: &Which,
    version: u64,
    is_pinned: bool,
    format: Format,
) -> Result<(), Failed> {
    let id = which.model()?;
    let all = versions(&db.snapshot(), id)?;
    if !is_pinned && !all.iter().any(|there| there.info.version == version && there.is_pinned) {
        let what =
            format!("version {version} of model {id} is not pinned; `ubctl model versions` shows which are");
        return Err(Failed::NotFound(what));
    }
    change(db, id, format, |batch| batch.pin_version(&id, version, is_pinned).map(drop))
}

/// Deletes one version.
pub(crate) fn remove(db: &Database, which: &Which, version: u64, format: Format) -> Result<(), Failed> {
    let id = which.model()?;
    change(db, id, format, |batch| batch.delete_model_version(&id, version).map(drop))
}

/// Which versions are to be kept; all where nothing is said.
#[derive(Clone, Copy)]
pub(crate) struct Keep {
    pub(crate) last: Option<u64>,
    pub(crate) age: Option<Duration>,
}

impl Keep {
    fn retention(self) -> Result<Retention, Failed> {
        let Keep { last, age } = self;
        if last == Some(0) {
            return Err(Failed::Usage("the newest version is kept in any case; say --last 1".to_string()));
        }
        if age == Some(Duration::ZERO) {
            return Err(Failed::Usage(
                "nothing is younger than that; say --last 1 for the newest alone".to_string(),
            ));
        }
        Ok(Retention { keep_last: last, max_age: age })
    }
}

pub(crate) fn keep(db: &Database, which: &Which, wanted: Keep, format: Format) -> Result<(), Failed> {
    let (id, retention) = (which.model()?, wanted.retention()?);
    let before = versions(&db.snapshot(), id)?.len();
    let retention = (retention != Retention::default()).then_some(retention);
    let mut batch = Batch::new();
    batch.set_retention(&id, retention)?;
    let seq = db.commit(batch)?.seq;
    // Nobody else writes.
    let kept = versions(&db.snapshot(), id)?.len();
    let mut facts = Facts::default();
    facts.add("seq", seq).add("kept", kept).add("deleted", before.saturating_sub(kept));
    facts.print(format)
}

/// Lists the versions that would be deleted; with nothing said, by what is to be kept at present.
pub(crate) fn would_delete(
    db: &Reader,
    which: &Which,
    wanted: Option<Keep>,
    format: Format,
) -> Result<(), Failed> {
    let (snapshot, id) = (db.snapshot(), which.model()?);
    let all = versions(&snapshot, id)?.len();
    let retention = match wanted {
        Some(wanted) => wanted.retention()?,
        None => snapshot.retention(&id)?.unwrap_or_default(),
    };
    // As a commit that comes now has it.
    let at = SystemClock.now().max(Timestamp(db.status()?.time.0.saturating_add(1)));
    let gone = snapshot.versions_outside(&id, retention, at)?;
    let (deleted, kept) = (gone.len(), all - gone.len());
    list_versions(gone, Some(&format!("these would go: versions {deleted}; kept would be {kept}")), format)
}

/// Shows which versions of a model are kept.
pub(crate) fn kept(db: &View, which: &Which, format: Format) -> Result<(), Failed> {
    let (snapshot, id) = (db.snapshot(), which.model()?);
    let versions = versions(&snapshot, id)?.len();
    let Retention { keep_last, max_age } = snapshot.retention(&id)?.unwrap_or_default();
    let age = max_age.map(duration_text);
    let keeps = match (keep_last, &age) {
        (None, None) => "all versions".to_string(),
        (Some(last), None) => format!("the newest {last}"),
        (None, Some(age)) => format!("those put within {age}"),
        (Some(last), Some(age)) => format!("those of the newest {last} that were put within {age}"),
    };
    let mut facts = Facts::default();
    facts.add("keeps", keeps).add("last", keep_last).add("age", age.map(Field::from));
    facts.add("versions", versions);
    facts.print(format)
}

pub(crate) fn annotate(
    db: &Database,
    which: &Which,
    version: Option<u64>,
    told: &[Told],
    format: Format,
) -> Result<(), Failed> {
    let (id, number) = which.about(&db.snapshot(), version)?;
    versions(&db.snapshot(), id)?;
    let there = db.snapshot().annotations(&id)?;
    let is_there = |name: &str| {
        there.iter().any(|note| note.version == number && *note.name == *name && note.value.is_some())
    };
    let mut taken_back = told.iter().filter_map(|told| match told {
        Told::Back(name) => Some(name),
        _ => None,
    });
    if let Some(name) = taken_back.find(|name| !is_there(name)) {
        let what = format!(
            "nothing is told under {name:?} that could be taken back; `ubctl model tag` lists what is"
        );
        return Err(Failed::NotFound(what));
    }
    let version = number.map(AliasTarget::Version);
    change(db, id, format, |batch| {
        for told in told {
            match told {
                Told::Set(name, value) => batch.annotate(&id, version, name, value.clone())?,
                Told::Back(name) => batch.remove_annotation(&id, version, name)?,
                Told::Looked(_) => batch,
            };
        }
        Ok(())
    })
}

/// What is told of a model.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// A value under a name.
    Set(String, MetaValue),
    /// It is taken back.
    Back(String),
    /// Nothing: it is asked for.
    Looked(String),
}

/// `NAME=VALUE`, `NAME=` to take it back, or `NAME`. VALUE is JSON, or text.
pub(crate) fn told(given: &str) -> Result<Told, String> {
    let Some((name, text)) = given.split_once('=') else { return Ok(Told::Looked(given.to_string())) };
    if text.is_empty() {
        return Ok(Told::Back(name.to_string()));
    }
    let read = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(_) => Metadata::from_json(&format!("{{\"v\":{text}}}"))
            .map_err(|error| error.to_string().replace("model metadata entry \"v\"", &format!("{name:?}")))?,
        Err(_) => Metadata::from_entries([("v".to_string(), text.into())].into()),
    };
    Ok(Told::Set(name.to_string(), read.entries().get("v").cloned().unwrap_or(MetaValue::Null)))
}

fn list_annotations(notes: impl Iterator<Item = Annotation>, format: Format) -> Result<(), Failed> {
    let mut listing = Listing::begin(format, ["version", "name", "value", "seq", "time"])?;
    for note in notes {
        let value =
            note.value.map(|value| Metadata::from_entries([("v".to_string(), value)].into()).to_json());
        // The dict around it is not shown.
        let shown = value.as_deref().and_then(|json| json.strip_prefix("{\"v\":")?.strip_suffix('}'));
        listing.row([
            note.version.map_or(Field::Null, Field::from),
            Field::text(&note.name),
            shown.map_or(Field::Null, Field::text),
            note.seq.into(),
            Field::text(note.time),
        ])?;
    }
    listing.end(None)
}

pub(crate) fn annotations(
    db: &View,
    which: &Which,
    version: Option<u64>,
    format: Format,
) -> Result<(), Failed> {
    let snapshot = db.snapshot();
    let (id, version) = which.about(&snapshot, version)?;
    versions(&snapshot, id)?;
    let notes = snapshot.annotations(&id)?.into_iter();
    list_annotations(notes.filter(|note| version.is_none() || note.version == version), format)
}

/// What was told under a name over time, of the model or of a version.
pub(crate) fn annotation_history(
    db: &View,
    which: &Which,
    version: Option<u64>,
    name: &str,
    format: Format,
) -> Result<(), Failed> {
    let snapshot = db.snapshot();
    let (id, version) = which.about(&snapshot, version)?;
    versions(&snapshot, id)?;
    let notes = snapshot.annotation_history(&id, version, name)?;
    if notes.is_empty() {
        let of = version.map_or("the model".to_string(), |version| format!("version {version}"));
        return Err(Failed::NotFound(format!(
            "nothing was told of {of} under {name:?}; `ubctl model tag` lists what was, and {name}=VALUE tells it"
        )));
    }
    list_annotations(notes.into_iter(), format)
}

/// Appends the cells from which producers made one, and what those were made from.
fn push_upstream(text: &mut String, indent: &str, found: &Lineage) {
    for node in &found.children {
        let key = node.key.as_ref().map_or_else(String::new, |key| format!(" {key}"));
        let generation = node.read.map_or_else(String::new, |read| format!(", generation {read}"));
        let by = node.producer.as_ref().map_or_else(String::new, |producer| format!(", by {producer}"));
        let line = format!("slot {} {}{key}{generation}{by}", node.slot, node.date);
        text.push_str(&format!("{indent}{}\n", printable(&line)));
        push_upstream(text, &format!("{indent}  "), node);
    }
    if found.more > 0 {
        text.push_str(&format!("{indent}… {} more\n", found.more));
    }
}

/// What a version was made from, as was told and as producers made it, and what that was made from.
pub(crate) fn why(db: &View, which: &Which, version: &WhichVersion, depth: usize) -> Result<(), Failed> {
    let snapshot = db.snapshot();
    let model = which.version(&snapshot, version)?;
    let (mut text, mut open) = (String::new(), vec![(0, model.info().id, model.info().version)]);
    let mut seen = BTreeSet::new();
    while let Some((level, id, number)) = open.pop() {
        let indent = "  ".repeat(level);
        if !seen.insert((id, number)) {
            text.push_str(&format!("{indent}model {id}@{number}, as above\n"));
            continue;
        }
        let mut is_made = false;
        match snapshot.model_version(&id, number) {
            // What it was made from is told all the same.
            Err(error) => text.push_str(&format!("{indent}model {id}@{number}, cannot be read: {error}\n")),
            Ok(Some(model)) => {
                let info = model.info();
                let kind = printable(info.metadata().model_type().unwrap_or("?")).to_string();
                text.push_str(&format!(
                    "{indent}model {kind} {id}@{number}, put {} (seq {})\n",
                    info.time, info.seq
                ));
                let extent = Extent { depth, ..Extent::default() };
                if let Some(upstream) = db.model_upstream(info, extent)? {
                    is_made = !upstream.children.is_empty();
                    push_upstream(&mut text, &format!("{indent}  "), &upstream);
                }
            }
            Ok(None) => text.push_str(&format!("{indent}model {id}@{number}, deleted\n")),
        }
        let Some(training) = snapshot.training(&id, number)? else {
            if is_made {
                continue;
            }
            text.push_str(&format!("{indent}  nobody told what it was made from\n"));
            continue;
        };
        for part in training.parts() {
            match part {
                TrainedOn::Series { series, from, to, seq } => {
                    let series = printable(series);
                    text.push_str(&format!(
                        "{indent}  series {series} from {from} to {to}, as of seq {seq}\n"
                    ));
                }
                TrainedOn::Slot { slot, date, key, generation } => {
                    let line = format!("slot {slot} {date} {key}, generation {generation}");
                    text.push_str(&format!("{indent}  {}\n", printable(&line)));
                }
                TrainedOn::Model { id, version } if level < depth => open.push((level + 1, *id, *version)),
                TrainedOn::Model { id, version } => {
                    text.push_str(&format!("{indent}  model {id}@{version}\n"));
                }
                _ => {}
            }
        }
    }
    crate::output::print(&text)
}

/// Files with blobs, and their lengths.
fn blob_files(dir: &Path) -> BTreeMap<PathBuf, u64> {
    // A folder or file that is not there, or any more, has nothing.
    let folders = ["chunks", "packs"].into_iter().filter_map(|folder| fs::read_dir(dir.join(folder)).ok());
    let files = folders.flatten().filter_map(Result::ok);
    files.filter_map(|file| Some((file.path(), file.metadata().ok()?.len()))).collect()
}

/// Deletes versions that are not to be kept, and gives their space back.
pub(crate) fn collect(dir: &Path, format: Format) -> Result<(), Failed> {
    // Opening frees what nothing needs any more, too.
    let there = blob_files(dir);
    let db = write(dir)?;
    let count = |db: &Database| -> Result<u64, Failed> {
        let snapshot = db.snapshot();
        let mut versions = 0;
        for info in snapshot.models() {
            versions += snapshot.model_versions(&info.id)?.len() as u64;
        }
        Ok(versions)
    };
    let before = count(&db)?;
    let mut batch = Batch::new();
    batch.collect_models();
    db.commit(batch)?;
    let left = count(&db)?;
    // What the manifest before names stays until the next.
    let (first, second) = (db.checkpoint()?, db.checkpoint()?);
    let written = first.bytes_written + second.bytes_written;
    let stay = blob_files(dir);
    let freed: u64 = there.iter().filter(|(file, _)| !stay.contains_key(*file)).map(|(_, bytes)| bytes).sum();
    let mut facts = Facts::default();
    facts.add("deleted", before - left).add("versions", left);
    facts.add("bytes_freed", freed).add("bytes_written", written);
    facts.print(format)?;
    let readers: BTreeSet<u32> = db.status().readers.into_iter().map(|(process, _)| process).collect();
    if !readers.is_empty() {
        let named: Vec<String> = readers.iter().map(u32::to_string).collect();
        stderr::line(&format!(
            "what processes that read have open stays until they end or move on, and goes with the next `ubctl model gc`: {}",
            named.join(", ")
        ));
    }
    second.damaged.iter().for_each(|damaged| stderr::line(damaged));
    match second.damaged.len() {
        0 => Ok(()),
        damages => Err(Failed::Damaged(damages)),
    }
}
