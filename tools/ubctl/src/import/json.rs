//! JSON lines: an object in each line, whose members are columns.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{BufRead, BufReader};

use indicatif::ProgressBar;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use underbelly::limits::NAME_BYTES_MAX;
use underbelly::{Column, ColumnType, Columns, LogicalType, LogicalTypes, Timestamp, Values};

use super::Known;
use super::cells::Cells;
use super::guess::{Kind, kind};
use super::plan::{NAN_KEY, Wishes};
use super::source::Source;
use super::typed::Chunks;
use crate::error::Failed;
use crate::progress;
use crate::time::{InstantReader, Notation};

/// Objects in each other.
const DOCUMENT_DEPTH_MAX: usize = 32;
/// What to do about a name that stands twice in an object.
const TWICE: &str = "the name stands there twice; leave one out";
/// Bytes of a line: more are no row.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// Bytes that are read at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Rows that are put together before they go on.
const BATCH_ROWS: usize = 1 << 16;

/// The columns of all files.
pub(super) struct Surveyed {
    columns: Vec<JsonColumn>,
    places: HashMap<String, usize>,
    /// How the time is written.
    time: Notation,
    /// What is said of its zone.
    time_type: Option<LogicalType>,
}

struct JsonColumn {
    name: String,
    key: bool,
    /// The first line that has it.
    place: String,
    logical: Option<LogicalType>,
    seen: Seen,
    /// The line that has it, counted over all files.
    last_line: u64,
}

/// What kinds of values a column has, each with its first place.
#[derive(Default)]
struct Seen {
    /// That of any value that is not null.
    first: Option<String>,
    bools: Option<String>,
    integers: Option<String>,
    /// Integers that an `f64` does not hold.
    inexact: Option<String>,
    decimals: Option<String>,
    /// `"NaN"`, `"inf"` and `"-inf"`.
    not_finite: Option<String>,
    /// `"NaN"` alone.
    nan: Option<String>,
    texts: Option<String>,
}

impl Seen {
    fn note(&mut self, value: &Scalar<'_>, place: impl Fn() -> String) {
        let slot = match value {
            Scalar::Null => return,
            Scalar::Bool(_) => &mut self.bools,
            Scalar::Number(text) => match kind(text) {
                Kind::Integer { exact: false } => {
                    self.inexact.get_or_insert_with(&place);
                    &mut self.integers
                }
                Kind::Integer { .. } => &mut self.integers,
                Kind::Decimal { .. } => &mut self.decimals,
                // A number that fits no type: as text it would not be a number any more.
                Kind::Text => {
                    self.inexact.get_or_insert_with(&place);
                    &mut self.decimals
                }
            },
            Scalar::Text(text) if matches!(&**text, "NaN" | "inf" | "-inf") => {
                if text == "NaN" {
                    self.nan.get_or_insert_with(&place);
                }
                &mut self.not_finite
            }
            Scalar::Text(_) => &mut self.texts,
        };
        slot.get_or_insert_with(&place);
        self.first.get_or_insert_with(place);
    }

    /// The type that holds all values; `None` where all are null.
    fn column_type(&self, name: &str) -> Result<Option<ColumnType>, Failed> {
        let Seen { bools, integers, inexact, decimals, not_finite, texts, .. } = self;
        let numbers = decimals.as_ref().or(integers.as_ref());
        let mixed = |a: &String, b: &String| {
            Err(Failed::Line {
                place: b.clone(),
                what: format!(
                    "column {name:?} has another kind of value than at {a}; say its type with --columns"
                ),
            })
        };
        Ok(Some(match (bools, numbers, texts) {
            (Some(a), Some(b), _) | (Some(a), None, Some(b)) | (None, Some(a), Some(b)) => {
                return mixed(a, b);
            }
            (Some(a), None, None) => match not_finite {
                Some(b) => return mixed(a, b),
                None => ColumnType::Bool,
            },
            (None, Some(_), None) => match (decimals.as_ref().or(not_finite.as_ref()), inexact) {
                (Some(_), Some(place)) => {
                    return Err(Failed::Line {
                        place: place.clone(),
                        what: format!(
                            "column {name:?} holds decimals, and a number here that f64 does not hold; say its type with --columns"
                        ),
                    });
                }
                (Some(_), None) => ColumnType::F64,
                (None, _) => ColumnType::I64,
            },
            (None, None, Some(_)) => ColumnType::Utf8,
            (None, None, None) => match not_finite {
                Some(_) => ColumnType::F64,
                None => return Ok(None),
            },
        }))
    }
}

impl Surveyed {
    /// Refuses a column that is a value in one line and an object in another, before anything is committed.
    fn check_paths<'a>(&'a self, wishes: &'a Wishes) -> Result<(), Failed> {
        let stored = || {
            let stored = self.columns.iter().filter(|column| column.logical.is_some());
            let place = |column: &'a JsonColumn| column.seen.first.as_ref().unwrap_or(&column.place);
            stored.map(move |column| (wishes.stored(&column.name), place(column)))
        };
        let places: HashMap<&str, &String> = stored().collect();
        for (name, place) in stored() {
            let mut wholes = name.match_indices('.').filter_map(|(at, _)| name.get(..at));
            if let Some((whole, first)) = wholes.find_map(|whole| places.get_key_value(whole)) {
                let what = format!(
                    "column {whole:?} is an object with {name:?} here and a value at {first}; rename one with --rename"
                );
                return Err(Failed::Line { place: place.clone(), what });
            }
        }
        Ok(())
    }

    /// What the columns hold, where that is not what is stored, by their names in the files.
    fn types(&self, wishes: &Wishes) -> LogicalTypes {
        let mut types = LogicalTypes::new();
        self.time_type.iter().for_each(|zoned| types.insert(wishes.time.as_str(), zoned.clone()));
        for column in &self.columns {
            column.logical.iter().for_each(|logical| types.insert(column.name.as_str(), logical.clone()));
        }
        types
    }

    /// What people should know about the columns.
    pub(super) fn remarks(&self) -> Vec<String> {
        // An object that is null in some lines has columns all the same.
        let is_object = |name: &str| {
            let inner =
                |other: &JsonColumn| other.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
            self.columns.iter().any(inner)
        };
        let nothing =
            self.columns.iter().filter(|column| column.logical.is_none() && !is_object(&column.name));
        let remark = |column: &JsonColumn| {
            let name = &column.name;
            format!(
                "column {name:?} has no value and is not stored; give its type with --columns to store it"
            )
        };
        nothing.map(remark).collect()
    }
}

/// A value of a member.
enum Scalar<'a> {
    Null,
    Bool(&'a str),
    Number(&'a str),
    Text(Cow<'a, str>),
}

impl<'a> Scalar<'a> {
    fn of(raw: &'a RawValue) -> Result<Scalar<'a>, String> {
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'n') => Ok(Scalar::Null),
            Some(b't' | b'f') => Ok(Scalar::Bool(text)),
            Some(b'"') => match text.get(1..text.len() - 1).filter(|inner| !inner.contains('\\')) {
                Some(plain) => Ok(Scalar::Text(Cow::Borrowed(plain))),
                None => serde_json::from_str::<String>(text)
                    .map(|text| Scalar::Text(text.into()))
                    .map_err(|error| error.to_string()),
            },
            Some(b'[') => {
                Err("is a list, of which there is no column; give each of its values a name".to_string())
            }
            // Its members were taken out of it.
            Some(b'{') => Err("is an object".to_string()),
            _ => Ok(Scalar::Number(text)),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Scalar::Null => None,
            Scalar::Bool(text) | Scalar::Number(text) => Some(text),
            Scalar::Text(text) => Some(text),
        }
    }
}

/// The members of an object, as they stand there.
struct Members<'a>(Vec<(Name<'a>, &'a RawValue)>);

impl Members<'_> {
    /// A name that stands there twice, where one of the members is an object. Two plain values meet in their column.
    fn twice(&self) -> Option<&str> {
        let mut seen = HashSet::new();
        let has_objects = self.0.iter().any(|(_, raw)| is_object(raw));
        let mut names = self.0.iter().filter(|_| has_objects).map(|(Name(name), _)| &**name);
        names.find(|name| !seen.insert(*name))
    }
}

struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_string())))
            }
        }
        deserializer.deserialize_str(Texts)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Objects;
        impl<'de> Visitor<'de> for Objects {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Objects)
    }
}

/// A member of an object, or of one in it by its path.
type Leaf<'a> = (Cow<'a, str>, &'a RawValue);

/// The members of an object, those of objects in it by their paths. A name with a dot would come back as a path.
fn leaves<'a>(members: Members<'a>, wishes: &Wishes) -> Result<Vec<Leaf<'a>>, (String, String)> {
    let mut leaves = Vec::with_capacity(members.0.len());
    if let Some(twice) = members.twice() {
        return Err((twice.to_string(), TWICE.to_string()));
    }
    for (Name(name), raw) in members.0 {
        let is_renamed = || wishes.renames.iter().any(|(old, _)| **old == *name);
        if name.contains('.') && !is_renamed() {
            let what = "the name has a dot, as if it were a path, and would not come back; give it another with --rename";
            return Err((name.into_owned(), what.to_string()));
        }
        match is_object(raw) {
            true => inner_leaves(&name, raw, 1, wishes, &mut leaves)?,
            false => leaves.push((name, raw)),
        }
    }
    Ok(leaves)
}

fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

fn inner_leaves<'a>(
    path: &str,
    raw: &'a RawValue,
    depth: usize,
    wishes: &Wishes,
    leaves: &mut Vec<Leaf<'a>>,
) -> Result<(), (String, String)> {
    let refused = |path: &str, what: &str| Err((path.to_string(), what.to_string()));
    if depth > DOCUMENT_DEPTH_MAX {
        return refused(path, &format!("is nested more than {DOCUMENT_DEPTH_MAX} levels deep; flatten it"));
    }
    let members: Members<'a> =
        serde_json::from_str(raw.get()).map_err(|error| (path.to_string(), error.to_string()))?;
    if members.0.is_empty() {
        return refused(path, "is an empty object, of which no column would tell; leave it out");
    }
    if let Some(twice) = members.twice() {
        return refused(&format!("{path}.{twice}"), TWICE);
    }
    for (Name(name), raw) in members.0 {
        // Each value would have a copy of what may be a large part of the line.
        if path.len() + 1 + name.len() > NAME_BYTES_MAX && !is_named(path, &name, raw, wishes) {
            let begin: String = path.chars().take(40).collect();
            let what = format!(
                "a path that begins so is longer than {NAME_BYTES_MAX} bytes; give it another name with --rename, or shorten those in the file"
            );
            return refused(&begin, &what);
        }
        let here = format!("{path}.{name}");
        if name.is_empty() || name.contains('.') {
            return refused(&here, "the last name is empty or has a dot, and would not come back; rename it");
        }
        match is_object(raw) {
            true => inner_leaves(&here, raw, depth + 1, wishes, leaves)?,
            false => leaves.push((here.into(), raw)),
        }
    }
    Ok(())
}

/// Whether an option names the path of a value, or that of one within an object.
fn is_named(path: &str, name: &str, raw: &RawValue, wishes: &Wishes) -> bool {
    let mut named = wishes.renames.iter().map(|(old, _)| old).chain([&wishes.time]);
    named.any(|named| {
        let rest = named.strip_prefix(path).and_then(|rest| rest.strip_prefix('.')?.strip_prefix(name));
        rest.is_some_and(|rest| rest.is_empty() || is_object(raw) && rest.starts_with('.'))
    })
}

/// Goes through the lines of a file.
fn each_line(
    source: &Source,
    wishes: &Wishes,
    bar: &ProgressBar,
    mut line: impl FnMut(&[Leaf<'_>], &dyn Fn() -> String) -> Result<bool, Failed>,
) -> Result<(), Failed> {
    let path = source.path();
    let failed = |error| Failed::file("read", path, error);
    let mut input = BufReader::with_capacity(BUFFER_BYTES, source.bytes_of(bar)?);
    let mut bytes = Vec::new();
    for number in 1u64.. {
        bytes.clear();
        let mut limited = std::io::Read::take(&mut input, LINE_BYTES_MAX + 1);
        if limited.read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
            break;
        }
        let place = || format!("{}:{number}", path.display());
        let wrong = |what: String| Failed::Line { place: place(), what };
        if bytes.len() as u64 > LINE_BYTES_MAX {
            return Err(wrong(format!("the line is longer than {LINE_BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("the line is not UTF-8".to_string()))?;
        if text.trim().is_empty() {
            continue;
        }
        let members = serde_json::from_str(text);
        let members = members.map_err(|error| wrong(format!("the line is no JSON object: {error}")))?;
        let leaves = leaves(members, wishes).map_err(|(name, what)| at(&place, &name, what))?;
        if !line(&leaves, &place)? {
            break;
        }
    }
    Ok(())
}

fn at(place: &dyn Fn() -> String, name: &str, what: impl fmt::Display) -> Failed {
    Failed::Line { place: format!("{}: column {name:?}", place()), what: what.to_string() }
}

/// Looks at every line of all files, and finds the types that hold all values.
pub(super) fn survey(sources: &[Source], wishes: &Wishes, known: Option<&Known>) -> Result<Surveyed, Failed> {
    let given = |name: &str| wishes.given(name, known);
    let (time, time_type) = (wishes.time_notation(known), given(&wishes.time));
    let mut surveyed = Surveyed { columns: Vec::new(), places: HashMap::new(), time, time_type };
    let held = |name: &str| known?.column(wishes.stored(name)).map(|(_, logical)| logical);
    // What widens a field is the engine's to say.
    let fixed =
        |name: &str| given(name).or_else(|| held(name).filter(|held| *held != ColumnType::I64.into()));
    let mut line = 0;
    for source in sources {
        let bar = progress::bytes(source.bytes(), format!("checking {}", source.path().display()));
        let mut instants = InstantReader::new(surveyed.time.clone());
        // Of columns whose types are fixed: each value is tried as it is going to be read.
        let scratch = |name: &str| {
            let logical = fixed(name)?;
            let read = InstantReader::new(wishes.notation_of(name, &logical));
            Some(Cells::new(&logical, read))
        };
        let mut tried: Vec<Option<Cells>> =
            surveyed.columns.iter().map(|column| scratch(&column.name)).collect();
        each_line(source, wishes, &bar, |members, place| {
            line += 1;
            let mut time = None;
            for (name, raw) in members {
                let twice = || at(place, name, TWICE);
                let value = Scalar::of(raw).map_err(|what| at(place, name, what))?;
                if **name == *wishes.time {
                    if time.is_some() {
                        return Err(twice());
                    }
                    time = Some(value.text().map(|text| instants.read(text).map(|_| ())));
                    continue;
                }
                let found = surveyed.places.get(&**name).copied();
                let found = found.unwrap_or_else(|| {
                    let key = wishes.keys.iter().any(|key| **key == **name);
                    let name = name.to_string();
                    tried.push(scratch(&name));
                    surveyed.places.insert(name.clone(), surveyed.columns.len());
                    let (place, seen) = (place(), Seen::default());
                    surveyed.columns.push(JsonColumn { name, key, place, logical: None, seen, last_line: 0 });
                    surveyed.columns.len() - 1
                });
                let Some(column) = surveyed.columns.get_mut(found) else { continue };
                if std::mem::replace(&mut column.last_line, line) == line {
                    return Err(twice());
                }
                column.seen.note(&value, || format!("{}: column {name:?}", place()));
                if let (Some(Some(cells)), Some(text)) = (tried.get_mut(found), value.text()) {
                    cells.push(text.as_bytes()).map_err(|what| at(place, name, what))?;
                    if column.key && cells.ends_with_nan() {
                        return Err(at(place, name, NAN_KEY));
                    }
                    cells.truncate(0);
                }
            }
            let read = time.flatten();
            let read =
                read.ok_or_else(|| at(place, &wishes.time, "the time is missing; give every line one"))?;
            read.map_err(|what| at(place, &wishes.time, what))?;
            Ok(true)
        })?;
        bar.finish_and_clear();
    }
    let named = wishes.keys.iter().chain(wishes.types.iter().map(|(name, _)| name));
    for name in named.filter(|name| **name != wishes.time) {
        if !surveyed.places.contains_key(name) {
            return Err(Failed::Usage(format!("no line has the column {name:?}; correct its name")));
        }
    }
    for column in &mut surveyed.columns {
        let (name, seen) = (&column.name, &column.seen);
        let is_float = |found: &LogicalType| matches!(found.stored(), ColumnType::F64 | ColumnType::F32);
        let found = match fixed(name) {
            Some(fixed) => Some(fixed),
            None => seen.column_type(name)?.map(LogicalType::Plain),
        };
        if let (None, Some(float), Some(place)) = (given(name), found.clone().filter(is_float), &seen.inexact)
        {
            let what = format!("{float} does not hold the number here; say its type with --columns");
            return Err(Failed::Line { place: place.clone(), what });
        }
        if let (true, Some(ColumnType::F64), Some(place)) =
            (column.key, found.as_ref().map(LogicalType::stored), &seen.nan)
        {
            return Err(Failed::Line { place: place.clone(), what: NAN_KEY.to_string() });
        }
        column.logical = found;
    }
    surveyed.check_paths(wishes)?;
    Ok(surveyed)
}

/// Reads the rows of a file.
pub(super) fn load(
    source: &Source,
    surveyed: &Surveyed,
    wishes: &Wishes,
    bar: &ProgressBar,
    chunks: &mut Chunks<'_>,
) -> Result<(), Failed> {
    let (mut instants, types) = (InstantReader::new(surveyed.time.clone()), surveyed.types(wishes));
    let cells = |column: &JsonColumn| {
        let read = |logical| InstantReader::new(wishes.notation_of(&column.name, logical));
        column.logical.as_ref().map(|logical| Cells::new(logical, read(logical)))
    };
    let mut filling: Vec<Option<Cells>> = surveyed.columns.iter().map(cells).collect();
    let mut times: Vec<i64> = Vec::new();
    each_line(source, wishes, bar, |members, place| {
        let mut time = None;
        for (order, (name, raw)) in members.iter().enumerate() {
            let value = Scalar::of(raw).map_err(|what| at(place, name, what))?;
            if **name == *wishes.time {
                let text = value.text().unwrap_or_default();
                let read = instants.read(text).map_err(|what| at(place, name, what))?;
                if time.replace(read).is_some() {
                    return Err(at(place, name, TWICE));
                }
                continue;
            }
            // Members mostly stand in the same order, the time among them.
            let near = [order, order.wrapping_sub(1)];
            let named = |at: &&usize| surveyed.columns.get(**at).is_some_and(|c| *c.name == **name);
            let found = near.iter().find(named).or_else(|| surveyed.places.get(&**name));
            let column = found.and_then(|at| Some((surveyed.columns.get(*at)?, filling.get_mut(*at)?)));
            let Some((column, Some(cells))) = column else { continue };
            if cells.len() != times.len() {
                return Err(at(place, name, TWICE));
            }
            match value.text() {
                None => cells.push_null(),
                Some(text) => cells.push(text.as_bytes()).map_err(|what| at(place, name, what))?,
            }
            if column.key && cells.ends_with_nan() {
                return Err(at(place, name, NAN_KEY));
            }
        }
        let time: Timestamp = time.ok_or_else(|| at(place, &wishes.time, "the time is missing"))?;
        times.push(time.0);
        for cells in filling.iter_mut().flatten() {
            if cells.len() < times.len() {
                cells.push_null();
            }
        }
        match times.len() < BATCH_ROWS {
            true => Ok(true),
            false => chunks.add(source.path(), taken(surveyed, wishes, &mut times, &mut filling)?, &types),
        }
    })?;
    if !times.is_empty() {
        chunks.add(source.path(), taken(surveyed, wishes, &mut times, &mut filling)?, &types)?;
    }
    Ok(())
}

/// The rows so far.
fn taken(
    surveyed: &Surveyed,
    wishes: &Wishes,
    times: &mut Vec<i64>,
    filling: &mut [Option<Cells>],
) -> Result<Columns, Failed> {
    let broken = |name: &str| {
        Failed::Usage(format!("column {name:?} did not come together; please report this fault"))
    };
    let times = Column::from_parts(Values::Timestamp(std::mem::take(times)), None);
    let mut rows = Columns::new();
    rows.insert(wishes.time.as_str(), times.ok_or_else(|| broken(&wishes.time))?)?;
    for (column, cells) in surveyed.columns.iter().zip(filling) {
        if let Some(cells) = cells {
            rows.insert(column.name.as_str(), cells.take().ok_or_else(|| broken(&column.name))?)?;
        }
    }
    Ok(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What the first reading says, before which nothing is committed.
    fn surveyed(lines: &str) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        std::fs::write(&path, lines).unwrap();
        let wishes = Wishes {
            time: "t".to_string(),
            notation: Notation::default(),
            keys: vec!["k".to_string()],
            types: vec![("d".to_string(), ColumnType::Date.into())],
            renames: Vec::new(),
            nulls: Vec::new(),
            keep_empty: false,
        };
        let sources = [Source::new(&path, b',').unwrap()];
        survey(&sources, &wishes, None).map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_that_cannot_be_loaded_are_found_when_they_are_checked() {
        let good = "{\"t\":0,\"k\":1.5,\"d\":\"2014-06-02\",\"x\":1}\n";
        assert_eq!(surveyed(&good.repeat(2)), Ok(()));
        for (bad, what) in [
            ("{\"t\":1,\"k\":2.5,\"d\":\"today\"}", "x.jsonl:2: column \"d\": \"today\" is no date"),
            ("{\"t\":1,\"x\":1,\"x\":2}", "x.jsonl:2: column \"x\": the name stands there twice"),
            ("{\"t\":1,\"x\":1,\"t\":1}", "x.jsonl:2: column \"t\": the name stands there twice"),
            ("{\"t\":1,\"k\":\"NaN\"}", "x.jsonl:2: column \"k\": "),
            ("{\"t\":1,\"k\":9007199254740993}", "x.jsonl:2: column \"k\": "),
        ] {
            let said = surveyed(&format!("{good}{bad}\n{good}")).unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }
}
