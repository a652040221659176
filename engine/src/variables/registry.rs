//! Which variables are held by handles of this process, and what other processes are shown.
//!
//! A change is shown to handles when it is visible and put on the board when it is durable, both in order of seqs.
//!
//! The lock is the last that anybody takes: publishing holds it under the log's.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use underbelly_storage::Timestamp;
use underbelly_storage::page::SharedPage;

use super::board::{Board, retire};
use super::catalogue::{Name, Set};
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
    sharing: Sharing,
}

/// The handles' and the board's side of variables.
pub(crate) struct Registry {
    inner: Mutex<Inner>,
    database: [u8; 16],
    /// Who waits for a change of one that is in no log.
    waits: AtomicUsize,
    gate: Mutex<()>,
    changed: Condvar,
}

impl Registry {
    /// A registry that shares with other processes at this path, if there is one. What an earlier process shared is
    /// over.
    pub(crate) fn new(path: Option<PathBuf>, database: [u8; 16]) -> Registry {
        let sharing = match path {
            // What cannot be taken away is not written over either.
            Some(path) if retire(&path).is_ok_or_absent() => Sharing::Unused(path),
            _ => Sharing::Never,
        };
        let inner = Inner { held: HashMap::new(), waiting: VecDeque::new(), sharing };
        Registry {
            inner: Mutex::new(inner),
            database,
            waits: AtomicUsize::new(0),
            gate: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cell for a variable of the log; `current` reads what it holds now, where no change was shown meanwhile.
    pub(crate) fn hold(
        &self,
        name: &Arc<Name>,
        variable_type: VariableType,
        current: impl FnOnce() -> Option<Arc<Set>>,
    ) -> Arc<Held> {
        let held = {
            let mut inner = self.inner();
            inner.find(name, variable_type, true).unwrap_or_else(|| {
                let held = Arc::new(Held::of_memory(variable_type));
                inner.held.entry((name.clone(), true)).or_default().push(held.clone());
                held
            })
        };
        let is_new = held.cell().is_some_and(|cell| cell.count() == 0);
        if is_new {
            // Outside the lock, which is the last that anybody takes.
            let set = current();
            let _inner = self.inner();
            if let Some(cell) = held.cell().filter(|cell| cell.count() == 0) {
                show(&held, &cell, set.as_deref());
            }
        }
        held
    }

    /// The cell for a variable that is in no log.
    pub(crate) fn hold_unlogged(&self, name: &Arc<Name>, variable_type: VariableType) -> Arc<Held> {
        let mut inner = self.inner();
        if let Some(held) = inner.find(name, variable_type, false) {
            return held;
        }
        let database = self.database;
        let board = inner.sharing.board(database);
        let spot = board.and_then(|board| {
            let spot = board.spot(&(name.clone(), false), variable_type, VARIABLE_BYTES_MAX)?;
            Some((board.page().clone(), spot))
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
        inner.held.entry((name.clone(), false)).or_default().push(held.clone());
        held
    }

    /// Shows a change that is visible now.
    pub(crate) fn show(&self, seq: u64, changes: Vec<Changed>) {
        let mut inner = self.inner();
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
            let Some(board) = inner.sharing.board(self.database) else { continue };
            let (value, time) = set.as_ref().map_or((None, Timestamp(0)), |set| (Some(&set.value), set.time));
            board.publish(&(name, true), value, seq, time);
        }
    }

    /// Tells who waits that a variable of no log changed.
    #[inline]
    pub(crate) fn ring(&self) {
        if self.waits.load(Ordering::SeqCst) > 0 {
            drop(self.gate.lock());
            self.changed.notify_all();
        }
    }

    /// Waits until a variable of no log changed, or `timeout` has passed.
    pub(crate) fn wait(&self, timeout: Duration, mut waits: impl FnMut() -> bool) {
        self.waits.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_timeout_while(gate, timeout, |()| waits()));
        self.waits.fetch_sub(1, Ordering::SeqCst);
    }
}

trait Absent {
    fn is_ok_or_absent(&self) -> bool;
}

impl Absent for std::io::Result<()> {
    fn is_ok_or_absent(&self) -> bool {
        self.as_ref().map_or_else(|error| error.kind() == std::io::ErrorKind::NotFound, |()| true)
    }
}

impl Sharing {
    fn board(&mut self, database: [u8; 16]) -> Option<&mut Board> {
        if let Sharing::Unused(path) = self {
            *self = Board::create(path, database).map_or(Sharing::Never, Sharing::Used);
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
