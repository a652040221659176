//! The command line as people meet it: the built binary, its output and its exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alarms;
mod copies;
mod demo;
mod export;
mod folders;
mod import;
mod memory;
mod misuse;
mod models;
mod properties;
mod series;
mod slots;
mod tail;
mod top;
mod types;
mod variables;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder with a database, in which commands run.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    /// A folder without a database.
    pub(crate) fn bare() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    /// A folder with an empty database.
    pub(crate) fn new() -> Place {
        let place = Place::bare();
        place.ok(["init"]);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.path("db")
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ubctl"));
        command.current_dir(self.dir.path()).env("UNDERBELLY_DB", self.db()).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ended {
        let output = self.command(arguments).output().unwrap();
        Ended {
            code: output.status.code().expect("the command was not killed"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output of a command that succeeds.
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "stdout: {}\nstderr: {}", ended.stdout, ended.stderr);
        ended.stdout
    }

    /// Standard error of a command that fails with exit 1.
    pub(crate) fn fails<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 1, "stdout: {}\nstderr: {}", ended.stdout, ended.stderr);
        assert!(ended.stderr.starts_with("ubctl: "), "{}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        ended.stderr
    }

    pub(crate) fn json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> serde_json::Value {
        let stdout = self.ok(arguments);
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// Header and rows of CSV output.
    pub(crate) fn csv<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Vec<Vec<String>> {
        let stdout = self.ok(arguments);
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(stdout.as_bytes());
        reader.records().map(|record| record.unwrap().iter().map(str::to_string).collect()).collect()
    }
}

/// The words of a command; no word has a space.
pub(crate) fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// The recorded data, where this machine has it.
pub(crate) fn recordings() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let dir = std::env::var_os("UNDERBELLY_DATA").map_or(beside, PathBuf::from);
    dir.is_dir().then_some(dir)
}
