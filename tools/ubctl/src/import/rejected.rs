//! Lines that an import sets aside.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::source::{Lines, Problem};
use crate::error::Failed;
use crate::stderr;

/// Reasons that are told on standard error for each file.
const TOLD_MAX: u64 = 20;

/// The lines of one file that were set aside, as they were and below the same header, so that they can be
/// corrected and imported. The file is made with its first line.
pub(super) struct Rejected {
    path: PathBuf,
    delimiter: u8,
    writer: Option<csv::Writer<BufWriter<File>>>,
    rows: u64,
}

impl Rejected {
    /// Where the rejected lines of `source` go unless the user says so: the current folder.
    pub(super) fn default_path(source: &Path) -> PathBuf {
        let mut name = source.file_name().unwrap_or_default().to_os_string();
        name.push(".rejected.csv");
        PathBuf::from(name)
    }

    /// Nothing is rejected yet. A file from before is not overwritten.
    pub(super) fn new(path: PathBuf, delimiter: u8) -> Result<Rejected, Failed> {
        if std::fs::symlink_metadata(&path).is_ok() {
            return Err(Failed::input(
                &path,
                "it is there already, and rejected lines would go into it; move it away or name another with --rejected",
            ));
        }
        Ok(Rejected { path, delimiter, writer: None, rows: 0 })
    }

    /// Sets the current line aside.
    pub(super) fn add(&mut self, lines: &Lines, problem: Problem) -> Result<(), Failed> {
        let failed = |error: csv::Error| {
            let source = match error.into_kind() {
                csv::ErrorKind::Io(source) => source,
                other => std::io::Error::other(format!("{other:?}")),
            };
            Failed::file("write rejected lines to", &self.path, source)
        };
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let file =
                    File::create_new(&self.path).map_err(|error| Failed::file("make", &self.path, error))?;
                let mut writer = csv::WriterBuilder::new()
                    .flexible(true)
                    .delimiter(self.delimiter)
                    .from_writer(BufWriter::new(file));
                writer.write_record(lines.names()).map_err(failed)?;
                self.writer.insert(writer)
            }
        };
        writer.write_byte_record(lines.record()).map_err(failed)?;
        self.rows += 1;
        if self.rows <= TOLD_MAX {
            stderr::line(&format!("rejected {}", problem.at(lines)));
        }
        Ok(())
    }

    /// Writes what is left, and answers how many lines there are and where.
    pub(super) fn finish(mut self) -> Result<(u64, Option<PathBuf>), Failed> {
        if let Some(writer) = &mut self.writer {
            writer.flush().map_err(|error| Failed::file("write rejected lines to", &self.path, error))?;
        }
        if self.rows > TOLD_MAX {
            let (more, path) = (self.rows - TOLD_MAX, self.path.display());
            stderr::line(&format!("and {more} lines more, all of which are in {path}"));
        }
        Ok((self.rows, self.writer.map(|_| self.path)))
    }
}
