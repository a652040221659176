//! `ubctl`: the command line of Underbelly.
//!
//! `ubctl [--db DIR] NOUN VERB`. Results go to standard output, errors to standard error with exit 1, misuse is
//! exit 2, and a reader that closes the pipe ends the command quietly. What only reads opens the database beside its
//! writer. In reading order: `output` and `error` are
//! what all commands share; `time` reads instants, and `condition` what rows are to be like; `tail` follows what is committed, `top` shows what works, and `alarms` what is to be looked at; `import` loads files and `export` writes them; `series`, `slot`, `producer`, `model`
//! and `variable` are the nouns; `drawing` draws the graph.

mod alarms;
mod backup;
mod condition;
mod demo;
mod drawing;
mod error;
mod export;
mod form;
mod import;
mod init;
mod model;
mod output;
mod producer;
mod progress;
mod series;
mod slot;
mod status;
mod stderr;
mod tail;
mod time;
mod top;
mod tree;
mod variable;
mod verify;
mod wal;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use underbelly::{Database, Options};

use crate::error::Failed;

/// Bytes of memory that rows are read with at least.
const MEMORY_MIN: u64 = 1 << 20;

/// The variable of the environment that names the folder where `--db` does not.
const DB_VARIABLE: &str = "UNDERBELLY_DB";

/// The command line of Underbelly, an embedded database for backtests, pricing runs and online models
#[derive(Parser, Debug)]
#[command(name = "ubctl", version, disable_help_subcommand = true)]
struct Cli {
    /// The folder of the database
    ///
    /// [env: UNDERBELLY_DB] [default: ./underbelly-db; for demo: a new folder]
    #[arg(long, global = true, value_name = "DIR")]
    db: Option<PathBuf>,
    /// Memory that reading rows of series may take, such as 64M: the rest of the process comes on top, some megabytes and what was
    /// committed since the last checkpoint
    #[arg(long, global = true, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand, Debug)]
enum Noun {
    /// Makes an empty database in a folder that is empty or not there
    Init,
    Status(status::Status),
    Verify(verify::Verify),
    Checkpoint(verify::Checkpoint),
    Backup(backup::Backup),
    Repair(backup::Repair),
    /// The log: its files, and what each transaction in it does
    #[command(subcommand)]
    Wal(wal::Wal),
    Tail(tail::Tail),
    Top(top::Top),
    Alarms(alarms::Alarms),
    Import(import::Import),
    Export(Box<export::Export>),
    Demo(demo::Demo),
    /// Rows by type and time
    #[command(subcommand)]
    Series(series::Series),
    /// Small datasets whose cells have a state
    #[command(subcommand)]
    Slot(slot::Slot),
    /// What turns slots into slots
    #[command(subcommand)]
    Producer(producer::Producer),
    /// Blobs that are found by a metadata dict
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// One current value by scope and name
    #[command(subcommand)]
    Var(variable::Var),
}

impl Cli {
    fn run(mut self) -> Result<(), Failed> {
        // One that is empty names nothing.
        let set = || std::env::var_os(DB_VARIABLE).filter(|set| !set.is_empty()).map(PathBuf::from);
        self.db = self.db.or_else(set);
        if let Some(path) = self.db.as_deref().filter(|path| path.is_file()) {
            return Err(Failed::input(path, "it is a file, and --db names a folder; name another"));
        }
        if let Some(path) = self.db.as_deref().filter(|path| path.is_symlink() && !path.exists()) {
            let what = "it is a link that leads nowhere; put back the folder that it led to, or name another";
            return Err(Failed::input(path, what));
        }
        if let Noun::Demo(demo) = &self.noun {
            return demo.run(self.db.as_deref());
        }
        let memory = self.memory;
        let dir = self.db.unwrap_or_else(|| PathBuf::from("./underbelly-db"));
        if let Noun::Init = self.noun {
            return init::run(&dir);
        }
        match self.noun {
            Noun::Init | Noun::Demo(_) => Ok(()),
            Noun::Status(status) => status.run(&Database::open_read_only(&dir)?),
            Noun::Verify(verify) => verify.run(&dir),
            Noun::Backup(backup) => backup.run(&Database::open_read_only(&dir)?),
            Noun::Repair(repair) => repair.run(&dir),
            Noun::Wal(wal) => wal.run(&dir),
            Noun::Tail(tail) => tail.run(&dir),
            Noun::Top(top) => top.run(&dir),
            Noun::Alarms(alarms) => alarms.run(&*Database::open_read_only(&dir)?),
            Noun::Checkpoint(checkpoint) => checkpoint.run(&write(&dir)?),
            Noun::Export(export) => export.run(&series::Beside::new(&dir, memory)),
            Noun::Import(import) => {
                let db = write_sealed(&dir, import.is_by_key())?;
                import.run(db)
            }
            Noun::Series(series) => series.run(&dir, memory),
            Noun::Slot(slot) => slot.run(&dir),
            Noun::Producer(producer) => producer.run(&dir),
            Noun::Model(model) => model.run(&dir),
            Noun::Var(var) => var.run(&dir),
        }
    }
}

/// A number of bytes; K, M, G and T stand for powers of 1,024.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let what = || "write a number of bytes, such as 64M (K, M, G and T are powers of 1024)".to_string();
    let text = text.trim_end_matches(['B', 'b']).trim_end_matches('i');
    let (number, shift) = match text.chars().last() {
        Some('k' | 'K') => (&text[..text.len() - 1], 10),
        Some('m' | 'M') => (&text[..text.len() - 1], 20),
        Some('g' | 'G') => (&text[..text.len() - 1], 30),
        Some('t' | 'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= MEMORY_MIN => Ok(bytes),
        Some(_) => Err("less than 1M is too little to read anything; allow more".to_string()),
        None => Err(what()),
    }
}

/// Opens a database for writing. All other commands read beside whoever writes.
fn write(dir: &Path) -> Result<Database, Failed> {
    write_sealed(dir, false)
}

/// The same, and perhaps seals series by key.
fn write_sealed(dir: &Path, sealed_by_key: bool) -> Result<Database, Failed> {
    // No producer has its closure in this process, so one worker is plenty.
    let options = Options { workers: 1, sealed_by_key, ..Options::default() };
    Ok(Database::open_with(dir, options)?)
}

/// A file that grows beyond the limit of the process is an error that names it, and not the end of the process.
fn ignore_file_limit() {
    // Where it cannot be had, the limit ends the process as it does others.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

fn main() -> ExitCode {
    ignore_file_limit();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; a closed pipe on the way is none either.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // Who set it in the environment has it for the next command, too.
    if let Some(dir) =
        cli.db.as_deref().filter(|dir| std::env::var_os(DB_VARIABLE).is_none_or(|set| set != dir.as_os_str()))
    {
        stderr::name_database(dir);
    }
    match cli.run() {
        Ok(()) | Err(Failed::ClosedPipe) => ExitCode::SUCCESS,
        Err(error) => {
            stderr::line(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_numbers_with_powers_of_1024() {
        for (text, bytes) in
            [("1048576", 1 << 20), ("64M", 64 << 20), ("2g", 2 << 30), ("2048KiB", 2 << 20), ("1TB", 1 << 40)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "64X", "-1M", "1.5M", "17179869184G", "9"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
