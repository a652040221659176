//! A database with its disk, and what is known of its transactions.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use underbelly::disk::{Calls, Fault, FaultKind};
use underbelly::{
    Database, Durability, FaultyDisk, OpenError, Options, SimulatedDisk, Snapshot, StorageError, Timestamp,
    WalError,
};

use super::clock::SimulatedClock;
use super::daemons::{self, Daemon};
use super::desk::DAEMONS;
use super::feed::Told;
use super::meanwhile::{Meanwhile, Paused};
use super::model::{Effect, Model};
use super::readers::Beside;
use super::rules::{Rules, SERIES};
use super::{Trouble, check, marks};
use crate::Numbers;

/// A transaction: its seq and what it does.
type Entry = (u64, Vec<Effect>);

/// Transactions that were sequenced and are not known to be durable, by seq; and what time it is.
#[derive(Clone, Default)]
pub(super) struct Journal(Arc<Mutex<Vec<Entry>>>, Arc<AtomicI64>);

impl Journal {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the newest transaction.
    pub fn add(&self, seq: u64, mut effects: Vec<Effect>) {
        if effects.iter().any(|effect| matches!(effect, Effect::Collect) || marks::model_of(effect).is_some())
        {
            effects.insert(0, Effect::At(self.1.load(Ordering::Relaxed)));
        }
        self.entries().push((seq, effects));
    }

    /// From now on it is so late.
    fn set_time(&self, now: i64) {
        self.1.store(now, Ordering::Relaxed);
    }

    /// Adds what a checkpoint that began behind `before` deleted first, unless that seq is another's.
    pub fn note_expiry(&self, before: u64, head: u64, now: i64) -> bool {
        let is_made = head > before && !self.has(before + 1);
        if is_made {
            let mut entries = self.entries();
            let at = entries.partition_point(|(seq, _)| *seq <= before);
            entries.insert(at, (before + 1, vec![Effect::Expire(now)]));
        }
        is_made
    }

    /// Whether the transaction with this seq is known and in doubt.
    pub fn has(&self, seq: u64) -> bool {
        // What was refused has no seq of its own.
        let is_other = |effects: &[Effect]| !matches!(effects, [Effect::Refused(_)]);
        self.entries().iter().any(|(known, effects)| *known == seq && is_other(effects))
    }

    /// Takes back the newest transactions, those with a seq above `head`: they were not sequenced.
    fn take_above(&self, head: u64) -> Vec<Vec<Effect>> {
        let mut entries = self.entries();
        let sequenced = entries.partition_point(|(seq, _)| *seq <= head);
        entries.drain(sequenced..).map(|(_, effects)| effects).collect()
    }
}

/// What lives did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Cycles: each with a recovery and a check of everything.
    pub cycles: u64,
    /// Transactions, runs of producers included, that were acknowledged.
    pub transactions: u64,
    /// Power cuts, kills of the process included.
    pub crashes: u64,
    /// Calls of the disk that failed by order.
    pub faults: u64,
    /// Recoveries that were cut short or failed, and were repeated.
    pub interrupted: u64,
    /// Transactions between the slices of a checkpoint.
    pub meanwhile: u64,
    /// Looks of readers at the disk beside the writer.
    pub reads: u64,
    /// Backups that were opened and compared.
    pub backups: u64,
    /// Backups beside which the writer went on.
    pub overtaken: u64,
    /// Openings that had to fall back to the manifest before.
    pub fallbacks: u64,
    /// Backups that a failure of the folder they go to ended.
    pub cut: u64,
    /// Commits of daemons that were accepted.
    pub sent: u64,
    /// Commits of daemons that had been accepted before.
    pub again: u64,
    /// Transactions that the rules of a series refused.
    pub refused: u64,
    /// Checkpoints that deleted rows which lay too far behind.
    pub expired: u64,
    /// Series that were read as known at an earlier transaction.
    pub known: u64,
    /// Sessions that were lost.
    pub lost: u64,
    /// Transactions that a consumer took, each once.
    pub consumed: u64,
    /// Transactions that a follower behind a durable cursor was told.
    pub followed: u64,
    /// Calls of a closure with several runs.
    pub batches: u64,
    /// Bundles that were forced, were cancelled, and producers that were taken out.
    pub commands: [u64; 3],
    /// Versions that became, or took back, a cell.
    pub scalers: u64,
    /// Times that versions were deleted for their age.
    pub aged: u64,
    /// Aliases beside the first.
    pub named: u64,
    /// Deletes by values, and rows that widened their column.
    pub values: [u64; 2],
    /// Calls that changed the disk.
    pub calls: u64,
    /// A hash of what recoveries found: equal for equal seeds.
    pub digest: u64,
}

impl Figures {
    /// How often kinds of transactions came that are drawn seldom, or by some lives alone.
    pub fn kinds(&self) -> [(&'static str, u64); 11] {
        [
            ("transactions consumed once", self.consumed),
            ("transactions told behind a cursor", self.followed),
            ("batches of several runs", self.batches),
            ("bundles forced", self.commands[0]),
            ("bundles cancelled", self.commands[1]),
            ("producers taken out", self.commands[2]),
            ("models put or deleted that are cells", self.scalers),
            ("collections of versions that grew old", self.aged),
            ("second aliases", self.named),
            ("deletes by values", self.values[0]),
            ("rows that widened their field", self.values[1]),
        ]
    }

    /// Adds those of another life.
    pub fn add(&mut self, other: &Figures) {
        self.cycles += other.cycles;
        self.transactions += other.transactions;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.interrupted += other.interrupted;
        self.meanwhile += other.meanwhile;
        self.reads += other.reads;
        self.backups += other.backups;
        self.overtaken += other.overtaken;
        self.fallbacks += other.fallbacks;
        self.cut += other.cut;
        self.sent += other.sent;
        self.again += other.again;
        self.refused += other.refused;
        self.expired += other.expired;
        self.known += other.known;
        self.lost += other.lost;
        self.consumed += other.consumed;
        self.followed += other.followed;
        self.batches += other.batches;
        (0..3).for_each(|at| self.commands[at] += other.commands[at]);
        self.scalers += other.scalers;
        self.aged += other.aged;
        self.named += other.named;
        (0..2).for_each(|at| self.values[at] += other.values[at]);
        self.calls += other.calls;
        self.digest = (self.digest ^ other.digest).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

/// What a life has that not each has, since it takes time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds {
    /// Work in batches and by command.
    pub works: bool,
    /// Models whose versions are kept for a time, in place of rows that are.
    pub ages: bool,
}

impl Kinds {
    fn draw(numbers: &mut Numbers) -> Kinds {
        Kinds { works: numbers.below(4) == 0, ages: numbers.below(3) == 0 }
    }
}

/// A database, its disk, and what is known of both.
pub(super) struct Life {
    pub numbers: Numbers,
    pub disk: FaultyDisk<SimulatedDisk>,
    /// `None` between an end and a recovery.
    db: Option<Database>,
    pub clock: Arc<SimulatedClock>,
    pub time: i64,
    /// Nanoseconds that went by for what is measured by the clock.
    pub passed: i64,
    pub daemons: [Daemon; DAEMONS.len()],
    /// How often a day's median was wanted by some time.
    pub dues: u64,
    /// The rules that the series of clients are to have.
    pub rules: [Rules; SERIES.len()],
    /// For each step of the clock: the last transaction before it, and the time that it showed then.
    pub times: Vec<(u64, i64)>,
    /// The latest time that the clock showed.
    pub latest: i64,
    pub options: Options,
    /// What is visible.
    pub model: Model,
    /// What is durable.
    kept: Model,
    /// What became visible since.
    since: Vec<(u64, Vec<Effect>)>,
    /// What the last checkpoint before the last recovery held.
    behind: Model,
    /// What became durable since.
    trail: Vec<(u64, Vec<Effect>)>,
    pub journal: Journal,
    /// What runs did whose ends the disk refused; the next drive ends them, one after another.
    pub unfinished: Vec<Vec<Effect>>,
    /// Snapshots taken on the way, and what they must show.
    pub held: Vec<(Snapshot, Model)>,
    /// Readers in processes of their own.
    pub readers: Vec<Beside>,
    /// What the feed told.
    pub told: Told,
    /// What the life has that not each has.
    pub kinds: Kinds,
    /// Whether runs of a batch that gave data end in one transaction.
    pub joins_ends: Arc<AtomicBool>,
    /// Calls of a closure with several runs.
    pub batches: Arc<AtomicU64>,
    /// The last durable transaction.
    pub durable: u64,
    /// The last transaction that was sequenced.
    pub sequenced: u64,
    /// Whether a failure that was ordered may explain an error.
    pub excused: bool,
    /// Whether no failure was ordered since the last recovery, but perhaps of reads, so that everybody was told of what
    /// is durable.
    pub is_sound: bool,
    /// Whether an order to fail is in force.
    pub is_ordered: bool,
    pub figures: Figures,
    pub trace: bool,
}

/// One in so many recoveries is followed by openings of copies, which take as long as the recovery.
const COPIES: u64 = 16;

/// Bytes of the log files of a life. What is too large for the log grows with them, and so does the time that a cycle
/// takes; so small ones are frequent.
fn log_file_bytes(numbers: &mut Numbers) -> u64 {
    match numbers.below(32) {
        0 => 256 << 10,
        1..6 => 64 << 10,
        6..16 => 32 << 10,
        _ => 16 << 10,
    }
}

impl Life {
    /// A new database.
    pub fn new(seed: u64, trace: bool) -> Result<Life, Trouble> {
        let mut numbers = Numbers::new(seed);
        let look = Duration::from_micros(numbers.below(100));
        let clock = Arc::new(SimulatedClock::new(Timestamp(1_000_000), look));
        let options = Options {
            log_file_bytes: log_file_bytes(&mut numbers),
            checkpoint_bytes: 1 << (12 + numbers.below(10)),
            checkpoint_operations: 10 + numbers.below(400),
            chunk_bytes: 4096 << numbers.below(4),
            // Whatever else is drawn is the same.
            sealed_by_key: seed.count_ones() % 2 == 1,
            workers: 0,
            clock: clock.clone(),
            ..Options::default()
        };
        if trace {
            eprintln!("{options:?}");
        }
        let mut rules = Rules::draw(&mut numbers);
        let kinds = Kinds::draw(&mut numbers);
        if kinds.ages {
            // What a checkpoint deletes is one transaction.
            rules.iter_mut().for_each(|rules| rules.retention = None);
        }
        let disk = FaultyDisk::new(SimulatedDisk::new());
        let (disk, db) = create(disk, &options, &mut numbers)?;
        Ok(Life {
            numbers,
            disk,
            db: Some(db),
            clock,
            time: 1_000_000,
            passed: 0,
            daemons: Default::default(),
            dues: 0,
            rules,
            times: vec![(0, 1_000_000)],
            latest: 1_000_000,
            options,
            model: Model::default(),
            kept: Model::default(),
            since: Vec::new(),
            behind: Model::default(),
            trail: Vec::new(),
            journal: Journal::default(),
            unfinished: Vec::new(),
            kinds,
            joins_ends: Arc::default(),
            batches: Arc::default(),
            held: Vec::new(),
            readers: Vec::new(),
            told: Told::default(),
            durable: 0,
            sequenced: 0,
            excused: false,
            is_sound: true,
            is_ordered: false,
            figures: Figures::default(),
            trace,
        })
    }

    /// How many cycles it has.
    pub fn cycles(&mut self) -> u64 {
        4 + self.numbers.below(24)
    }

    /// What it did.
    pub fn figures(&self) -> Figures {
        Figures { batches: self.batches.load(Ordering::Relaxed), ..self.figures }
    }

    /// The open database.
    pub fn db(&self) -> Result<&Database, Trouble> {
        self.db.as_ref().ok_or_else(|| "the simulator has no database open".into())
    }

    /// Tells a step where that is wished.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("  {}", what());
        }
    }

    /// Orders a failure, or heals the disk.
    pub fn order(&mut self, fault: Option<Fault>) {
        self.figures.faults += self.disk.struck();
        self.disk.order(fault);
        self.is_sound &= fault.is_none_or(|fault| fault.calls == Calls::Reading);
        self.is_ordered = fault.is_some();
        if let Some(fault) = fault {
            self.tell(|| format!("order {fault:?}"));
        }
    }

    /// Fails unless a failure that was ordered explains the error.
    pub fn excuse(&mut self, what: &str, error: &dyn std::error::Error) -> Result<(), Trouble> {
        self.excused |= self.disk.struck() > 0;
        self.tell(|| format!("{what}: {error}"));
        if self.excused { Ok(()) } else { Err(format!("{what} fails with a sound disk: {error}").into()) }
    }

    /// Does something that makes at most one transaction with these effects, and accounts for it. Answers whether it
    /// succeeded.
    pub fn attempt<T, E: std::error::Error>(
        &mut self,
        what: &str,
        effects: Vec<Effect>,
        act: impl FnOnce(&Database) -> Result<T, E>,
    ) -> Result<Option<T>, Trouble> {
        self.attempt_with(Durability::Sync, what, effects, act)
    }

    /// The same for a transaction that may be acknowledged when it is visible.
    pub fn attempt_with<T, E: std::error::Error>(
        &mut self,
        durability: Durability,
        what: &str,
        effects: Vec<Effect>,
        act: impl FnOnce(&Database) -> Result<T, E>,
    ) -> Result<Option<T>, Trouble> {
        let before = self.head()?;
        let done = act(self.db()?);
        let after = self.head()?;
        if after > before {
            self.journal.add(before + 1, effects);
        }
        self.settle()?;
        let visible = self.db()?.visible_seq();
        match done {
            Ok(done) if durability == Durability::Buffered && visible >= after => Ok(Some(done)),
            Ok(done) if self.durable >= after => Ok(Some(done)),
            Ok(_) => Err(format!("{what} is acknowledged before it is {durability:?}").into()),
            Err(error) => self.excuse(what, &error).map(|()| None),
        }
    }

    /// Runs what is ready.
    pub fn drive(&mut self) -> Result<bool, Trouble> {
        self.drive_beside(None)
    }

    /// The same while somebody else commits between the steps of a checkpoint and of a base that are due then.
    pub fn drive_beside(&mut self, other: Option<(Paused, Meanwhile)>) -> Result<bool, Trouble> {
        let before = self.head()?;
        for (seq, effects) in (before + 1..).zip(std::mem::take(&mut self.unfinished)) {
            self.journal.add(seq, effects);
        }
        self.note_soundness();
        let gave_way = Arc::new(AtomicBool::new(false));
        let gives = gave_way.clone();
        let (mut other, meanwhile) = other.unzip();
        self.clock.do_meanwhile(Some(Box::new(move || {
            gives.store(true, Ordering::Relaxed);
            other.iter_mut().for_each(|other| other.go_on());
        })));
        let driven = self.db()?.run_ready();
        self.clock.do_meanwhile(None);
        self.unfinished = self.journal.take_above(self.head()?);
        meanwhile.map_or(Ok(()), |meanwhile| self.account(meanwhile))?;
        self.note_expiry_at_end(before, gave_way.load(Ordering::Relaxed))?;
        match driven {
            Ok(runs) => {
                self.tell(|| format!("drive: {runs} runs"));
                Ok(true)
            }
            Err(error) => self.excuse("drive", &error).map(|()| false),
        }
    }

    /// Lets time go by.
    pub fn pass(&mut self, nanoseconds: i64) -> Result<(), Trouble> {
        self.time += nanoseconds;
        self.clock.set(Timestamp(self.time));
        self.journal.set_time(self.time);
        // The wall time may be set back; the other never goes back.
        self.passed += nanoseconds.max(0);
        self.clock.pass(nanoseconds.max(0) as u64);
        self.note_time()
    }

    /// The last transaction that was sequenced.
    pub fn head(&self) -> Result<u64, Trouble> {
        Ok(self.db()?.head_seq())
    }

    /// Takes note of what is durable now, and forgets that it was ever in doubt.
    pub fn settle(&mut self) -> Result<(), Trouble> {
        let db = self.db()?;
        let (head, visible, durable) = (db.head_seq(), db.visible_seq(), db.durable_seq());
        if visible < self.durable {
            return Err(format!("seq {visible} is visible after {}", self.durable).into());
        }
        if durable < self.durable || visible < durable {
            return Err(format!("seq {visible} is visible, {durable} durable after {}", self.durable).into());
        }
        self.sequenced = self.sequenced.max(head);
        self.show(visible)?;
        self.keep(durable)
    }

    /// The transactions up to `seq` are visible.
    fn show(&mut self, seq: u64) -> Result<(), Trouble> {
        let mut entries = self.journal.entries();
        let visible = entries.iter().take_while(|(known, _)| *known <= seq).count();
        for (seq, effects) in entries.drain(..visible) {
            self.model.apply(effects.clone())?;
            self.since.push((seq, effects));
            self.figures.transactions += 1;
        }
        Ok(())
    }

    /// The transactions up to `seq` are durable.
    fn keep(&mut self, seq: u64) -> Result<(), Trouble> {
        let durable = self.since.iter().take_while(|(known, _)| *known <= seq).count();
        for (seq, effects) in self.since.drain(..durable) {
            self.kept.apply(effects.clone())?;
            self.trail.push((seq, effects));
        }
        self.durable = seq;
        Ok(())
    }

    /// What the database showed after transaction `seq`, which is none before the last checkpoint that a recovery found.
    pub fn model_at(&self, seq: u64) -> Result<Model, Trouble> {
        let mut model = self.behind.clone();
        let entries = self.journal.entries();
        let all = self.trail.iter().chain(&self.since).chain(entries.iter());
        for (_, effects) in all.take_while(|(known, _)| *known <= seq) {
            model.apply(effects.clone())?;
        }
        Ok(model)
    }

    /// The checkpoint with this seq, or a later one, is what everybody begins with from now on.
    fn forget_before(&mut self, seq: u64) -> Result<(), Trouble> {
        let older = self.trail.iter().take_while(|(known, _)| *known <= seq).count();
        for (_, effects) in self.trail.drain(..older) {
            self.behind.apply(effects)?;
        }
        Ok(())
    }

    /// Whether a process writes.
    pub fn is_open(&self) -> bool {
        self.db.is_some()
    }

    /// Ends the process where it stands, with or without the power: `left` makes what is left of the disk.
    pub fn end(&mut self, left: impl FnOnce(&SimulatedDisk) -> SimulatedDisk) {
        self.order(Some(Fault { calls: Calls::Changing, after: 0, kind: FaultKind::Io, sticky: true }));
        self.figures.calls += self.disk.calls(Calls::Changing);
        self.shut();
        self.disk = FaultyDisk::new(left(self.disk.inner()));
        self.figures.crashes += 1;
    }

    /// Lets go of the database.
    pub fn shut(&mut self) {
        self.unfinished.clear();
        self.held.clear();
        self.end_sessions();
        self.db = None;
    }

    /// Takes the power, by a random sort of crash; sometimes only kills the process.
    pub fn crash(&mut self) {
        let (sort, seed) = (self.numbers.below(10), self.numbers.below(u64::MAX));
        self.tell(|| {
            let sort = match sort {
                0 => "keeping nothing",
                1 => "keeping all",
                2..4 => "of the process",
                _ => "keeping some",
            };
            format!("crash {sort}")
        });
        if !(2..4).contains(&sort) {
            // Who reads ends with the machine.
            self.readers.clear();
        }
        self.end(|disk| match sort {
            0 => disk.crash(),
            1 => disk.crash_keeping_all(),
            2..4 => disk.clone(),
            _ => disk.crash_with(seed),
        });
    }

    /// Opens what is left, perhaps with failures and power cuts on the way, and compares everything.
    pub fn recover(&mut self) -> Result<(), Trouble> {
        self.excused = false;
        self.read_what_is_left()?;
        let mut interruptions = if self.numbers.below(3) == 0 { 1 + self.numbers.below(3) } else { 0 };
        loop {
            if interruptions > 0 {
                interruptions -= 1;
                let fault = self.recovery_fault();
                self.order(Some(fault));
            }
            match Database::open_on(Arc::new(self.disk.clone()), self.options.clone()) {
                Ok(db) => {
                    self.db = Some(db);
                    break;
                }
                Err(error) => {
                    self.excuse("open", &error)?;
                    if blames_data(&error) {
                        return Err(format!("a failure of the disk is told as damage: {error}").into());
                    }
                    self.figures.interrupted += 1;
                    self.order(None);
                    if self.numbers.below(3) > 0 {
                        self.crash();
                    }
                    self.excused = false;
                }
            }
        }
        self.order(None);
        self.is_sound = true;
        let found = self.db()?.recovery_report().last_seq;
        let (durable, sequenced) = (self.durable, self.sequenced);
        self.tell(|| format!("recovered seq {found} of {durable} durable and {sequenced} sequenced"));
        if !(durable..=sequenced).contains(&found) {
            let what = format!("recovery shows seq {found}; {durable} was durable, {sequenced} sequenced");
            return Err(what.into());
        }
        self.show(found)?;
        self.keep(found)?;
        if !self.since.is_empty() {
            // What was visible and is lost.
            self.model = self.kept.clone();
            self.since.clear();
        }
        self.journal.entries().clear();
        let checkpoint = self.db()?.recovery_report().checkpoint_seq;
        self.forget_before(checkpoint)?;
        self.times.retain(|(seq, _)| *seq < found);
        self.note_time()?;
        self.sequenced = self.head()?;
        let digest = self.figures.digest ^ found ^ (self.disk.calls(Calls::Changing) << 32);
        self.figures.digest = digest.wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        self.await_sessions()?;
        self.refresh_all()?;
        self.follow()?;
        check::whole(self)?;
        if self.numbers.below(COPIES) == 0 { self.look_at_copies() } else { Ok(()) }
    }

    /// Reads the feed: it tells what is durable and visible, and what it told before.
    pub fn follow(&mut self) -> Result<(), Trouble> {
        let Some(db) = &self.db else { return Ok(()) };
        self.told.read(db, db.visible_seq().min(db.durable_seq()))?;
        daemons::sounded_once(self)
    }

    /// A failure for a recovery: the machine stops, or a call fails once.
    fn recovery_fault(&mut self) -> Fault {
        let after = self.numbers.below(24);
        match self.numbers.below(3) {
            0 => Fault { calls: Calls::Changing, after, kind: FaultKind::Io, sticky: true },
            1 => {
                let kind = FaultKind::ALL[self.numbers.below(FaultKind::ALL.len() as u64) as usize];
                Fault { calls: Calls::Changing, after, kind, sticky: false }
            }
            _ => Fault { calls: Calls::Reading, after: after * 2, kind: FaultKind::Io, sticky: false },
        }
    }
}

/// Whether an error says that data is damaged or missing.
fn blames_data(error: &OpenError) -> bool {
    let storage =
        |error: &StorageError| !matches!(error, StorageError::Io { .. } | StorageError::DiskFull { .. });
    match error {
        OpenError::Corrupt { .. } | OpenError::NotFound { .. } => true,
        OpenError::Storage(error) => storage(error),
        OpenError::Log(error) => {
            !matches!(error, WalError::Io { .. } | WalError::DiskFull { .. } | WalError::Poisoned { .. })
        }
        _ => false,
    }
}

/// Makes a database, perhaps after attempts that were cut short.
fn create(
    mut disk: FaultyDisk<SimulatedDisk>,
    options: &Options,
    numbers: &mut Numbers,
) -> Result<(FaultyDisk<SimulatedDisk>, Database), Trouble> {
    for _ in 0..numbers.below(3) {
        let (after, seed) = (numbers.below(30), numbers.below(u64::MAX));
        disk.order(Some(Fault { calls: Calls::Changing, after, kind: FaultKind::Io, sticky: true }));
        let made = Database::create_on(Arc::new(disk.clone()), options.clone());
        if made.is_err() && disk.struck() == 0 {
            // It was made before.
            disk.order(None);
            break;
        }
        disk.order(Some(Fault { calls: Calls::Changing, after: 0, kind: FaultKind::Io, sticky: true }));
        drop(made);
        disk = FaultyDisk::new(match seed % 3 {
            0 => disk.inner().clone(),
            _ => disk.inner().crash_with(seed),
        });
    }
    let made = match Database::open_on(Arc::new(disk.clone()), options.clone()) {
        Err(OpenError::NotFound { .. }) => Database::create_on(Arc::new(disk.clone()), options.clone()),
        opened => opened,
    };
    Ok((disk, made?))
}
