//! `ubctl wal`: the log for people.

use std::path::Path;

use clap::Subcommand;
use underbelly::{Behind, Database, FileInspection, LogInspection, LogRecord, OpenError};

use crate::error::Failed;
use crate::output::{Field, FormatArg, Listing};
use crate::stderr;

/// The log: its files, and what each transaction in it does.
#[derive(Subcommand, Debug)]
pub(crate) enum Wal {
    /// Lists the files of the log, or the batches in them
    Ls {
        /// A line for each batch: one write and one sync
        #[arg(long)]
        batches: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Lists what each transaction does, as far as they follow each other
    Dump {
        /// The first transaction
        #[arg(long, value_name = "SEQ")]
        from: Option<u64>,
        /// The last transaction
        #[arg(long, value_name = "SEQ")]
        to: Option<u64>,
        #[command(flatten)]
        format: FormatArg,
    },
}

impl Wal {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Failed> {
        let LogInspection { files, damages, .. } = Database::inspect_log(dir)?;
        match self {
            Wal::Ls { batches: false, format } => list_files(&files, *format)?,
            Wal::Ls { batches: true, format } => list_batches(&files, *format)?,
            Wal::Dump { from, to, format } => {
                return match dump(dir, &files, *from, *to, *format) {
                    Ok(None) => Ok(()),
                    // The files themselves say more than the reading, which ends at the first damage.
                    Ok(Some(_)) | Err(Failed::Open(OpenError::Log(_))) if !damages.is_empty() => {
                        tell(&damages)
                    }
                    Ok(Some(damage)) => tell(&[damage]),
                    Err(error) => Err(error),
                };
            }
        }
        tell(&damages)
    }
}

/// Names damages, after what is sound was listed.
fn tell(damages: &[String]) -> Result<(), Failed> {
    damages.iter().for_each(|damage| stderr::line(damage));
    match damages.len() {
        0 => Ok(()),
        damages => Err(Failed::Damaged(damages)),
    }
}

/// What stands behind the last batch of a file, in words.
fn behind(file: &FileInspection) -> String {
    match &file.header {
        Err(error) => error.to_string(),
        Ok(header) if header.follows == Some(false) => {
            "damage: it does not follow the file before it".to_string()
        }
        Ok(_) => match file.behind {
            Behind::Nothing => String::new(),
            Behind::Torn { bytes } => format!("torn: {bytes} bytes of a batch that nobody was told of"),
            Behind::Damage { next_whole } => format!("damage: the next whole batch is at byte {next_whole}"),
            Behind::Short { declared_end } => format!("damage: the file should end at byte {declared_end}"),
            _ => "not looked at".to_string(),
        },
    }
}

fn list_files(files: &[FileInspection], format: FormatArg) -> Result<(), Failed> {
    let names =
        ["file", "bytes", "first_seq", "last_seq", "batches", "records", "seals", "end", "reused", "behind"];
    let mut listing = Listing::begin(format.format, names)?;
    for file in files {
        let header = file.header.as_ref().ok();
        let records: u64 = file.batches.iter().map(|batch| u64::from(batch.records)).sum();
        let last = file.batches.iter().rfind(|batch| batch.records > 0);
        let last = last.map(|batch| batch.first_seq + u64::from(batch.records) - 1);
        listing.row([
            file.file.as_str().into(),
            header.map(|header| header.file_len).into(),
            header.map(|header| header.first_seq).into(),
            last.into(),
            file.batches.len().into(),
            records.into(),
            file.batches.iter().filter(|batch| batch.seal).count().into(),
            file.end.into(),
            header.map(|header| header.reused).into(),
            behind(file).into(),
        ])?;
    }
    listing.end(None)
}

fn list_batches(files: &[FileInspection], format: FormatArg) -> Result<(), Failed> {
    let names = ["file", "offset", "bytes", "batch", "first_seq", "records", "seal", "follows"];
    let mut listing = Listing::begin(format.format, names)?;
    for (file, batch) in files.iter().flat_map(|file| file.batches.iter().map(move |batch| (file, batch))) {
        listing.row([
            file.file.as_str().into(),
            batch.offset.into(),
            batch.bytes.into(),
            batch.number.into(),
            batch.first_seq.into(),
            u64::from(batch.records).into(),
            batch.seal.into(),
            batch.follows.into(),
        ])?;
    }
    listing.end(None)
}

/// Ends a dump at its last transaction.
enum Stop {
    Enough,
    Failed(Box<Failed>),
}

impl From<underbelly::OpenError> for Stop {
    fn from(error: underbelly::OpenError) -> Stop {
        Stop::Failed(Box::new(error.into()))
    }
}

/// Lists what each transaction does; answers the damage that ended it.
fn dump(
    dir: &Path,
    files: &[FileInspection],
    from: Option<u64>,
    to: Option<u64>,
    format: FormatArg,
) -> Result<Option<String>, Failed> {
    let oldest = files.iter().find_map(|file| Some(file.header.as_ref().ok()?.first_seq));
    let from = from.or(oldest).unwrap_or(1).max(oldest.unwrap_or(1));
    let names = ["seq", "time", "file", "offset", "bytes", "does"];
    let mut listing = Listing::begin(format.format, names)?;
    let read = Database::read_log(dir, from, |record: LogRecord| {
        if to.is_some_and(|to| record.seq > to) {
            return Err(Stop::Enough);
        }
        let place = files.iter().find_map(|file| {
            let batches = file.batches.iter().filter(|batch| batch.follows);
            let mut holding = batches.filter(|batch| {
                (batch.first_seq..batch.first_seq + u64::from(batch.records)).contains(&record.seq)
            });
            holding.next().map(|batch| (file.file.as_str(), batch.offset))
        });
        let row = [
            record.seq.into(),
            record.time.map(Field::text).into(),
            place.map(|(file, _)| file).into(),
            place.map(|(_, offset)| offset).into(),
            record.bytes.into(),
            record.does.join("; ").into(),
        ];
        listing.row(row).map_err(|failed| Stop::Failed(Box::new(failed)))
    });
    let damage = match read {
        Ok(sound) => sound.damage,
        Err(Stop::Enough) => None,
        Err(Stop::Failed(error)) => return Err(*error),
    };
    listing.end(None)?;
    Ok(damage.map(|damage| damage.to_string()))
}
