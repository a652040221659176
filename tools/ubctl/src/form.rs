//! Forms of files that rows come from and go to.

use std::path::Path;

use clap::ValueEnum;

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Comma-separated values with a header.
    Csv,
    /// A JSON object in each line; NaN and infinities are texts.
    Jsonl,
    /// An Arrow IPC file.
    Arrow,
    /// An Arrow IPC stream.
    ArrowStream,
    /// A Parquet file, compressed with Snappy.
    Parquet,
}

impl Form {
    /// What the name of a file says, whatever stands behind that for compression.
    pub(crate) fn of_name(path: &Path) -> Option<Form> {
        let name = path.to_string_lossy().to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        Some(match name.rsplit_once('.')?.1 {
            "csv" => Form::Csv,
            "jsonl" | "ndjson" => Form::Jsonl,
            "arrow" | "feather" | "ipc" => Form::Arrow,
            "arrows" => Form::ArrowStream,
            "parquet" | "pq" => Form::Parquet,
            _ => return None,
        })
    }
}

/// What is said where Parquet was left out.
#[cfg(not(feature = "parquet"))]
pub(crate) const NO_PARQUET: &str =
    "this ubctl was built without Parquet; build it with `--features parquet`, or use the form `arrow`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_tell_their_form() {
        let form = |name: &str| Form::of_name(Path::new(name));
        assert_eq!(form("a.CSV.gz"), Some(Form::Csv));
        assert_eq!(form("dir.parquet/x.jsonl"), Some(Form::Jsonl));
        assert_eq!((form("x.arrows"), form("x.txt"), form("x")), (Some(Form::ArrowStream), None, None));
    }
}
