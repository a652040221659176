//! Folders of files that are read where they lie: the same answers as of a series with the same rows, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alike;
mod refused;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use underbelly::arrow::{Folder, FolderError, Writer};
use underbelly::{Column, ColumnType, Columns, ReadError, Timestamp, Value};

/// Rows of a file, in batches.
pub(crate) type Batches = Vec<Columns>;

/// Writes a file; as a stream where its name says so.
pub(crate) fn write(path: &Path, batches: &[Columns]) {
    fn all(mut writer: Writer<File>, batches: &[Columns]) {
        batches.iter().for_each(|batch| writer.write(batch.clone()).unwrap());
        writer.finish().unwrap();
    }
    let (file, types) = (File::create(path).unwrap(), batches[0].slice(0..0));
    match path.extension().unwrap() == "arrows" {
        true => all(Writer::stream(file, &types).unwrap(), batches),
        false => all(Writer::file(file, &types).unwrap(), batches),
    }
}

/// A folder with files of these names.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub(crate) fn with(files: &[(&str, Batches)]) -> Place {
        let place = Place::new();
        files.iter().for_each(|(name, batches)| write(&place.path(name), batches));
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn open(&self) -> Result<Folder, FolderError> {
        Folder::open(self.dir(), "at", ["sym"])
    }

    /// Names, bytes and times of all that lies in it.
    fn contents(&self) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
        let entry = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            let modified = path.metadata().unwrap().modified().unwrap();
            (path.clone(), (fs::read(path).unwrap(), modified))
        };
        fs::read_dir(self.dir()).unwrap().map(entry).collect()
    }
}

/// A column of texts.
pub(crate) fn texts(texts: &[impl AsRef<str>]) -> Column {
    let mut column = Column::new(ColumnType::Utf8);
    texts.iter().for_each(|text| column.push(&text.as_ref().into()).unwrap());
    column
}

/// Rows with a time, a key and an integer.
pub(crate) fn rows(times: &[i64]) -> Columns {
    let at = Column::from(times.iter().map(|at| Timestamp(*at)).collect::<Vec<_>>());
    let syms: Vec<String> = times.iter().map(|at| format!("s{}", at.rem_euclid(3))).collect();
    let rows = Columns::new().with("at", at).unwrap().with("sym", texts(&syms)).unwrap();
    rows.with("n", times.iter().map(|at| at * 10).collect::<Vec<i64>>().into()).unwrap()
}

fn times(rows: &Columns) -> &[i64] {
    rows.timestamps("timestamp").unwrap()
}

#[test]
fn files_are_read_in_order_of_time_and_those_of_other_kinds_are_passed_over() {
    let place = Place::with(&[
        ("b.arrow", vec![rows(&[1, 2]), rows(&[]), rows(&[7])]),
        ("a.arrows", vec![rows(&[4, 5, 6])]),
        ("c.FEATHER", vec![rows(&[3])]),
    ]);
    fs::write(place.path("README.txt"), "what this is").unwrap();
    fs::write(place.path(".d.arrow"), "half a fi").unwrap();
    fs::create_dir(place.path("more.arrow")).unwrap();
    let folder = place.open().unwrap();
    let names: Vec<_> = folder.files().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["a.arrows", "b.arrow", "c.FEATHER"]);
    // They do not overlap, whatever the order of their names.
    assert_eq!((folder.batches(), folder.overlapping()), (4, 1));
    let all = folder.scan().collect().unwrap();
    assert_eq!(times(&all), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(all.names().iter().map(|n| &**n).collect::<Vec<_>>(), ["timestamp", "sym", "n"]);
    assert!(folder.schema().column("sym").unwrap().key && !folder.schema().column("n").unwrap().key);
    assert_eq!(folder.bounds().unwrap(), Some((Timestamp(1), Timestamp(7))));
    let of_key = folder.scan().key("sym", "s1").collect().unwrap();
    assert_eq!(times(&of_key), [1, 4, 7]);
}

#[test]
fn rows_of_a_record_batch_in_no_order_are_sorted_and_those_of_one_instant_stay_in_the_order_of_the_files() {
    let numbered = |times: &[i64], first: i64| {
        let n: Vec<i64> = (first..).take(times.len()).collect();
        let rows = rows(times);
        Columns::new()
            .with("at", rows.column("at").unwrap().clone())
            .and_then(|of| of.with("sym", rows.column("sym").unwrap().clone()))
            .and_then(|of| of.with("n", n.into()))
            .unwrap()
    };
    let place = Place::with(&[
        ("a.arrow", vec![numbered(&[5, 1, 5, 3], 0), numbered(&[5, 9], 4)]),
        ("b.arrow", vec![numbered(&[5, 2, 1], 6)]),
    ]);
    let folder = place.open().unwrap();
    let all = folder.scan().collect().unwrap();
    assert_eq!(times(&all), [1, 1, 2, 3, 5, 5, 5, 5, 9]);
    assert_eq!(all.i64s("n"), Some(&[1, 8, 7, 3, 0, 2, 4, 6, 5][..]));
    // The order is known whichever column comes first, and to each by itself.
    assert_eq!(folder.scan().columns(["n"]).collect().unwrap().i64s("n"), all.i64s("n"));
    let newest = folder.latest(3, &[]).unwrap();
    assert_eq!(newest.i64s("n"), Some(&[5, 6, 4][..]));
}

#[test]
fn batches_outside_of_the_range_and_columns_that_nobody_asks_for_are_not_read() {
    let place = Place::with(&[
        ("a.arrow", vec![rows(&[1, 2])]),
        ("b.arrow", vec![rows(&[3, 4])]),
        ("c.arrow", vec![rows(&[5, 6])]),
    ]);
    let folder = place.open().unwrap();
    fs::remove_file(place.path("a.arrow")).unwrap();
    fs::remove_file(place.path("c.arrow")).unwrap();
    assert_eq!(folder.count().unwrap(), 6); // from what was found when it was attached
    let within = folder.range(Timestamp(3), Timestamp(5)).unwrap();
    assert_eq!(times(&within), [3, 4]);
    let gone = folder.range(Timestamp(2), Timestamp(5)).unwrap_err().to_string();
    assert!(gone.contains("a.arrow") && gone.contains("cannot read"), "{gone}");
}

#[test]
fn a_column_that_is_the_beginning_of_a_path_elsewhere_stands_beside_it() {
    let named = |name: &str| {
        let mut columns = rows(&[1, 2]).into_columns();
        columns[2].0 = name.into();
        let mut renamed = Columns::new();
        columns.into_iter().for_each(|(name, column)| renamed.insert(name, column).unwrap());
        vec![renamed]
    };
    let place = Place::with(&[("a.arrow", named("quote")), ("b.arrow", named("quote.bid"))]);
    let all = place.open().unwrap().scan().collect().unwrap();
    let of = |name| (0..4).map(|row| all.value(name, row).unwrap()).collect::<Vec<_>>();
    assert_eq!(times(&all), [1, 1, 2, 2]);
    assert_eq!(of("quote"), [Value::I64(10), Value::Null, Value::I64(20), Value::Null]);
    assert_eq!(of("quote.bid"), [Value::Null, Value::I64(10), Value::Null, Value::I64(20)]);
}

#[test]
fn nothing_is_written_into_the_folder() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::with(&[("a.arrow", vec![rows(&[3, 1]), rows(&[2])])]);
    let before = place.contents();
    let mode = |mode| fs::set_permissions(place.dir(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    let folder = place.open().unwrap();
    folder.scan().collect().unwrap();
    folder.last_points().unwrap();
    drop(folder);
    mode(0o755);
    assert_eq!(place.contents(), before);
}

#[test]
fn dates_and_whole_numbers_are_times_too() {
    use underbelly::Date;
    let file = |at: Column| vec![Columns::new().with("at", at).unwrap()];
    let open = |place: &Place, ms: u64| {
        let number = std::time::Duration::from_millis(ms);
        let options = underbelly::arrow::FolderOptions { time: "at".into(), number, ..Default::default() };
        Folder::open_with(place.dir(), &options).map(|folder| folder.scan().collect().unwrap())
    };
    let place = Place::with(&[("a.arrow", file(vec![Date(2), Date(1)].into()))]);
    assert_eq!(times(&open(&place, 1).unwrap()), [86_400_000_000_000, 172_800_000_000_000]);
    let place = Place::with(&[("a.arrow", file(vec![7i64, 8].into()))]);
    assert_eq!(times(&open(&place, 1).unwrap()), [7_000_000, 8_000_000]);
    assert_eq!(times(&open(&place, 1_000).unwrap()), [7_000_000_000, 8_000_000_000]);
    let place = Place::with(&[("a.arrow", file(vec![7i64, i64::MAX].into()))]);
    let refused = open(&place, 1).unwrap_err().to_string();
    assert!(refused.contains("row 2") && refused.contains("1677"), "{refused}");
}

#[test]
fn a_folder_is_shared_and_outlives_who_opened_it() {
    let place = Place::with(&[("a.arrow", vec![rows(&[3, 1]), rows(&[2, 9, 4])])]);
    let folder = place.open().unwrap();
    let all = folder.scan().collect().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (folder, all) = (folder.clone(), &all);
            scope.spawn(move || {
                for _ in 0..50 {
                    assert_eq!(folder.scan().collect().unwrap(), *all);
                }
            });
        }
    });
}

/// What is wrong, as text.
pub(crate) fn said(error: Result<impl Sized, ReadError>) -> String {
    error.err().expect("it is refused").to_string()
}
