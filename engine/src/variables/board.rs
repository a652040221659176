//! The page set of variables: what reader processes see without asking anybody.
//!
//! A file of words (`VARIABLES`), made by an opening, or by the first change where there was no variable and no such file
//! before, and never synced; recovery does not look at it. All variables of the log stand in it, unless it says that it is
//! full: the writer appends an entry for each that is new and then writes its cell; readers look for entries behind those
//! that they know. What is published here is durable, or belongs to no log. A file that another writer replaced says so in
//! its head; one of an earlier start of the machine says nothing.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use underbelly_storage::Timestamp;
use underbelly_storage::page::SharedPage;

use super::catalogue::Name;
use super::cell::{Cell, cell_words, to_words, value_words};
use super::record::{name_of, put_name};
use super::value::{VariableType, VariableValue};
use crate::limits::VARIABLE_BYTES_MAX;
use crate::shared;
use crate::view::Base;

/// The file's name.
pub(crate) const VARIABLES: &str = "VARIABLES";

const MAGIC: u64 = u64::from_le_bytes(*b"UBVARS01");
/// Words of the head: magic, two of the database, two of the boot, state, used words, whether it is full.
const HEAD: usize = 64;
const STATE: usize = 5;
const USED: usize = 6;
const FULL: usize = 7;
/// The states: what the log holds is being written, it is shown, another writer came.
const FILLED: u64 = 0;
const IN_USE: u64 = 1;
const REPLACED: u64 = 2;
/// Words of the whole file, most of which are never written.
const WORDS: usize = 16 << 20;
/// Words for which space is taken at a time.
const STEP: usize = 128 << 10;
/// Words of a cache line; entries and cells begin with one.
const LINE: usize = 8;
/// Words of an entry before the name: its words, type, words of a value, bytes of the name.
const ENTRY_HEAD: usize = 4;
/// Set in the type's word where the variable is in no log.
const UNLOGGED: u64 = 1 << 63;

fn halves(number: [u8; 16]) -> [u64; 2] {
    let number = u128::from_le_bytes(number);
    [number as u64, (number >> 64) as u64]
}

fn type_word(variable_type: VariableType, is_logged: bool) -> u64 {
    let word = match variable_type {
        VariableType::Bool => 1,
        VariableType::I64 => 2,
        VariableType::F64 => 3,
        VariableType::Array(length) => 4 | (length as u64) << 8,
        VariableType::Bytes => 5,
    };
    if is_logged { word } else { word | UNLOGGED }
}

fn type_of(word: u64) -> Option<(VariableType, bool)> {
    let (is_logged, word) = (word & UNLOGGED == 0, word & !UNLOGGED);
    let length = usize::try_from(word >> 8).ok().filter(|length| *length <= VARIABLE_BYTES_MAX / 8)?;
    let variable_type = match (word & 0xff, length) {
        (1, 0) => VariableType::Bool,
        (2, 0) => VariableType::I64,
        (3, 0) => VariableType::F64,
        (4, length) => VariableType::Array(length),
        (5, 0) => VariableType::Bytes,
        _ => return None,
    };
    Some((variable_type, is_logged))
}

/// A variable on the board, and whether it is in the log.
type Key = (Arc<Name>, bool);

#[derive(Clone, Copy)]
pub(crate) struct Spot {
    pub variable_type: VariableType,
    pub value_words: usize,
    /// Where its cell begins.
    pub at: usize,
}

/// The writer's side.
pub(crate) struct Board {
    page: Arc<SharedPage>,
    spots: HashMap<Key, Spot>,
    reserved: usize,
}

impl Board {
    /// Puts an empty page set in the place of one that is there. Readers look at it once it is [`Board::begun`].
    pub(crate) fn create(path: &Path, database: [u8; 16]) -> io::Result<Board> {
        let page = SharedPage::create(path, WORDS, STEP)?;
        let [database_low, database_high] = halves(database);
        let [boot_low, boot_high] = halves(shared::boot());
        let head = [MAGIC, database_low, database_high, boot_low, boot_high, FILLED, HEAD as u64];
        for (word, value) in page.words().iter().zip(head).skip(1) {
            word.store(value, Ordering::Relaxed);
        }
        // Whoever sees the magic sees the rest.
        page.words().iter().take(1).for_each(|word| word.store(MAGIC, Ordering::Release));
        Ok(Board { page: Arc::new(page), spots: HashMap::new(), reserved: STEP })
    }

    /// Shows it to readers: all that the log holds stands in it.
    pub(crate) fn begun(self) -> Board {
        self.page.words().iter().skip(STATE).take(1).for_each(|state| state.store(IN_USE, Ordering::Release));
        self
    }

    pub(crate) fn page(&self) -> &Arc<SharedPage> {
        &self.page
    }

    /// A place for a variable that has none yet, without a value; `None` where the page set is full.
    pub(crate) fn empty(&mut self, key: &Key, variable_type: VariableType, bytes: usize) -> Option<Spot> {
        self.append(key, variable_type, bytes, |_| ())
    }

    /// Appends an entry, of which readers know once `fill` has written its cell.
    fn append(
        &mut self,
        key: &Key,
        variable_type: VariableType,
        bytes: usize,
        fill: impl FnOnce(&Cell<'_>),
    ) -> Option<Spot> {
        let needed = words_for(variable_type, bytes);
        let mut name = Vec::new();
        put_name(&mut name, &key.0);
        let words = self.page.words();
        let used = words.get(USED)?;
        let from = used.load(Ordering::Relaxed) as usize;
        let at = (from + ENTRY_HEAD + name.len().div_ceil(8)).next_multiple_of(LINE);
        let end = (at + cell_words(needed)).next_multiple_of(LINE);
        while end > self.reserved {
            let next = self.reserved + STEP;
            if end > words.len() || self.page.reserve(self.reserved..next).is_err() {
                words.get(FULL)?.store(1, Ordering::Release);
                return None;
            }
            self.reserved = next;
        }
        let head = [(end - from) as u64, type_word(variable_type, key.1), needed as u64, name.len() as u64];
        let name = name.chunks(8).map(|part| {
            let mut word = [0; 8];
            word.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(word)
        });
        for (word, value) in words.get(from..)?.iter().zip(head.into_iter().chain(name)) {
            word.store(value, Ordering::Relaxed);
        }
        let spot = Spot { variable_type, value_words: needed, at };
        fill(&self.cell(&spot)?);
        used.store(end as u64, Ordering::Release);
        self.spots.insert(key.clone(), spot);
        Some(spot)
    }

    fn cell(&self, spot: &Spot) -> Option<Cell<'_>> {
        Cell::new(self.page.words().get(spot.at..)?, spot.value_words)
    }

    /// Shows what a variable holds now; false where there is no room for it, and readers find no value.
    pub(crate) fn publish(
        &mut self,
        key: &Key,
        value: Option<&VariableValue>,
        seq: u64,
        time: Timestamp,
    ) -> bool {
        let before = self.spots.get(key).copied();
        let Some(value) = value else {
            // One that has no place may be known to readers from the log.
            if let Some(cell) = before.and_then(|spot| self.cell(&spot)) {
                cell.write(None, seq, time);
                return true;
            }
            return self.append(key, VariableType::Bool, 0, |cell| cell.write(None, seq, time)).is_some();
        };
        let (variable_type, bytes) = (value.variable_type(), value.byte_size());
        let needed = words_for(variable_type, bytes);
        let fits = |spot: &Spot| spot.variable_type == variable_type && spot.value_words >= needed;
        if let Some(cell) = before.filter(fits).and_then(|spot| self.cell(&spot)) {
            // Of a longer place the rest is not looked at.
            let words = to_words(value, variable_type, usize::MAX);
            cell.write(words.as_deref(), seq, time);
            return true;
        }
        let words = to_words(value, variable_type, needed);
        let moved = self.append(key, variable_type, bytes, |cell| cell.write(words.as_deref(), seq, time));
        // Whoever reads the old place finds nothing there by now, and looks for the new one; where that has no room, nobody changed
        // the old one, and what readers know from the log counts.
        if let Some(cell) = before.and_then(|spot| self.cell(&spot)) {
            cell.write(None, if moved.is_some() { seq } else { 0 }, time);
        }
        moved.is_some()
    }
}

/// Words for the value of a variable of this type, with room for longer bytes than these.
fn words_for(variable_type: VariableType, bytes: usize) -> usize {
    value_words(variable_type, bytes.next_power_of_two().clamp(64, VARIABLE_BYTES_MAX))
}

/// Tells who reads an older page set that it is over, and takes its name away. Answers whether there was one.
pub(crate) fn retire(path: &Path) -> io::Result<bool> {
    let about = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        about => about?,
    };
    let told = tell_replaced(path, &about);
    // Who begins to read then finds none, also where those who have it mapped cannot be told.
    let removed = fs::remove_file(path);
    told.and(removed).map(|()| true)
}

/// Writes into a page set that it is over.
fn tell_replaced(path: &Path, about: &fs::Metadata) -> io::Result<()> {
    if about.is_file() && about.len() as usize >= HEAD * 8 {
        let file = fs::File::options().read(true).write(true).open(path)?;
        let mut magic = [0; 8];
        file.read_exact_at(&mut magic, 0)?;
        // The block is there, so nothing is taken of a full disk; who has it mapped sees the word change.
        if magic == MAGIC.to_le_bytes() {
            file.write_all_at(&REPLACED.to_le_bytes(), (STATE * 8) as u64)?;
        }
    }
    Ok(())
}

/// A reader's side.
pub(crate) struct BoardReader {
    path: PathBuf,
    database: [u8; 16],
    page: Option<Arc<SharedPage>>,
    seen: usize,
    spots: HashMap<Key, Spot>,
    /// What the reader shows of the log.
    pub own: Weak<Base>,
}

impl BoardReader {
    pub(crate) fn new(path: PathBuf, database: [u8; 16]) -> BoardReader {
        BoardReader { path, database, page: None, seen: HEAD, spots: HashMap::new(), own: Weak::new() }
    }

    /// The page set in use, if there is one. The one that was looked at last is kept until there is.
    ///
    /// # Errors
    /// What the operating system says where there is one that cannot be looked at.
    pub(crate) fn page(&mut self) -> io::Result<Option<Arc<SharedPage>>> {
        if let Some(page) = self.page.as_ref().filter(|page| is_in_use(page.words())) {
            return Ok(Some(page.clone()));
        }
        let page = match SharedPage::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            page => page?,
        };
        let words = page.words();
        let word = |at: usize| words.get(at).map_or(0, |word| word.load(Ordering::Acquire));
        let is_ours =
            [word(1), word(2)] == halves(self.database) && [word(3), word(4)] == halves(shared::boot());
        if word(0) != MAGIC || !is_ours || !is_in_use(words) {
            return Ok(None);
        }
        self.spots.clear();
        (self.page, self.seen) = (Some(Arc::new(page)), HEAD);
        Ok(self.page.clone())
    }

    /// The place of a variable in the page set in use, looked for behind those that are known.
    #[cfg(test)]
    pub(crate) fn spot(&mut self, key: &Key) -> Option<(Arc<SharedPage>, Spot)> {
        self.page().ok()??;
        self.last_spot(key)
    }

    /// The same in the page set that was looked at last, which may be over.
    pub(crate) fn last_spot(&mut self, key: &Key) -> Option<(Arc<SharedPage>, Spot)> {
        let page = self.page.clone()?;
        let words = page.words();
        let used = words.get(USED)?.load(Ordering::Acquire) as usize;
        while self.seen < used.min(words.len()) {
            // How long an entry is stands first: one of a type that is not known here is passed over.
            let Some(end) = end_of(words, self.seen) else { break };
            if let Some((key, spot)) = entry(words, self.seen, end) {
                self.spots.insert(key, spot);
            }
            self.seen = end;
        }
        let spot = *self.spots.get(key)?;
        Some((page, spot))
    }

    /// Names of all variables that stand there.
    pub(crate) fn keys(&mut self) -> Vec<(Key, Spot)> {
        let nobody = (Arc::new(Name::new(&super::Scope::Global, "")), true);
        let _ = self.last_spot(&nobody);
        self.spots.iter().map(|(key, spot)| (key.clone(), *spot)).collect()
    }
}

/// Whether a variable had no room.
pub(crate) fn is_full(words: &[AtomicU64]) -> bool {
    words.get(FULL).is_some_and(|full| full.load(Ordering::Acquire) != 0)
}

pub(crate) fn is_in_use(words: &[AtomicU64]) -> bool {
    words.get(STATE).is_some_and(|state| state.load(Ordering::Acquire) == IN_USE)
}

/// Where the entry that begins here ends; `None` where that makes no sense.
fn end_of(words: &[AtomicU64], from: usize) -> Option<usize> {
    let length = usize::try_from(words.get(from)?.load(Ordering::Relaxed)).ok()?;
    from.checked_add(length).filter(|end| *end <= words.len() && length > ENTRY_HEAD)
}

/// The entry that lies there; `None` where it makes no sense.
fn entry(words: &[AtomicU64], from: usize, end: usize) -> Option<(Key, Spot)> {
    let word = |at: usize| words.get(from + at).map(|word| word.load(Ordering::Relaxed));
    let (variable_type, is_logged) = type_of(word(1)?)?;
    let value_words = usize::try_from(word(2)?).ok().filter(|words| *words <= VARIABLE_BYTES_MAX / 8 + 1)?;
    let bytes = usize::try_from(word(3)?).ok().filter(|bytes| *bytes <= 1024)?;
    let name: Vec<u8> =
        (0..bytes.div_ceil(8)).filter_map(|at| word(ENTRY_HEAD + at)).flat_map(u64::to_le_bytes).collect();
    let name = name_of(name.get(..bytes)?)?;
    let at = (from + ENTRY_HEAD + bytes.div_ceil(8)).next_multiple_of(LINE);
    if at + cell_words(value_words) > end {
        return None;
    }
    Some(((Arc::new(name), is_logged), Spot { variable_type, value_words, at }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Scope;
    use super::*;

    fn key(name: &str) -> Key {
        (Arc::new(Name::new(&Scope::asset("IBM"), name)), true)
    }

    fn value(reader: &mut BoardReader, name: &str) -> Option<VariableValue> {
        let (page, spot) = reader.spot(&key(name))?;
        let mut words = vec![0; spot.value_words];
        Cell::new(&page.words()[spot.at..], spot.value_words)?.read(&mut words).1?;
        super::super::cell::of_words(&words, spot.variable_type)
    }

    #[test]
    fn what_is_published_is_found_and_changes_of_type_move_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(VARIABLES);
        let mut board = Board::create(&path, [7; 16]).unwrap().begun();
        let mut reader = BoardReader::new(path.clone(), [7; 16]);
        assert_eq!(value(&mut reader, "a"), None);
        for (seq, new) in
            [1.5.into(), 2.5.into(), VariableValue::from(3i64), vec![0u8; 9].into(), vec![1u8; 900].into()]
                .into_iter()
                .enumerate()
        {
            board.publish(&key("a"), Some(&new), seq as u64, Timestamp(0));
            assert_eq!(value(&mut reader, "a"), Some(new));
        }
        board.publish(&key("a"), None, 9, Timestamp(0));
        assert_eq!(value(&mut reader, "a"), None);
        for n in 0..20_000 {
            board.publish(&key(&format!("v{n}")), Some(&f64::from(n).into()), 1, Timestamp(0));
        }
        assert_eq!(value(&mut reader, "v19999"), Some(19_999.0.into()));
        assert!(value(&mut BoardReader::new(path.clone(), [8; 16]), "v1").is_none(), "another database's");
        // Another writer begins.
        retire(&path).unwrap();
        assert_eq!(value(&mut reader, "v1"), None);
        let mut board = Board::create(&path, [7; 16]).unwrap().begun();
        board.publish(&key("v1"), Some(&7i64.into()), 1, Timestamp(0));
        assert_eq!(value(&mut reader, "v1"), Some(7i64.into()));
    }

    /// Whoever reads while a value moves finds the one before until the new one is whole.
    #[test]
    fn a_value_that_moves_is_always_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(VARIABLES);
        let mut board = Board::create(&path, [7; 16]).unwrap().begun();
        board.publish(&key("a"), Some(&1.5.into()), 1, Timestamp(0));
        let mut reader = BoardReader::new(path, [7; 16]);
        let moved = board.append(&key("a"), VariableType::I64, 8, |cell| {
            assert_eq!(value(&mut reader, "a"), Some(1.5.into()));
            cell.write(Some(&[7]), 2, Timestamp(0));
            assert_eq!(value(&mut reader, "a"), Some(1.5.into()));
        });
        assert!(moved.is_some());
        assert_eq!(value(&mut reader, "a"), Some(7i64.into()));
    }

    /// A variable for which there is no room is shown by no older value.
    #[test]
    fn a_full_page_set_shows_nothing_rather_than_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(VARIABLES);
        let mut board = Board::create(&path, [7; 16]).unwrap().begun();
        assert!(board.publish(&key("a"), Some(&1.5.into()), 1, Timestamp(0)));
        assert!(board.publish(&key("b"), Some(&2.5.into()), 1, Timestamp(0)));
        let mut reader = BoardReader::new(path, [7; 16]);
        assert!(!is_full(board.page().words()));
        board.page().words()[USED].store(WORDS as u64, Ordering::Relaxed);
        assert!(!board.publish(&key("a"), Some(&3i64.into()), 2, Timestamp(0)), "it would have to move");
        assert!(board.publish(&key("b"), Some(&3.5.into()), 2, Timestamp(0)));
        assert!(!board.publish(&key("c"), Some(&4.5.into()), 2, Timestamp(0)));
        assert!(!board.publish(&key("d"), None, 2, Timestamp(0)), "readers may know it from the log");
        assert!(is_full(board.page().words()));
        assert_eq!((value(&mut reader, "a"), value(&mut reader, "b")), (None, Some(3.5.into())));
        let changed = |board: &Board, name: &str| board.cell(&board.spots[&key(name)]).unwrap().changed();
        assert_eq!((changed(&board, "a"), changed(&board, "b")), (Some(0), Some(2)), "the log counts");
        assert!(board.publish(&key("a"), Some(&5.5.into()), 3, Timestamp(0)), "it fits again");
        assert_eq!((value(&mut reader, "a"), changed(&board, "a")), (Some(5.5.into()), Some(3)));
    }

    /// A type of a later program hides none of the variables behind it.
    #[test]
    fn an_entry_of_no_known_type_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(VARIABLES);
        let mut board = Board::create(&path, [7; 16]).unwrap().begun();
        board.publish(&key("a"), Some(&1.5.into()), 1, Timestamp(0));
        let used = board.page().words()[USED].load(Ordering::Relaxed) as usize;
        board.publish(&key("b"), Some(&2.5.into()), 1, Timestamp(0));
        board.page().words()[used + 1].store(99, Ordering::Relaxed);
        board.publish(&key("c"), Some(&3.5.into()), 1, Timestamp(0));
        let mut reader = BoardReader::new(path, [7; 16]);
        let values = ["a", "b", "c"].map(|name| value(&mut reader, name));
        assert_eq!(values, [Some(1.5.into()), None, Some(3.5.into())]);
    }

    /// Words that anybody could have written are never believed beyond the page.
    #[test]
    fn entries_that_lie_are_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(VARIABLES);
        let mut board = Board::create(&path, [7; 16]).unwrap().begun();
        board.publish(&key("a"), Some(&vec![1.0, 2.0].into()), 1, Timestamp(0));
        let words = board.page().words();
        let used = words[USED].load(Ordering::Relaxed) as usize;
        for word in &words[HEAD..used] {
            let sound = word.load(Ordering::Relaxed);
            for lie in [0, 1, 4, 7, 1 << 20, u64::MAX, u64::MAX >> 1, 4 | 513 << 8] {
                word.store(lie, Ordering::Relaxed);
                let _ = value(&mut BoardReader::new(path.clone(), [7; 16]), "a");
            }
            word.store(sound, Ordering::Relaxed);
        }
        words[USED].store(u64::MAX, Ordering::Relaxed);
        assert!(value(&mut BoardReader::new(path.clone(), [7; 16]), "a").is_some());
    }
}
