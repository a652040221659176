//! Folders of files that are read as a series is, where they lie.

mod error;
mod file;
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use underbelly_query::{
    Predicate, QueryError, Run, Scan, Schema, SchemaColumn, Source, TIMESTAMP, at_or_after, at_or_before,
    last_point, last_points, last_points_where, latest, nearest, newest_timestamp,
};
use underbelly_storage::{ColumnType, Columns, LogicalType, LogicalTypes, Timestamp, Value};

pub use self::error::FolderError;
use self::file::{FolderFile, Suffix, Time};
use self::run::Contents;
use crate::error::ReadError;

/// How a [`Folder`] is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderOptions {
    /// The column that holds the time, in every file: a timestamp, a date, or a whole number. Default: "timestamp".
    pub time: String,
    /// The key columns. Default: none.
    pub keys: Vec<String>,
    /// What a whole number in the column of the time counts. Default: a second.
    pub number: Duration,
    /// Bytes of rows that may be in memory at a time, about; see [`Folder`]. Default: 1 GiB.
    pub memory_bytes: u64,
    /// Bytes that each operator may hold besides, as [`View::limit_memory`](crate::View::limit_memory) has it. Default: `None`, as many as it needs.
    pub operator_bytes: Option<u64>,
}

impl Default for FolderOptions {
    fn default() -> FolderOptions {
        let (time, keys) = (TIMESTAMP.to_string(), Vec::new());
        FolderOptions {
            time,
            keys,
            number: Duration::from_secs(1),
            memory_bytes: 1 << 30,
            operator_bytes: None,
        }
    }
}

/// A folder of Arrow files, and of Parquet files where the feature `parquet` is on, on which every operator works as on a series:
/// scans, as-of joins, windows, newest rows. Nothing is imported, and nothing is ever written into the folder.
///
/// Read are the files in the folder itself, in order of their names, whose names end in `.arrow`, `.feather`, `.ipc` (files) or `.arrows`
/// (streams), or in `.parquet` or `.pq`; other files and folders in it are passed over. Their rows are shown as if they had been appended in
/// that order: in order of time, those of one instant in the order of the files and of their rows. Files agree about columns by the rules
/// of a series: a column that a file lacks is null in its rows, fields of integers widen to those of others, and what has no common type is
/// refused with both types and both files, as are decimals of two scales and instants of two zones. A member of a struct is a column named by its path
/// (`quote.bid`); where other files have a column `quote`, that is a column of its own. The column of the time is called "timestamp" in what is read, whatever the files call it.
///
/// *What is read.* Opening reads of each file its schema, the places of its record batches and their times, and of Parquet the footer alone
/// where it tells the ends of the times. A scan reads of a record batch (a row group of Parquet) the columns that are asked for, once its
/// turn has come, and nothing of those whose times lie outside of the range.
///
/// *The order of rows.* Rows of a record batch may stand in any order of time: they are sorted when it is read. Record batches, of one
/// file or of several, may overlap in time; then those that do are in memory together. Where these would be more than
/// [`FolderOptions::memory_bytes`], as in long files in no order of time, opening answers [`FolderError::Overlap`], which says where and what to do.
///
/// A file that changes under who reads it is noticed by its length and its time, and answers [`FolderError::Changed`].
///
/// ```
/// use underbelly::{Columns, Timestamp, arrow};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = std::env::temp_dir().join(format!("underbelly-folder-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// let second = |n: i64| Timestamp(n * 1_000_000_000);
/// let rows = Columns::new()
///     .with("at", vec![second(1), second(2)].into())?
///     .with("desk", vec![1i64, 2].into())?
///     .with("price", vec![184.0, 2.9].into())?;
/// let mut file = arrow::Writer::file(std::fs::File::create(dir.join("day1.arrow"))?, &rows)?;
/// file.write(rows)?;
/// file.finish()?;
///
/// let folder = arrow::Folder::open(&dir, "at", ["desk"])?;
/// let found = folder.scan().key("desk", 2i64).collect()?;
/// assert_eq!(found.timestamps("timestamp"), Some(&[2_000_000_000][..]));
/// assert_eq!(folder.count()?, 2);
/// # Ok(std::fs::remove_dir_all(&dir)?)
/// # }
/// ```
#[derive(Clone)]
pub struct Folder {
    path: PathBuf,
    contents: Arc<Contents>,
    runs: Arc<[Arc<dyn Run>]>,
    batches: usize,
    /// Rows of the longest record batch.
    longest: usize,
    /// Bytes that an operator may hold.
    memory_max: usize,
}

impl Folder {
    /// Attaches a folder of files with the time in the column `time` and keys in the columns `keys`.
    ///
    /// # Errors
    /// [`FolderError`], which names the file, the place in it, and what to do.
    pub fn open<K: Into<String>>(
        dir: impl AsRef<Path>,
        time: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Folder, FolderError> {
        let (time, keys) = (time.into(), keys.into_iter().map(Into::into).collect());
        Folder::open_with(dir, &FolderOptions { time, keys, ..FolderOptions::default() })
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn open_with(dir: impl AsRef<Path>, options: &FolderOptions) -> Result<Folder, FolderError> {
        let path = dir.as_ref().to_path_buf();
        let number_ns = i64::try_from(options.number.as_nanos()).unwrap_or(i64::MAX);
        let time = Time { column: options.time.clone(), number_ns };
        let mut files = Vec::new();
        for (file, suffix) in listed(&path)? {
            let file = FolderFile::open(file, suffix)?;
            time.check(&file)?;
            files.push(file);
        }
        if files.is_empty() {
            return Err(FolderError::Empty { path });
        }
        let (schema, types) = schema(&path, &files, options)?;
        let contents = Contents { files, time, schema, types };
        let groups = contents.groups()?;
        contents.check_overlap(&groups, options.memory_bytes)?;
        let (batches, contents) = (groups.len(), Arc::new(contents));
        let runs: Arc<[Arc<dyn Run>]> = run::runs(&contents, groups).into();
        let rows = runs.iter().flat_map(|run| (0..run.groups()).map(|group| run.zone(group).rows));
        let longest = rows.max().unwrap_or(0);
        let memory_max = usize::try_from(options.operator_bytes.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        Ok(Folder { path, contents, runs, batches, longest, memory_max })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that are read, in their order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.contents.files.iter().map(|file| &*file.path)
    }

    /// Bytes of these files.
    pub fn bytes(&self) -> u64 {
        self.contents.files.iter().map(|file| file.bytes).sum()
    }

    /// Record batches and row groups that have rows.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// How many of these overlap in time at most, and so may be in memory together.
    pub fn overlapping(&self) -> usize {
        self.runs.len()
    }

    /// The columns: keys first, then fields.
    pub fn schema(&self) -> &Schema {
        &self.contents.schema
    }

    /// What columns hold, "timestamp" too, where that is not what is stored, as [`Series::types`](crate::Series::types).
    pub fn types(&self) -> &LogicalTypes {
        &self.contents.types
    }

    /// Rows in order of time, those of one instant in the order of the files; narrow it down with the builder's methods.
    pub fn scan(&self) -> Scan<'_> {
        Scan::new(self)
    }

    /// As [`Series::range`](crate::Series::range).
    ///
    /// # Errors
    /// [`ReadError::Query`]: `QueryError::BadRange` where `from` is after `to`, `QueryError::Source` with a [`FolderError`] where a file
    /// cannot be read.
    pub fn range(&self, from: Timestamp, to: Timestamp) -> Result<Columns, ReadError> {
        Ok(self.scan().from(from).to(to).collect()?)
    }

    /// As [`Series::latest`](crate::Series::latest).
    ///
    /// # Errors
    /// [`ReadError::Query`]: as there, and `QueryError::Source` with a [`FolderError`] where a file cannot be read.
    pub fn latest(&self, n: usize, keys: &[(&str, Value)]) -> Result<Columns, ReadError> {
        Ok(latest(self, n, keys)?)
    }

    /// As [`Series::last_point`](crate::Series::last_point); nothing is kept for the next call.
    ///
    /// # Errors
    /// As [`Folder::latest`].
    pub fn last_point(&self, keys: &[(&str, Value)]) -> Result<Option<Columns>, ReadError> {
        Ok(last_point(self, keys)?)
    }

    /// As [`Series::last_points`](crate::Series::last_points); nothing is kept for the next call.
    ///
    /// # Errors
    /// As [`Folder::latest`].
    pub fn last_points(&self) -> Result<Columns, ReadError> {
        Ok(last_points(self)?)
    }

    /// As [`Series::last_points_where`](crate::Series::last_points_where).
    ///
    /// # Errors
    /// As [`Folder::latest`]; `QueryError::UnknownColumn` and `QueryError::ValueType` where a predicate does not fit.
    pub fn last_points_where(&self, predicates: &[(&str, Predicate)]) -> Result<Columns, ReadError> {
        Ok(last_points_where(self, predicates)?)
    }

    /// As [`Series::at_or_before`](crate::Series::at_or_before).
    ///
    /// # Errors
    /// As [`Folder::latest`].
    pub fn at_or_before(&self, at: Timestamp, keys: &[(&str, Value)]) -> Result<Option<Columns>, ReadError> {
        Ok(at_or_before(self, at, keys)?)
    }

    /// As [`Series::at_or_after`](crate::Series::at_or_after).
    ///
    /// # Errors
    /// As [`Folder::latest`].
    pub fn at_or_after(&self, at: Timestamp, keys: &[(&str, Value)]) -> Result<Option<Columns>, ReadError> {
        Ok(at_or_after(self, at, keys)?)
    }

    /// As [`Series::nearest`](crate::Series::nearest).
    ///
    /// # Errors
    /// As [`Folder::latest`].
    pub fn nearest(&self, at: Timestamp, keys: &[(&str, Value)]) -> Result<Option<Columns>, ReadError> {
        Ok(nearest(self, at, keys)?)
    }

    /// Number of rows.
    ///
    /// # Errors
    /// None as of today; as [`Folder::latest`] where rows have to be read for it.
    pub fn count(&self) -> Result<u64, ReadError> {
        Ok(self.scan().count()?)
    }

    /// Earliest and latest timestamp; `None` where there is no row.
    ///
    /// # Errors
    /// As [`Folder::latest`].
    pub fn bounds(&self) -> Result<Option<(Timestamp, Timestamp)>, ReadError> {
        let first = self.scan().columns([""; 0]).rows_max(1).collect()?;
        let first = first.timestamps(TIMESTAMP).and_then(|times| times.first().copied());
        let last = newest_timestamp(self)?;
        Ok(first.zip(last).map(|(first, last)| (Timestamp(first), Timestamp(last))))
    }
}

impl Source for Folder {
    fn schema(&self) -> &Schema {
        &self.contents.schema
    }

    fn runs(&self) -> &[Arc<dyn Run>] {
        &self.runs
    }

    fn seq(&self) -> u64 {
        // Record batches have numbers from 1 on.
        self.batches as u64
    }

    fn memory_max(&self) -> usize {
        self.memory_max
    }

    /// No fewer than the longest record batch has, which is so read once.
    fn slice_rows(&self) -> usize {
        self.longest.max(131_072)
    }
}

impl From<FolderError> for ReadError {
    fn from(error: FolderError) -> ReadError {
        ReadError::Query(QueryError::Source(Box::new(error)))
    }
}

/// The files of a folder that are read, in order of their names.
fn listed(dir: &Path) -> Result<Vec<(PathBuf, Suffix)>, FolderError> {
    let io = |source| FolderError::Io { action: "read the folder", path: dir.to_path_buf(), source };
    if dir.is_file() {
        return Err(FolderError::NotFolder { path: dir.to_path_buf() });
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let Some(suffix) = Suffix::of(&path) else { continue };
        // Who writes a file gives it a hidden name until it is whole. A link that leads nowhere is a file that is missing.
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && !path.is_dir() {
            files.push((path, suffix));
        }
    }
    files.sort_unstable_by(|(a, _), (b, _)| a.file_name().cmp(&b.file_name()));
    Ok(files)
}

/// The columns of all files, keys first, then the others in the order in which they come; and what they hold.
fn schema(
    dir: &Path,
    files: &[FolderFile],
    options: &FolderOptions,
) -> Result<(Schema, LogicalTypes), FolderError> {
    // With a file that has the type.
    let mut columns: Vec<(SchemaColumn, &FolderFile)> = Vec::new();
    let mut types = LogicalTypes::new();
    // Of the time there is its zone alone.
    let mut zone: Option<(LogicalType, &FolderFile)> = None;
    for file in files {
        if let Some(found) = file.logical.get(&options.time) {
            let (expected, first) = zone.get_or_insert_with(|| (found.clone(), file));
            if expected != found {
                return Err(FolderError::ColumnType {
                    column: options.time.clone(),
                    key: false,
                    expected: expected.clone(),
                    first: first.path.as_path().into(),
                    found: found.clone(),
                    path: file.path.as_path().into(),
                });
            }
        }
        for (name, column) in file.types.iter().filter(|(name, _)| ***name != *options.time) {
            if **name == *TIMESTAMP {
                let problem =
                    "bears the name that the time has in what is read; rename it, or name it as the time";
                return Err(FolderError::Name { path: file.path.clone(), column: name.to_string(), problem });
            }
            let found = column.column_type();
            let held = file.logical.of(name, found);
            let key = options.keys.iter().any(|key| **key == **name);
            let Some((known, first)) = columns.iter_mut().find(|(known, _)| known.name == *name) else {
                columns.push((SchemaColumn { name: name.clone(), column_type: found, key }, file));
                types.insert(name.clone(), held);
                continue;
            };
            let expected = known.column_type;
            let before = types.of(name, expected);
            // Decimals go with those of their scale alone, and instants of a zone with those of none.
            let is_plain = matches!((&before, &held), (LogicalType::Plain(_), LogicalType::Plain(_)));
            let agree = is_plain || before.takes(&held) || held.takes(&before);
            let common = expected.common(found).filter(|_| agree && (!key || expected == found));
            let Some(common) = common else {
                return Err(FolderError::ColumnType {
                    column: name.to_string(),
                    key,
                    expected: before,
                    first: first.path.as_path().into(),
                    found: held,
                    path: file.path.as_path().into(),
                });
            };
            if common != expected || !before.takes(&held) && !is_plain {
                (known.column_type, *first) = (common, file);
            }
            if !is_plain && held.takes(&before) {
                types.insert(name.clone(), held);
            }
        }
    }
    let mut keys = Vec::new();
    for (at, key) in options.keys.iter().enumerate() {
        let refused = |problem| FolderError::Key { column: key.clone(), problem };
        if *key == options.time {
            return Err(refused("it is the time; leave it out of the keys"));
        }
        if options.keys.get(..at).is_some_and(|before| before.contains(key)) {
            return Err(refused("it is named twice; name it once"));
        }
        let Some(found) = columns.iter().position(|(column, _)| *column.name == **key) else {
            let known = columns.iter().map(|(column, _)| column.name.to_string()).collect();
            let (path, column) = (dir.to_path_buf(), key.clone());
            return Err(FolderError::NoColumn { path, column, role: "a key", known });
        };
        let (column, _) = columns.remove(found);
        if column.column_type == ColumnType::Bytes {
            return Err(refused("it holds bytes; use text, numbers or dates as keys"));
        }
        keys.push(column);
    }
    keys.extend(columns.into_iter().map(|(column, _)| column));
    zone.into_iter().for_each(|(zone, _)| types.insert(TIMESTAMP, zone));
    Ok((Schema { columns: keys }, types))
}
