//! `ubctl export`: rows of a series into a file.
//!
//! One thread reads and decodes, this one writes. Each form has a writer of its own below; what it writes, `import` reads back
//! as it was.

#[cfg(feature = "parquet")]
mod parquet;
mod text;

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use underbelly::{Columns, QueryError, Scan, Timestamp, arrow};

use crate::condition::Conditions;
use crate::error::Failed;
use crate::form::Form;
use crate::output::{Facts, Format};
use crate::series::{Beside, FolderArgs, filters, parse_filter};
use crate::time::parse_instant;
use crate::{progress, stderr};

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Batches that are read ahead.
const BATCHES_AHEAD: usize = 4;

/// Writes rows of a series to a file or to standard output
///
/// Rows come in order of time and arrival, `timestamp` first. `ubctl import` reads back what this writes: Arrow and Parquet with
/// their types, text with those that --columns of the import names. In CSV a null is an empty field, and so is an empty text, unless
/// --null says what a null is; then `import --null TEXT --keep-empty` tells them apart.
///
/// A path such as ./ticks in the place of the type names a folder of files, as for `series range`.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// The series' type, or a path of a folder
    #[arg(value_name = "TYPE")]
    series: String,
    /// Start of the range
    #[arg(long, value_parser = parse_instant, allow_hyphen_values = true, value_name = "TIME")]
    from: Option<Timestamp>,
    /// End of the range, which does not belong to it
    #[arg(long, value_parser = parse_instant, allow_hyphen_values = true, value_name = "TIME")]
    to: Option<Timestamp>,
    /// Only rows whose key has this value; an empty value asks for rows without one
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_filter)]
    key: Vec<(String, String)>,
    #[command(flatten)]
    conditions: Conditions,
    /// Only these columns, in this order, behind the timestamp
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    columns: Option<Vec<String>>,
    /// The form of the output; otherwise what the name of the file ends in, else csv
    #[arg(long, value_enum, value_name = "FORM")]
    format: Option<Form>,
    /// The file, which must not be there yet, gzip'd where its name ends in .gz; standard output otherwise
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// In CSV, what stands for null; no text may be the same
    #[arg(long, value_name = "TEXT", default_value = "")]
    null: String,
    #[command(flatten)]
    folder: FolderArgs,
}

/// Writes batches in some form.
pub(super) trait Sink {
    fn write(&mut self, rows: Columns) -> Result<(), Failed>;

    /// Writes what is left; what people should know.
    fn finish(self: Box<Self>) -> Result<Vec<String>, Failed>;
}

impl<W: Write> Sink for arrow::Writer<W> {
    fn write(&mut self, rows: Columns) -> Result<(), Failed> {
        Ok(arrow::Writer::write(self, rows)?)
    }

    fn finish(self: Box<Self>) -> Result<Vec<String>, Failed> {
        arrow::Writer::finish(*self)?.flush().map_err(Failed::output)?;
        Ok(Vec::new())
    }
}

/// Where a file is written before it has its name: whoever is interrupted leaves nothing that looks whole.
pub(crate) fn part_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.part", std::process::id()))
}

/// Gives a file that is written its name, which nobody may have by now; its length.
fn name(part: &Path, path: &Path) -> std::io::Result<u64> {
    let file = File::open(part)?;
    file.sync_all()?;
    match std::fs::hard_link(part, path) {
        Ok(()) => std::fs::remove_file(part)?,
        // Not every file system gives a file two names.
        Err(error) if error.kind() != ErrorKind::AlreadyExists && path.symlink_metadata().is_err() => {
            std::fs::rename(part, path)?;
        }
        Err(error) => return Err(error),
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file.metadata()?.len())
}

impl Export {
    pub(crate) fn run(&self, db: &Beside<'_>) -> Result<(), Failed> {
        let started = Instant::now();
        let form =
            self.format.or_else(|| self.output.as_deref().and_then(Form::of_name)).unwrap_or(Form::Csv);
        let Some(path) = &self.output else {
            let out = BufWriter::with_capacity(BUFFER_BYTES, std::io::stdout());
            return self.write(db, form, out).map(|_| ());
        };
        if path.symlink_metadata().is_ok() {
            return Err(Failed::input(path, "it is there already; name another file, or remove it"));
        }
        let is_zipped = path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("gz"));
        if is_zipped && form == Form::Parquet {
            return Err(Failed::Usage("Parquet is compressed by itself; leave out .gz".to_string()));
        }
        let part = part_of(path);
        let file = File::create_new(&part).map_err(|error| Failed::file("make", &part, error))?;
        let out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let written = match is_zipped {
            false => self.write(db, form, out),
            true => {
                let mut zipped = GzEncoder::new(out, Compression::default());
                self.write(db, form, &mut zipped).and_then(|rows| {
                    let ended = zipped.finish().and_then(|mut out| out.flush());
                    ended.map(|()| rows).map_err(|error| Failed::file("write", &part, error))
                })
            }
        };
        let named = written.and_then(|rows| {
            let bytes = name(&part, path).map_err(|error| Failed::file("write", path, error))?;
            Ok((rows, bytes))
        });
        let (rows, bytes) = named.inspect_err(|_| {
            // Half a file is of no use to anybody; that it cannot be removed is no news then.
            let _ = std::fs::remove_file(&part);
        })?;
        let seconds = started.elapsed().as_secs_f64();
        let mut facts = Facts::default();
        facts.add("series", self.series.clone()).add("file", path.display().to_string());
        facts.add("rows", rows).add("bytes", bytes).add("seconds", (seconds * 1e3).round() / 1e3);
        facts.add("rows_per_second", (rows as f64 / seconds.max(1e-9)).round() as u64);
        facts.print(Format::Table)
    }

    /// Writes the rows; answers how many.
    fn write<'o>(&self, db: &Beside<'_>, form: Form, out: impl Write + Send + 'o) -> Result<u64, Failed> {
        self.folder.check([self.series.as_str()])?;
        let series = self.folder.rows(db, &self.series)?;
        let keys = filters(&series, &self.key)?;
        let conditions = self.conditions.predicates(&series)?;
        let scan = || -> Scan<'_> {
            let scan = self.from.into_iter().fold(series.scan(), Scan::from);
            let scan = self.to.into_iter().fold(scan, Scan::to);
            let scan = keys.iter().fold(scan, |scan, (name, value)| scan.key(name, value.clone()));
            let scan =
                conditions.iter().fold(scan, |scan, (name, predicate)| scan.filter(name, predicate.clone()));
            self.columns.iter().fold(scan, |scan, names| scan.columns(names))
        };
        // Refuses what does not fit before anything is written.
        let (types, logical) = (scan().rows_max(0).collect()?, series.types());
        let mut sink: Box<dyn Sink + 'o> = match form {
            Form::Csv => Box::new(text::Csv::new(out, &types, logical, self.null.clone())?),
            Form::Jsonl => Box::new(text::Jsonl::new(out, &types, logical)),
            Form::Arrow => Box::new(arrow::Writer::file_typed(out, &types, logical)?),
            Form::ArrowStream => Box::new(arrow::Writer::stream_typed(out, &types, logical)?),
            #[cfg(feature = "parquet")]
            Form::Parquet => Box::new(parquet::Parquet::new(out, &types, logical)?),
            #[cfg(not(feature = "parquet"))]
            Form::Parquet => return Err(Failed::Usage(crate::form::NO_PARQUET.to_string())),
        };
        let total =
            if keys.is_empty() && conditions.is_empty() { scan().count()? } else { series.scan().count()? };
        let bar = progress::rows(total, format!("exporting {}", self.series));
        let ahead = if db.memory().is_some() { 0 } else { BATCHES_AHEAD };
        let (send, receive) = sync_channel::<Result<Columns, QueryError>>(ahead);
        let written = std::thread::scope(|scope| {
            let read = &scan;
            scope.spawn(move || {
                // Nobody receives any more where writing has failed, and says why.
                let _ = read().batches().try_for_each(|batch| send.send(batch));
            });
            let mut written = 0;
            for batch in receive {
                let batch = batch?;
                let rows = batch.rows() as u64;
                sink.write(batch)?;
                written += rows;
                bar.inc(rows);
            }
            Ok::<_, Failed>(written)
        })?;
        sink.finish()?.iter().for_each(|remark| stderr::line(remark));
        bar.finish_and_clear();
        Ok(written)
    }
}
