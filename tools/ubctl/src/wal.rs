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
        match self {
            Wal::Dump { from: Some(from), to: Some(to), .. } if from > to => {
                let what =
                    format!("--from {from} is behind --to {to}; name the first transaction, then the last");
                Err(Failed::Usage(what))
            }
            Wal::Dump { from, to, format } => {
                let ended = dump(dir, *from, *to, *format);
                // The files themselves say more than the reading, which ends at the first damage.
                let inspect = || Database::inspect_log(dir).map(|log| log.damages).unwrap_or_default();
                match ended {
                    Ok(None) => Ok(()),
                    Ok(Some(damage)) => match inspect() {
                        damages if damages.is_empty() => tell(&[damage]),
                        damages => tell(&damages),
                    },
                    Err(Failed::Open(OpenError::Log(error))) => match inspect() {
                        damages if damages.is_empty() => Err(OpenError::Log(error).into()),
                        damages => tell(&damages),
                    },
                    Err(error) => Err(error),
                }
            }
            Wal::Ls { batches, format } => {
                let LogInspection { files, damages, .. } = Database::inspect_log(dir)?;
                let list = if *batches { list_batches } else { list_files };
                list(&files, *format)?;
                tell(&damages)
            }
        }
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
        Err(error) => stderr::named(&error.to_string()).into_owned(),
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

impl<E: Into<Failed>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Failed(Box::new(error.into()))
    }
}

/// Lists what each transaction does; answers the damage that ended it.
fn dump(dir: &Path, from: Option<u64>, to: Option<u64>, format: FormatArg) -> Result<Option<String>, Failed> {
    let begin =
        || Listing::begin(format.format, ["seq", "time", "file", "offset", "bytes", "does"]).map(Some);
    // Where nothing can be read, nothing is listed.
    let mut listing = None;
    // Transactions that were recycled meanwhile.
    let (mut last, mut gone) = (None::<u64>, Vec::new());
    let read = Database::read_log(dir, from.unwrap_or(1), |record: LogRecord| {
        if to.is_some_and(|to| record.seq > to) {
            return Err(Stop::Enough);
        }
        let first = last.map_or(record.seq, |last| last + 1);
        if first < record.seq {
            gone.push((first, record.seq - 1));
        }
        last = Some(record.seq);
        let place = record.place.as_ref();
        let row = [
            record.seq.into(),
            record.time.map(Field::text).into(),
            place.map(|(file, _)| file.as_str()).into(),
            place.map(|(_, offset)| *offset).into(),
            record.bytes.into(),
            record.does.join("; ").into(),
        ];
        if listing.is_none() {
            listing = begin()?;
        }
        Ok(listing.as_mut().map_or(Ok(()), |listing| listing.row(row))?)
    });
    let damage = match read {
        Ok(sound) => {
            let behind = sound.next_seq.saturating_sub(1).min(to.unwrap_or(u64::MAX));
            gone.extend(last.filter(|last| *last < behind).map(|last| (last + 1, behind)));
            sound.damage
        }
        Err(Stop::Enough) => None,
        Err(Stop::Failed(error)) => return Err(*error),
    };
    if listing.is_none() {
        listing = begin()?;
    }
    if let Some(listing) = listing {
        listing.end(None)?;
    }
    if damage.is_none() {
        for (first, last) in gone {
            let whole = "a checkpoint holds them, and their file was recycled before it was read";
            stderr::line(&format!("transactions {first} to {last} are not listed: {whole}"));
        }
    }
    Ok(damage.map(|damage| damage.to_string()))
}
