//! `ubctl import`: rows of files into a series.
//!
//! A file of text is read twice. The first time every line is checked and the types are found that lose nothing, so
//! that a bad line ends the import before anything is committed; the second time the rows are committed. Arrow and Parquet have
//! types, and are read once.

mod cells;
mod guess;
mod json;
mod load;
#[cfg(feature = "parquet")]
mod parquet;
mod plan;
mod quotes;
mod rejected;
mod source;
mod typed;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use underbelly::{ColumnType, CommitError, Database, LogicalType, LogicalTypes, ReadError, Schema};

pub(crate) use cells::{Cells, parse_bool};
use load::load;
use plan::{Layout, Plan, Wishes};
use rejected::Rejected;
pub(crate) use source::{Lines, Problem, Source};

use crate::error::Failed;
use crate::form::Form;
use crate::output::{Facts, Field, FormatArg};
use crate::time::{Notation, Unit, parse_zone};
use crate::{progress, stderr};

/// Loads rows from files of CSV, JSON lines, Arrow or Parquet into a series
///
/// CSV and JSON lines may be gzip'd. The first line of CSV names its columns; a leading `#` is left out. Text is read twice: first every
/// line is checked and each column gets the narrowest of i64, f64 and utf8 (in JSON bool, too) that holds all its values without loss, then
/// the rows are committed in transactions of 1,048,576. So a bad line is reported before anything is committed; if
/// the disk fails later, the error says how many rows were committed. Rows with equal times keep their order.
///
/// Errors name file:line:column, where the column counts fields from 1. A quote that is never closed, or text behind
/// a closing quote, ends the import even with --on-error skip, since it is unknown where lines end then.
///
/// Arrow files and streams, and Parquet files, hold their types and are read once: damage that is found on the way ends the import with
/// how many rows were committed before it.
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// Files, in the order in which their rows arrive
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The series' type
    #[arg(long, value_name = "TYPE")]
    series: String,
    /// The column that holds the time
    #[arg(long, value_name = "COL")]
    time: String,
    /// What numbers in the time column count; otherwise what the end of its name says (_ns, _us, _ms), else seconds
    ///
    /// Without a unit, eight digits are a day (20140602) if the first time in the file is one.
    #[arg(long, value_enum)]
    unit: Option<Unit>,
    /// The zone of local times without an offset, such as America/New_York; otherwise that of the column, or UTC
    #[arg(long, value_parser = parse_zone, value_name = "ZONE")]
    zone: Option<TimeZone>,
    /// The form of the time column for strptime, such as "%d/%m/%Y %H:%M:%S"
    #[arg(long, value_name = "STRPTIME", conflicts_with = "unit")]
    time_format: Option<String>,
    /// Key columns, by their names in the files, whatever --rename makes of them
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    key: Vec<String>,
    /// Seal the rows by key: one key is then read many times as fast, all keys at a half of the speed or less
    #[arg(long, requires = "key")]
    by_key: bool,
    /// What to do with a line that cannot be taken
    #[arg(long, value_enum, default_value_t)]
    on_error: OnError,
    /// Where rejected lines go; otherwise FILE.rejected.csv in the current folder
    #[arg(long, value_name = "PATH")]
    rejected: Option<PathBuf>,
    /// The form of the files, whatever their names say
    #[arg(long, value_enum)]
    from: Option<Form>,
    /// Texts that stand for null, besides the empty one
    #[arg(long, value_delimiter = ',', value_name = "TEXT,...")]
    null: Vec<String>,
    /// An empty field is an empty text, and no null
    #[arg(long)]
    keep_empty: bool,
    /// Types of columns: bool, i32, i64, f32, f64, utf8, bytes, timestamp, date, decimal(2) for two
    /// digits behind the point, or timestamp[America/New_York] for instants that are shown in that zone, the time's too
    #[arg(long, value_delimiter = ',', value_parser = parse_type, value_name = "NAME:TYPE,...")]
    columns: Vec<(String, LogicalType)>,
    /// Names that columns get in the series
    #[arg(long, value_delimiter = ',', value_parser = parse_rename, value_name = "OLD=NEW,...")]
    rename: Vec<(String, String)>,
    /// What stands between fields: one ASCII character, or `tab`
    #[arg(long, default_value = ",", value_parser = parse_delimiter, value_name = "CHAR")]
    delimiter: u8,
    #[command(flatten)]
    format: FormatArg,
}

/// What to do with a line that cannot be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OnError {
    /// End with its place, before anything is committed.
    #[default]
    Fail,
    /// Set it aside, and go on.
    Skip,
}

pub(crate) fn parse_type(text: &str) -> Result<(String, LogicalType), String> {
    let parsed = text.rsplit_once(':').and_then(|(name, t)| Some((name, LogicalType::from_name(t)?)));
    let (name, logical) = parsed.ok_or_else(|| {
        let types: Vec<&str> = ColumnType::ALL.iter().map(|t| t.name()).collect();
        format!(
            "write NAME:TYPE, where the type is one of {}, decimal(SCALE) with a scale of 0 to 18, or timestamp[ZONE]",
            types.join(", ")
        )
    })?;
    Ok((name.to_string(), logical))
}

fn parse_rename(text: &str) -> Result<(String, String), String> {
    let (old, new) = text.split_once('=').ok_or("write OLD=NEW")?;
    Ok((old.to_string(), new.to_string()))
}

pub(crate) fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if text == "tab" || text == "\\t" => Ok(b'\t'),
        [b'"' | b'\r' | b'\n'] => Err("quotes and line ends cannot stand between fields".to_string()),
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err("use one ASCII character, or `tab`".to_string()),
    }
}

impl Import {
    /// Whether rows are to be sealed by key.
    pub(crate) fn is_by_key(&self) -> bool {
        self.by_key
    }

    pub(crate) fn run(self, db: Database) -> Result<(), Failed> {
        let started = Instant::now();
        let form = self.form()?;
        let sources = self.sources()?;
        let wishes = self.wishes();
        wishes.check_time()?;
        if form != Form::Csv {
            return self.run_typed(db, form, &sources, &wishes, started);
        }
        let skip = self.on_error == OnError::Skip;
        let rejected = self.rejected_files(&sources)?;
        let mut plan = Plan::new(wishes, existing(&db, &self.series)?);
        for source in &sources {
            survey(&mut plan, source, skip)?;
        }
        if let Some((_, place)) = plan.nan_key().filter(|_| !skip) {
            return Err(Failed::Line { place: place.to_string(), what: plan::NAN_KEY.to_string() });
        }
        let mut layouts = Vec::new();
        for source in &sources {
            layouts.push(plan.layout(&source.open(&indicatif::ProgressBar::hidden())?, source.path())?);
        }
        let loaded = load(&db, &self.series, &plan, &sources, layouts, rejected).map_err(hinted)?;
        // Seals the rows, so that the next opening has nothing to replay.
        db.close().map_err(|error| Failed::Imported {
            cause: Box::new(error.into()),
            series: self.series.clone(),
            rows: loaded.rows,
        })?;
        plan.remarks().iter().for_each(|remark| stderr::line(remark));
        self.report(plan.stored(), &loaded, started.elapsed().as_secs_f64())
    }

    /// Files that are no CSV.
    fn run_typed(
        self,
        db: Database,
        form: Form,
        sources: &[Source],
        wishes: &Wishes,
        started: Instant,
    ) -> Result<(), Failed> {
        let is_text = form == Form::Jsonl;
        let refused = [
            ("--on-error skip", self.on_error == OnError::Skip),
            ("--rejected", self.rejected.is_some()),
            ("--delimiter", self.delimiter != b','),
            ("--null", !self.null.is_empty()),
            ("--keep-empty", self.keep_empty),
            ("--columns", !is_text && !self.columns.is_empty()),
            ("--time-format", !is_text && self.time_format.is_some()),
            ("--zone", !is_text && self.zone.is_some()),
        ];
        if let Some((option, _)) = refused.iter().find(|(_, is_given)| *is_given) {
            return Err(Failed::Usage(format!("{option} is nothing for files of this form; leave it out")));
        }
        let known = existing(&db, &self.series)?;
        let surveyed = match form {
            Form::Jsonl => Some(json::survey(sources, wishes, known.as_ref())?),
            _ => None,
        };
        // What the beginnings of files tell is said before any of them is committed.
        for source in sources {
            let columns = match form {
                Form::Jsonl | Form::Csv => break,
                #[cfg(feature = "parquet")]
                Form::Parquet => parquet::columns_of(source)?,
                #[cfg(not(feature = "parquet"))]
                Form::Parquet => return Err(Failed::Usage(crate::form::NO_PARQUET.to_string())),
                Form::Arrow | Form::ArrowStream => typed::columns_of_arrow(source)?,
            };
            typed::check(source.path(), &columns, wishes)?;
        }
        let keys: Vec<&str> = wishes.keys.iter().map(|key| wishes.stored(key)).collect();
        let loaded = load::committed(&db, &self.series, &keys, |send| {
            let mut chunks = typed::Chunks::new(wishes, known.as_ref(), send);
            for source in sources {
                let bar = progress::bytes(source.bytes(), format!("loading {}", source.path().display()));
                match (form, &surveyed) {
                    (Form::Jsonl, Some(surveyed)) => json::load(source, surveyed, wishes, &bar, &mut chunks)?,
                    #[cfg(feature = "parquet")]
                    (Form::Parquet, _) => parquet::load(source, &bar, &mut chunks)?,
                    #[cfg(not(feature = "parquet"))]
                    (Form::Parquet, _) => return Err(Failed::Usage(crate::form::NO_PARQUET.to_string())),
                    _ => typed::load_arrow(source, &bar, &mut chunks)?,
                }
                bar.finish_and_clear();
            }
            chunks.finish()
        });
        let loaded = loaded.map_err(hinted)?;
        db.close().map_err(|error| Failed::Imported {
            cause: Box::new(error.into()),
            series: self.series.clone(),
            rows: loaded.rows,
        })?;
        surveyed.iter().flat_map(json::Surveyed::remarks).for_each(|remark| stderr::line(&remark));
        let stored = loaded.stored.clone();
        self.report(stored, &loaded, started.elapsed().as_secs_f64())
    }

    /// The form of all files.
    fn form(&self) -> Result<Form, Failed> {
        let mut forms = Vec::new();
        for path in &self.files {
            let form = self.from.or_else(|| Form::of_name(path));
            forms.push(form.ok_or_else(|| {
                let ends = ".csv, .jsonl, .arrow, .arrows and .parquet";
                Failed::input(
                    path,
                    format!("its name ends in none of {ends}; say what it is, as with --from csv"),
                )
            })?);
        }
        let first = forms.first().copied().unwrap_or(Form::Csv);
        match forms.iter().all(|form| *form == first) {
            true => Ok(first),
            false => Err(Failed::Usage("the files have several forms; import them one by one".to_string())),
        }
    }

    fn report(&self, stored: String, loaded: &load::Loaded, seconds: f64) -> Result<(), Failed> {
        let mut facts = Facts::default();
        facts.add("series", self.series.clone()).add("files", self.files.len());
        facts.add("rows", loaded.rows);
        if let Some(added) = loaded.added {
            facts.add("added", added);
        }
        facts.add("rejected", loaded.rejected.iter().map(|(rows, _)| rows).sum::<u64>());
        for (i, (_, path)) in loaded.rejected.iter().enumerate() {
            let name = if i == 0 { "rejected_file".to_string() } else { format!("rejected_file_{}", i + 1) };
            facts.add(name, path.display().to_string());
        }
        let instant = |at| Field::instant(at, loaded.zone.as_deref());
        facts.add("first", loaded.bounds.map(|(first, _)| instant(first)));
        facts.add("last", loaded.bounds.map(|(_, last)| instant(last)));
        facts.add("columns", stored);
        facts.add("seconds", (seconds * 1e3).round() / 1e3);
        facts.add("rows_per_second", (loaded.rows as f64 / seconds.max(1e-9)).round() as u64);
        facts.print(self.format.format)
    }

    fn sources(&self) -> Result<Vec<Source>, Failed> {
        self.files.iter().map(|path| Source::new(path, self.delimiter)).collect()
    }

    fn rejected_files(&self, sources: &[Source]) -> Result<Vec<Option<Rejected>>, Failed> {
        if self.on_error == OnError::Fail {
            if self.rejected.is_some() {
                return Err(Failed::Usage("--rejected needs --on-error skip; add it".to_string()));
            }
            return Ok(sources.iter().map(|_| None).collect());
        }
        if self.rejected.is_some() && sources.len() > 1 {
            return Err(Failed::Usage(
                "--rejected takes the lines of one file; import the files one by one, or leave it out"
                    .to_string(),
            ));
        }
        let mut paths: Vec<PathBuf> = Vec::new();
        for source in sources {
            let path = self.rejected.clone().unwrap_or_else(|| Rejected::default_path(source.path()));
            if paths.contains(&path) {
                return Err(Failed::Usage(format!(
                    "the rejected lines of two files would go into {}; import the files one by one",
                    path.display()
                )));
            }
            paths.push(path);
        }
        paths.into_iter().map(|path| Rejected::new(path, self.delimiter).map(Some)).collect()
    }

    fn wishes(&self) -> Wishes {
        Wishes {
            time: self.time.clone(),
            notation: Notation {
                unit: self.unit,
                zone: self.zone.clone(),
                column_zone: None,
                form: self.time_format.clone(),
            },
            keys: self.key.clone(),
            types: self.columns.clone(),
            renames: self.rename.clone(),
            nulls: self.null.clone(),
            keep_empty: self.keep_empty,
        }
    }
}

/// The columns of a series that is there.
#[derive(Debug)]
pub(crate) struct Known {
    schema: Schema,
    types: LogicalTypes,
}

impl Known {
    /// Whether a column is a key, and what it holds; `None` where it has no such column.
    fn column(&self, name: &str) -> Option<(bool, LogicalType)> {
        let column = self.schema.columns.iter().find(|column| &*column.name == name);
        // What is declared and has no rows yet is in no schema, nor is the rows' own time.
        let declared = || Some((false, self.types.get(name)?.clone()));
        column.map(|column| (column.key, self.types.of(name, column.column_type))).or_else(declared)
    }
}

/// The columns of the series, if it is there.
fn existing(db: &Database, series: &str) -> Result<Option<Known>, Failed> {
    match db.snapshot().series(series) {
        Ok(series) => Ok(Some(Known { schema: series.schema().clone(), types: series.types().clone() })),
        Err(ReadError::UnknownSeries { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Checks every line of a file.
fn survey(plan: &mut Plan, source: &Source, skip: bool) -> Result<(), Failed> {
    let bar = progress::bytes(source.bytes(), format!("checking {}", source.path().display()));
    let mut lines = source.open(&bar)?;
    let mut layout = plan.layout(&lines, source.path())?;
    let (mut scratch, mut kinds) = (plan.filling(false), Vec::new());
    while lines.advance()? {
        if let Err(problem) = plan.survey(&lines, &mut layout, &mut scratch, &mut kinds)
            && !skip
        {
            return Err(problem.at(&lines));
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Adds what this command has to offer to what the engine says.
fn hinted(error: Failed) -> Failed {
    match error {
        Failed::Commit(error @ CommitError::Name { what: "column", .. }) => {
            Failed::Usage(format!("{error}, with --rename OLD=NEW"))
        }
        other => other,
    }
}
