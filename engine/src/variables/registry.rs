//! Which variables are held by handles of this process, and what other processes are shown.
//!
//! A change is shown to handles just before snapshots see it and put on the board when it is durable, both in order of seqs.
//!
//! The lock is the last that anybody takes: publishing holds it under the log's.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use underbelly_storage::Timestamp;
use underbelly_storage::page::SharedPage;

use super::board::{Board, VARIABLES, retire};
use super::catalogue::{Name, Set, Variables};
use super::cell::{Cell, cell_words, to_words, value_words};
use super::value::{VariableType, VariableValue};
use crate::limits::VARIABLE_BYTES_MAX;

/// A cell that handles of this process read.
pub(crate) struct Held {
    page: Arc<SharedPage>,
    at: usize,
    pub variable_type: VariableType,
    pub value_words: usize,
    /// Who writes one that is in no log.
    writing: Mutex<()>,
}

impl Held {
    fn of_memory(variable_type: VariableType) -> Held {
        let value_words = value_words(variable_type, VARIABLE_BYTES_MAX);
        let page = Arc::new(SharedPage::memory(cell_words(value_words)));
        Held { page, at: 0, variable_type, value_words, writing: Mutex::default() }
    }

    #[inline]
    pub(crate) fn cell(&self) -> Option<Cell<'_>> {
        Cell::new(self.page.words().get(self.at..)?, self.value_words)
    }

    /// Sets one that is in no log.
    pub(crate) fn set(&self, words: &[u64], time: Timestamp) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = self.cell() {
            cell.write(Some(words), 0, time);
        }
    }
}

/// A variable that a transaction changed, and to what.
pub(crate) type Changed = (Arc<Name>, Option<Arc<Set>>);

enum Sharing {
    /// Nothing was shared yet; the path is where it would be.
    Unused(PathBuf),
    Used(Board),
    /// There is no such place, or it cannot be written.
    Never,
}

struct Inner {
    /// By name and whether they are in the log; one for each type that was asked for.
    held: HashMap<(Arc<Name>, bool), Vec<Arc<Held>>>,
    /// Changes that are visible and not durable yet.
    waiting: VecDeque<(u64, Changed)>,
    /// Changes up to here were shown to all handles that there were.
    shown: u64,
    sharing: Sharing,
}

/// The handles' and the board's side of variables.
pub(crate) struct Registry {
    inner: Mutex<Inner>,
    database: [u8; 16],
    /// Where it is told that other processes are not shown everything.
    trouble: Arc<Mutex<Option<String>>>,
    /// Who waits for a change of one that is in no log.
    waits: AtomicUsize,
    gate: Mutex<()>,
    changed: Condvar,
}

impl Registry {
    /// A registry that shares with other processes at this path, if there is one. What an earlier process shared is
    /// over; what the log holds is shared from the begin, so that no reader has to know what earlier ones showed.
    pub(crate) fn new(
        path: Option<PathBuf>,
        database: [u8; 16],
        logged: &Variables,
        trouble: Arc<Mutex<Option<String>>>,
    ) -> Registry {
        let sharing = match path.map(|path| (retire(&path), path)) {
            None => Sharing::Never,
            // Nobody was shown anything that might be gone.
            Some((Ok(false), path)) if logged.len() == 0 => Sharing::Unused(path),
            Some((Ok(_), path)) => Sharing::begin(&path, database, logged, &trouble),
            // What cannot be taken away is not written over either.
            Some((Err(error), _)) => {
                note_unshared(&trouble, &error);
                Sharing::Never
            }
        };
        let inner = Inner { held: HashMap::new(), waiting: VecDeque::new(), shown: 0, sharing };
        Registry {
            inner: Mutex::new(inner),
            database,
            trouble,
            waits: AtomicUsize::new(0),
            gate: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder is given up: from now on nothing is made there.
    pub(crate) fn end(&self) {
        let mut inner = self.inner();
        if let Sharing::Unused(_) = inner.sharing {
            inner.sharing = Sharing::Never;
        }
    }

    /// The cell for a variable of the log; `current` reads what it holds as of a seq or later, where no change was shown
    /// meanwhile.
    pub(crate) fn hold(
        &self,
        name: &Arc<Name>,
        variable_type: VariableType,
        current: impl FnOnce(u64) -> Option<Arc<Set>>,
    ) -> Arc<Held> {
        let (held, shown) = {
            let mut inner = self.inner();
            let held = inner.find(name, variable_type, true).unwrap_or_else(|| {
                let held = Arc::new(Held::of_memory(variable_type));
                inner.keep((name.clone(), true), held.clone());
                held
            });
            (held, inner.shown)
        };
        let is_new = held.cell().is_some_and(|cell| cell.count() == 0);
        if is_new {
            // Outside the lock, which is the last that anybody takes.
            let set = current(shown);
            let _inner = self.inner();
            if let Some(cell) = held.cell().filter(|cell| cell.count() == 0) {
                show(&held, &cell, set.as_deref());
            }
        }
        held
    }

    /// The cell for a variable that is in no log; its type where that is another.
    pub(crate) fn hold_unlogged(
        &self,
        name: &Arc<Name>,
        variable_type: VariableType,
    ) -> Result<Arc<Held>, VariableType> {
        let mut inner = self.inner();
        // Two types would be two cells, of which other processes see one.
        if let Some(held) = inner.held.get(&(name.clone(), false)).and_then(|held| held.first()) {
            return if held.variable_type == variable_type {
                Ok(held.clone())
            } else {
                Err(held.variable_type)
            };
        }
        let board = inner.sharing.board(self.database, &self.trouble);
        let spot = board.and_then(|board| {
            let spot = board.empty(&(name.clone(), false), variable_type, VARIABLE_BYTES_MAX);
            if spot.is_none() {
                note_full(&self.trouble);
            }
            Some((board.page().clone(), spot?))
        });
        let held = Arc::new(match spot {
            Some((page, spot)) => Held {
                page,
                at: spot.at,
                variable_type,
                value_words: spot.value_words,
                writing: Mutex::default(),
            },
            None => Held::of_memory(variable_type),
        });
        inner.keep((name.clone(), false), held.clone());
        Ok(held)
    }

    /// Shows a change that is visible now.
    pub(crate) fn show(&self, seq: u64, changes: Vec<Changed>) {
        let mut inner = self.inner();
        inner.shown = inner.shown.max(seq);
        for (name, set) in changes {
            let key = (name, true);
            for held in inner.held.get(&key).into_iter().flatten() {
                if let Some(cell) = held.cell() {
                    show(held, &cell, set.as_deref());
                }
            }
            if !matches!(inner.sharing, Sharing::Never) {
                inner.waiting.push_back((seq, (key.0, set)));
            }
        }
    }

    /// Puts what is durable on the board.
    pub(crate) fn tell(&self, durable: u64) {
        let mut inner = self.inner();
        while inner.waiting.front().is_some_and(|(seq, _)| *seq <= durable) {
            let Some((seq, (name, set))) = inner.waiting.pop_front() else { return };
            let Some(board) = inner.sharing.board(self.database, &self.trouble) else { continue };
            let (value, time) = set.as_ref().map_or((None, Timestamp(0)), |set| (Some(&set.value), set.time));
            if !board.publish(&(name, true), value, seq, time) {
                note_full(&self.trouble);
            }
        }
    }

    /// Tells who waits that a variable of no log changed.
    #[inline]
    pub(crate) fn ring(&self) {
        // Who waits is counted before it looks at the value, which was set before.
        fence(Ordering::SeqCst);
        if self.waits.load(Ordering::SeqCst) > 0 {
            drop(self.gate.lock());
            self.changed.notify_all();
        }
    }

    /// Waits until a variable of no log changed, or `timeout` has passed.
    pub(crate) fn wait(&self, timeout: Duration, mut waits: impl FnMut() -> bool) {
        self.waits.fetch_add(1, Ordering::SeqCst);
        // Pairs with that of `ring`: who sets a value sees that somebody waits, or who waits sees the value.
        fence(Ordering::SeqCst);
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_timeout_while(gate, timeout, |()| waits()));
        self.waits.fetch_sub(1, Ordering::SeqCst);
    }
}

fn note(trouble: &Mutex<Option<String>>, what: String) {
    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
}

fn note_unshared(trouble: &Mutex<Option<String>>, error: &std::io::Error) {
    note(trouble, format!("other processes do not see variables before they refresh: {VARIABLES}: {error}"));
}

fn note_full(trouble: &Mutex<Option<String>>) {
    let what = "has no room for more; of the log they see those that are new or grew in snapshots alone, and of \
                those in no log not at all, until the database is opened anew";
    note(trouble, format!("other processes do not see all variables: {VARIABLES} {what}"));
}

impl Sharing {
    /// A page set with all that the log holds.
    fn begin(
        path: &Path,
        database: [u8; 16],
        logged: &Variables,
        trouble: &Mutex<Option<String>>,
    ) -> Sharing {
        let mut board = match Board::create(path, database) {
            Ok(board) => board,
            Err(error) => {
                note_unshared(trouble, &error);
                return Sharing::Never;
            }
        };
        for (name, set) in logged.all() {
            if !board.publish(&(name.clone(), true), Some(&set.value), set.seq, set.time) {
                note_full(trouble);
                break;
            }
        }
        Sharing::Used(board.begun())
    }

    fn board(&mut self, database: [u8; 16], trouble: &Mutex<Option<String>>) -> Option<&mut Board> {
        if let Sharing::Unused(path) = self {
            *self = Sharing::begin(path, database, &Variables::default(), trouble);
        }
        match self {
            Sharing::Used(board) => Some(board),
            _ => None,
        }
    }
}

impl Inner {
    fn find(&self, name: &Arc<Name>, variable_type: VariableType, is_logged: bool) -> Option<Arc<Held>> {
        let held = self.held.get(&(name.clone(), is_logged))?;
        held.iter().find(|held| held.variable_type == variable_type).cloned()
    }

    /// Keeps a cell. Those of the log that no handle reads any more go when there are many.
    fn keep(&mut self, key: (Arc<Name>, bool), held: Arc<Held>) {
        if self.held.len() == self.held.capacity() {
            self.held.retain(|(_, is_logged), cells| {
                cells.retain(|held| !is_logged || Arc::strong_count(held) > 1);
                !cells.is_empty()
            });
        }
        self.held.entry(key).or_default().push(held);
    }
}

fn show(held: &Held, cell: &Cell<'_>, set: Option<&Set>) {
    let words = set.and_then(|set| to_words(&set.value, held.variable_type, held.value_words));
    let (seq, time) = set.map_or((0, Timestamp(0)), |set| (set.seq, set.time));
    cell.write(words.as_deref(), seq, time);
}

/// The value of a cell, with the count of values.
pub(crate) fn read_value(held: &Held) -> (u64, Option<(VariableValue, u64, Timestamp)>) {
    let mut words = vec![0; held.value_words];
    let Some(cell) = held.cell() else { return (0, None) };
    let (count, at) = cell.read(&mut words);
    let value =
        at.and_then(|(seq, time)| Some((super::cell::of_words(&words, held.variable_type)?, seq, time)));
    (count, value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use crossbeam_channel::bounded;
    use underbelly_storage::disk::SimulatedDisk;
    use underbelly_wal::Publisher;

    use crate::batch::Batch;
    use crate::clock::SystemClock;
    use crate::database::Database;
    use crate::durability::Durability;
    use crate::options::Options;
    use crate::parking::Bell;
    use crate::signals::{Publication, Signals};
    use crate::variables::{BoardReader, Name, Scope};

    use super::*;

    /// A handle that is made between a change that other handles were shown and its seq shows it too.
    #[test]
    fn a_new_handle_shows_what_others_were_shown() {
        let options = Options { workers: 0, ..Options::default() };
        let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
        let core = db.core();
        let mut batch = Batch::new();
        batch.set_variable(Scope::Global, "n", 2i64);
        let prepared = core.prepare(batch).unwrap();
        let (commit, _) = core.sequence(prepared, Durability::Sync, |_| Ok(())).unwrap();
        assert!(core.signals.visible() < commit.seq);
        let name = Arc::new(Name::new(&Scope::Global, "n"));
        let set = core.state().variables.newest(&name).cloned();
        core.signals.registry.show(commit.seq, vec![(name, set)]);
        assert_eq!(db.var::<i64>(&Scope::Global, "n").unwrap().get(), Some(2));
        core.answer(commit.seq, Durability::Sync).unwrap();
    }

    /// Who refreshes a reader at once, or finds the process that writes dead then, has handles that are as new.
    #[test]
    fn other_processes_see_variables_before_they_hear_of_their_transaction() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(VARIABLES);
        let registry = Registry::new(Some(path.clone()), [7; 16], &Variables::default(), Arc::default());
        let (clock, (duties, _duties), (alarm, _alarm)) = (Arc::new(SystemClock), bounded(9), bounded(1));
        let signals = Arc::new(Signals::new(0, Bell::new(0), duties, alarm, clock, registry));
        let name = Arc::new(Name::new(&Scope::Global, "n"));
        let key = (name.clone(), true);
        let shown = Arc::new(move || {
            let (page, spot) = BoardReader::new(path.clone(), [7; 16]).spot(&key)?;
            Cell::new(&page.words()[spot.at..], spot.value_words)?.word()
        });
        let heard: Arc<Mutex<Vec<_>>> = Arc::default();
        let (hears, looks) = (heard.clone(), shown.clone());
        signals.on_durable(move |seq| hears.lock().unwrap().push((seq, looks())));
        let set = Set { value: 4711i64.into(), seq: 1, time: Timestamp(0) };
        let variables = vec![(name, Some(Arc::new(set)))];
        let (transitions, ready) = (Vec::new(), Vec::new());
        let publication = Publication { sequenced: Instant::now(), due: None, transitions, ready, variables };
        signals.publish(1, &mut std::iter::once((1, publication)));
        assert_eq!(shown(), None, "it may be lost yet");
        signals.synced(1);
        assert_eq!(*heard.lock().unwrap(), [(1, Some(4711))]);
    }

    #[test]
    fn cells_that_nobody_reads_go() {
        let registry = Registry::new(None, [0; 16], &Variables::default(), Arc::default());
        let name = |n: i32| Arc::new(Name::new(&Scope::Global, &n.to_string()));
        let read = registry.hold(&name(-1), VariableType::I64, |_| None);
        registry.hold_unlogged(&name(-1), VariableType::I64).unwrap();
        for n in 0..1_000 {
            registry.hold(&name(n), VariableType::I64, |_| None);
        }
        assert!(registry.inner().held.len() < 20);
        let again = registry.hold(&name(-1), VariableType::I64, |_| None);
        assert!(Arc::ptr_eq(&read, &again));
        assert!(registry.inner().held.contains_key(&(name(-1), false)), "it holds the only value");
    }
}
