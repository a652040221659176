//! Which columns of the files become which columns of the series.

use underbelly::{ColumnType, LogicalType, LogicalTypes};

use super::Known;

use super::cells::Cells;
use super::guess::{Guess, Kind, kind};
use super::source::{Lines, Problem};
use crate::error::Failed;
use crate::time::{InstantReader, Notation, Unit};

/// What a column may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// What fits all its values.
    Anything,
    /// Numbers, and the narrowest type of them.
    Number,
    /// Values of one type.
    Only(LogicalType),
}

/// A column of the series.
#[derive(Debug)]
struct PlanColumn {
    name: String,
    key: bool,
    wanted: Wanted,
    guess: Guess,
}

/// What the user says about the columns. All names are those of the header.
#[derive(Debug)]
pub(super) struct Wishes {
    /// The column of the time.
    pub(super) time: String,
    /// How it is written; its unit is that of its name unless one is given.
    pub(super) notation: Notation,
    /// Key columns.
    pub(super) keys: Vec<String>,
    /// Types that were given.
    pub(super) types: Vec<(String, LogicalType)>,
    /// Old and new names.
    pub(super) renames: Vec<(String, String)>,
    /// Texts that stand for null, besides the empty one.
    pub(super) nulls: Vec<String>,
    /// Whether the empty text is one, and no null.
    pub(super) keep_empty: bool,
}

impl Wishes {
    fn is_null(&self, text: &[u8]) -> bool {
        (text.is_empty() && !self.keep_empty) || self.nulls.iter().any(|null| null.as_bytes() == text)
    }

    /// The name that a column gets in the series; the time is its `timestamp`.
    pub(super) fn stored<'a>(&'a self, name: &'a str) -> &'a str {
        match name == self.time {
            true => "timestamp",
            false => self.renames.iter().find(|(old, _)| old == name).map_or(name, |(_, new)| new),
        }
    }

    /// What a column is said to hold. Instants without a zone are of that which the series has for them.
    pub(super) fn given(&self, name: &str, known: Option<&Known>) -> Option<LogicalType> {
        let (_, given) = self.types.iter().find(|(of, _)| of == name)?;
        let held = known.and_then(|known| known.column(self.stored(name)));
        let held = held.map(|(_, held)| held).filter(|held| held.takes(given));
        Some(held.unwrap_or_else(|| given.clone()))
    }

    /// Refuses options that would make the time something else.
    pub(super) fn check_time(&self) -> Result<(), Failed> {
        let time = &self.time;
        if self.keys.contains(time) {
            return Err(Failed::Usage(format!(
                "column {time:?} is the time; it cannot be a key too, leave it out of --key"
            )));
        }
        let given = self.types.iter().find(|(of, _)| of == time).map(|(_, given)| given);
        match given.filter(|given| given.stored() != ColumnType::Timestamp) {
            None => Ok(()),
            Some(other) => Err(Failed::Usage(format!(
                "--columns: column {time:?} is the time and cannot be {other}; write {time}:timestamp[ZONE] for its zone, or leave it out"
            ))),
        }
    }

    /// How the time column of a series is written: in what its name says, and in the zone that the series names, unless something
    /// else is said.
    pub(super) fn time_notation(&self, known: Option<&Known>) -> Notation {
        let unit = self.notation.unit.or_else(|| Unit::of_name(&self.time));
        let held = || known?.column("timestamp").map(|(_, held)| held);
        let held = self.given(&self.time, known).or_else(held);
        let column_zone = held.and_then(|held| held.zone().map(str::to_string));
        Notation { unit: unit.filter(|_| self.notation.form.is_none()), column_zone, ..self.notation.clone() }
    }

    /// How a timestamp column that is not the time is written.
    pub(super) fn notation_of(&self, name: &str, logical: &LogicalType) -> Notation {
        let column_zone = logical.zone().map(str::to_string);
        Notation { unit: Unit::of_name(name), zone: self.notation.zone.clone(), column_zone, form: None }
    }
}

/// All columns of all files.
#[derive(Debug)]
pub(super) struct Plan {
    wishes: Wishes,
    known: Option<Known>,
    columns: Vec<PlanColumn>,
}

/// Where one file has the time and the columns.
#[derive(Debug)]
pub(super) struct Layout {
    time: usize,
    instants: InstantReader,
    /// Position in the line, position in the plan.
    fields: Vec<(usize, usize)>,
}

/// Columns that are being filled, in order of the plan; none where the column is not stored.
pub(super) type Filling = Vec<Option<Cells>>;

impl Plan {
    /// A plan for a series with these columns, if it is there already.
    pub(super) fn new(wishes: Wishes, known: Option<Known>) -> Plan {
        Plan { wishes, known, columns: Vec::new() }
    }

    /// Finds the columns of a file, and takes those into the plan that are new.
    pub(super) fn layout(&mut self, lines: &Lines, path: &std::path::Path) -> Result<Layout, Failed> {
        let names = lines.names();
        let find = |option: &str, name: &str| {
            names.iter().position(|known| known == name).ok_or_else(|| {
                let names = names.join(", ");
                Failed::input(path, format!("{option} names column {name:?}, and there are: {names}"))
            })
        };
        let wishes = &self.wishes;
        let time = find("--time", &wishes.time)?;
        wishes.keys.iter().try_for_each(|key| find("--key", key).map(|_| ()))?;
        wishes.types.iter().try_for_each(|(name, _)| find("--columns", name).map(|_| ()))?;
        wishes.renames.iter().try_for_each(|(name, _)| find("--rename", name).map(|_| ()))?;
        let notation = wishes.time_notation(self.known.as_ref());
        let mut fields = Vec::new();
        for (field, name) in names.iter().enumerate().filter(|(field, _)| *field != time) {
            fields.push((field, self.column(name)));
        }
        let mut stored: Vec<&str> = fields
            .iter()
            .filter_map(|(_, column)| self.columns.get(*column).map(|column| column.name.as_str()))
            .collect();
        stored.sort_unstable();
        if let Some([twice, ..]) = stored.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(Failed::Usage(format!("--rename gives two columns the name {twice:?}; use another")));
        }
        Ok(Layout { time, instants: InstantReader::new(notation), fields })
    }

    /// The position of a column in the plan, which gets it if it is new.
    fn column(&mut self, name: &str) -> usize {
        let stored = self.wishes.stored(name);
        if let Some(at) = self.columns.iter().position(|column| column.name == stored) {
            return at;
        }
        let key = self.wishes.keys.iter().any(|key| key == name);
        let given = self.wishes.given(name, self.known.as_ref());
        let known = self.known.as_ref().and_then(|known| known.column(stored));
        let wanted = match (given, known) {
            (Some(given), _) => Wanted::Only(given),
            (None, None) => Wanted::Anything,
            // Fields of integers become decimals where they have to, keys do not.
            (None, Some((false, LogicalType::Plain(ColumnType::I64)))) => Wanted::Number,
            (None, Some((_, known))) => Wanted::Only(known),
        };
        self.columns.push(PlanColumn { name: stored.to_string(), key, wanted, guess: Guess::default() });
        self.columns.len() - 1
    }

    /// The type of a column; `None` where no value has been seen that decides one.
    fn column_type(&self, column: &PlanColumn) -> Option<LogicalType> {
        match &column.wanted {
            Wanted::Only(only) => Some(only.clone()),
            Wanted::Anything | Wanted::Number => column.guess.column_type().map(LogicalType::Plain),
        }
    }

    /// Empty cells for the columns of one type; for the others too once `guessed`.
    pub(super) fn filling(&self, guessed: bool) -> Filling {
        let cells = |column: &PlanColumn| {
            let fixed = guessed || matches!(column.wanted, Wanted::Only(_));
            let column_type = fixed.then(|| self.column_type(column)).flatten()?;
            Some(Cells::new(
                &column_type,
                InstantReader::new(self.wishes.notation_of(&column.name, &column_type)),
            ))
        };
        self.columns.iter().map(cells).collect()
    }

    /// Checks a line and takes note of what its values are.
    pub(super) fn survey(
        &mut self,
        lines: &Lines,
        layout: &mut Layout,
        scratch: &mut Filling,
        kinds: &mut Vec<(usize, usize, Kind)>,
    ) -> Result<(), Problem> {
        lines.check_width()?;
        self.instant(lines, layout)?;
        kinds.clear();
        for (field, at) in &layout.fields {
            let text = lines.record().get(*field).unwrap_or_default();
            let Some(column) = self.columns.get(*at) else { continue };
            if self.wishes.is_null(text) {
                continue;
            }
            if let Some(cells) = scratch.get_mut(*at).and_then(Option::as_mut) {
                let pushed = push(cells, text, *field, column.key);
                cells.truncate(0);
                pushed?;
                continue;
            }
            let text = std::str::from_utf8(text)
                .map_err(|_| Problem::field(*field, "the text is not UTF-8; convert the file"))?;
            let kind = kind(text);
            if kind == Kind::Text && column.wanted == Wanted::Number {
                let what = format!(
                    "{text:?} is no number, as this column of the series holds; correct it or name it in --null"
                );
                return Err(Problem::field(*field, what));
            }
            kinds.push((*field, *at, kind));
        }
        for (field, at, kind) in kinds.iter() {
            let text = lines.record().get(*field).and_then(|text| std::str::from_utf8(text).ok());
            if let Some(column) = self.columns.get_mut(*at) {
                column.guess.note(*kind, text.unwrap_or_default(), || lines.place(Some(*field)));
            }
        }
        Ok(())
    }

    /// Reads a line: its time, and its values at the end of `filling`, which has `rows` rows before and after an
    /// error.
    pub(super) fn fill(
        &self,
        lines: &Lines,
        layout: &mut Layout,
        filling: &mut Filling,
        rows: usize,
    ) -> Result<i64, Problem> {
        lines.check_width()?;
        let instant = self.instant(lines, layout)?;
        let mut fill = || {
            for (field, at) in &layout.fields {
                let Some(cells) = filling.get_mut(*at).and_then(Option::as_mut) else { continue };
                let text = lines.record().get(*field).unwrap_or_default();
                if self.wishes.is_null(text) {
                    cells.push_null();
                } else {
                    push(cells, text, *field, self.columns.get(*at).is_some_and(|column| column.key))?;
                }
            }
            Ok(())
        };
        let filled = fill();
        if filled.is_err() {
            filling.iter_mut().flatten().for_each(|cells| cells.truncate(rows));
        }
        filled.map(|()| instant)
    }

    /// Columns of the plan that a file does not have.
    pub(super) fn absent(&self, layout: &Layout) -> Vec<usize> {
        (0..self.columns.len()).filter(|at| !layout.fields.iter().any(|(_, column)| column == at)).collect()
    }

    fn instant(&self, lines: &Lines, layout: &mut Layout) -> Result<i64, Problem> {
        let text = lines.record().get(layout.time).unwrap_or_default();
        let problem = |what| Problem::field(layout.time, what);
        if self.wishes.is_null(text) {
            return Err(problem("the time is empty; give every line one".to_string()));
        }
        let text = std::str::from_utf8(text).map_err(|_| problem("the time is not UTF-8".to_string()))?;
        let instant = layout.instants.read(text).map_err(|what| problem(what.into_owned()))?;
        Ok(instant.0)
    }

    /// A key of numbers that has a NaN somewhere, with the place.
    pub(super) fn nan_key(&self) -> Option<(&str, &str)> {
        let is_float = |column: &&PlanColumn| {
            let stored = self.column_type(column).map(|logical| logical.stored());
            matches!(stored, Some(ColumnType::F64 | ColumnType::F32))
        };
        let mut keys = self.columns.iter().filter(|column| column.key).filter(is_float);
        keys.find_map(|column| Some((column.name.as_str(), column.guess.nan.as_deref()?)))
    }

    /// Names and roles of the columns, in the order of a [`Filling`].
    pub(super) fn names(&self) -> Vec<(&str, bool)> {
        self.columns.iter().map(|column| (column.name.as_str(), column.key)).collect()
    }

    /// What the columns hold, where that is not what is stored.
    pub(super) fn types(&self) -> LogicalTypes {
        let mut types = LogicalTypes::new();
        let time = self.wishes.given(&self.wishes.time, self.known.as_ref());
        time.into_iter().for_each(|logical| types.insert("timestamp", logical));
        for column in &self.columns {
            let logical = self.column_type(column);
            logical.into_iter().for_each(|logical| types.insert(column.name.as_str(), logical));
        }
        types
    }

    /// The columns that are stored with their types, for people.
    pub(super) fn stored(&self) -> String {
        let stored = |column: &PlanColumn| {
            let key = if column.key { " key" } else { "" };
            Some(format!("{} {}{key}", column.name, self.column_type(column)?))
        };
        self.columns.iter().filter_map(stored).collect::<Vec<_>>().join(", ")
    }

    /// What people should know about the columns.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for column in &self.columns {
            let name = &column.name;
            if self.column_type(column).is_none() {
                remarks.push(format!(
                    "column {name:?} has no value and is not stored; give its type with --columns to store it"
                ));
            } else if column.wanted == Wanted::Anything
                && let Some(why) = column.guess.remark()
            {
                remarks
                    .push(format!("column {name:?}: {why}; if it should not be, see --columns and --null"));
            }
        }
        remarks
    }
}

fn push(cells: &mut Cells, text: &[u8], field: usize, key: bool) -> Result<(), Problem> {
    cells.push(text).map_err(|what| Problem::field(field, what))?;
    if key && cells.ends_with_nan() {
        return Err(Problem::field(field, NAN_KEY));
    }
    Ok(())
}

/// What to do about a NaN in a key.
pub(super) const NAN_KEY: &str = "the key is NaN, which equals no key; correct it or name it in --null";
