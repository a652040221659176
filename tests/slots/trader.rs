//! The generators, strategies and the trader of a small trading system, with a clock that stands still: what is missing, old
//! or gone stops what rests on it, and nothing else, and heals by itself.

use std::sync::Arc;
use std::time::Duration;

use underbelly::{
    Accepted, AlarmKind, Batch, Clock, ColumnType, Columns, CommitError, Database, Filter, GraphError, Input,
    ManualClock, Options, Outputs, ProducerDefinition, Run, SchemaError, Session, SimulatedDisk,
    SlotDefinition, Slow, Start, State, Timestamp, Value, Watch, When,
};

const X: f64 = 0.6741543275356752;
const Y: f64 = 0.46357797027309633;
const MEDIAN: f64 = 0.5688661489043858;

/// What is given each minute.
const MINUTE: i64 = 60_000_000_000;

fn minute(number: i64) -> Timestamp {
    Timestamp(number * MINUTE)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn x(value: f64) -> Columns {
    underbelly_tests::one("x", value).unwrap()
}

fn value(rows: &Columns) -> f64 {
    rows.f64s("x").unwrap()[0]
}

struct Desk {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    db: Database,
}

fn options(clock: &Arc<ManualClock>) -> Options {
    Options { workers: 0, clock: clock.clone(), ..underbelly_tests::options() }
}

impl Desk {
    /// The slots and the trader's median, at the beginning of minute 1.
    fn new() -> Desk {
        let clock = Arc::new(ManualClock::new(minute(1)));
        let disk = SimulatedDisk::new();
        let db = Database::create_on(Arc::new(disk.clone()), options(&clock)).unwrap();
        let signal = SlotDefinition::new("Signal").member_key("generator").value("x", ColumnType::F64);
        db.define_slot(signal.fresh_for(seconds(90)).max_skew(seconds(1))).unwrap();
        db.define_slot(SlotDefinition::new("Decision").member_key("strategy").value("x", ColumnType::F64))
            .unwrap();
        db.define_slot(SlotDefinition::new("Median").value("x", ColumnType::F64)).unwrap();
        let desk = Desk { disk, clock, db };
        desk.trader();
        desk
    }

    /// The median of the decisions of all strategies.
    fn trader(&self) {
        let median = ProducerDefinition::new("trader").requires("Decision").provides("Median");
        let median = median.group_by::<String>([], When::Quorum);
        self.db
            .register(median, |run: &Run| {
                let decisions = run.inputs("Decision")?;
                let rows = decisions.iter().map(|cell| cell.rows()).collect::<Result<Vec<_>, _>>()?;
                let mut values: Vec<f64> = rows.iter().map(value).collect();
                values.sort_by(f64::total_cmp);
                let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
                Ok(Outputs::new().put("Median", x((low + high) / 2.0)))
            })
            .unwrap();
    }

    /// A strategy that follows one generator.
    fn strategy(&self, name: &'static str, generator: &'static str) {
        let signal = Input::required("Signal").filter(Filter::equals("generator", generator));
        let strategy = ProducerDefinition::new(name).input(signal).provides_as("Decision", name);
        let strategy = strategy.group_by::<String>([], When::Quorum);
        self.db
            .register(strategy, move |run: &Run| {
                let signal = &run.inputs("Signal")?[0];
                Ok(Outputs::new().put_at("Decision", [("strategy", name)], signal.rows()?))
            })
            .unwrap();
    }

    fn generator(&self, name: &str) -> Session {
        let daemon = ProducerDefinition::daemon(format!("generator-{name}")).provides_as("Signal", name);
        self.db.open_session(daemon.lease(seconds(30))).unwrap()
    }

    /// A strategy that decides by itself.
    fn oracle(&self, name: &str) -> Session {
        let daemon = ProducerDefinition::daemon(name).provides_as("Decision", name);
        self.db.open_session(daemon.lease(seconds(30))).unwrap()
    }

    fn advance(&self, by: Duration) {
        self.clock.set(Timestamp(self.clock.now().0 + by.as_nanos() as i64));
    }

    /// How many runs ended.
    fn runs(&self) -> usize {
        self.db.run_ready().unwrap()
    }

    fn median(&self, number: i64) -> Option<f64> {
        let cell = self.db.snapshot().slot("Median", minute(number), [] as [Value; 0]).unwrap();
        cell.map(|cell| value(&cell.rows))
    }

    fn why(&self, number: i64) -> String {
        self.db.why("Median", minute(number), [] as [Value; 0]).unwrap().to_string()
    }

    fn state(&self, slot: &str, number: i64, key: &str) -> Option<State> {
        let mut table = self.db.slot_table(Some(slot)).unwrap();
        table.find(|row| row.date == minute(number).into() && row.key.to_string() == key).map(|row| row.state)
    }

    fn alarms(&self) -> Vec<String> {
        self.db.alarms().into_iter().map(|alarm| alarm.kind.to_string()).collect()
    }

    /// Closes and opens the database; every session is gone, and what is registered here is registered again.
    fn reopen(self) -> Desk {
        let Desk { disk, clock, db } = self;
        drop(db);
        let db = Database::open_on(Arc::new(disk.clone()), options(&clock)).unwrap();
        let desk = Desk { disk, clock, db };
        desk.trader();
        desk
    }
}

fn one(slot: &str, number: i64, member: &str, given: f64) -> Batch {
    let mut batch = Batch::new();
    batch.put_slot(slot, minute(number), [member], x(given));
    batch
}

#[test]
fn the_median_comes_after_the_last_decision_and_once() {
    let desk = Desk::new();
    let (a, b) = (desk.oracle("X"), desk.oracle("Y"));
    a.commit(one("Decision", 1, "X", X)).unwrap();
    assert_eq!((desk.runs(), desk.median(1)), (0, None));
    let why = desk.why(1);
    assert!(why.contains("quorum 1/2: Y missing"), "{why}");
    b.commit(one("Decision", 1, "Y", Y)).unwrap();
    assert_eq!((desk.runs(), desk.median(1)), (1, Some(MEDIAN)));
    // The same again runs nothing, another value once, of that minute alone; also when the next has begun.
    a.commit(one("Decision", 2, "X", X)).unwrap();
    a.commit(one("Decision", 1, "X", X)).unwrap();
    assert_eq!(desk.runs(), 0);
    a.commit(one("Decision", 1, "X", Y)).unwrap();
    assert_eq!((desk.runs(), desk.median(1), desk.median(2)), (1, Some(Y), None));
}

#[test]
fn a_generator_that_stops_blocks_its_chain_alone_and_heals_it() {
    let desk = Desk::new();
    let (first, second) = (desk.generator("1000"), desk.generator("1001"));
    desk.strategy("X", "1000");
    desk.strategy("Y", "1001");
    first.commit(one("Signal", 1, "1000", X)).unwrap();
    second.commit(one("Signal", 1, "1001", Y)).unwrap();
    assert_eq!((desk.runs(), desk.median(1)), (3, Some(MEDIAN)));
    // The first one hangs: it lives, and gives nothing.
    for _ in 0..4 {
        desk.advance(seconds(25));
        first.beat().unwrap();
        second.beat().unwrap();
    }
    second.commit(one("Signal", 2, "1001", Y)).unwrap();
    assert_eq!(desk.runs(), 1, "the other's strategy");
    assert_eq!(desk.state("Signal", 1, "1000"), Some(State::Stale));
    assert_eq!(desk.state("Decision", 1, "X"), Some(State::Stale));
    assert_eq!(desk.state("Median", 1, ""), Some(State::Stale));
    assert_eq!((desk.state("Decision", 2, "Y"), desk.median(2)), (Some(State::Current), None));
    let why = desk.why(1);
    assert!(why.contains("Signal 1970-01-01T00:01:00Z 1000 is too old"), "{why}");
    assert_eq!(desk.alarms(), ["Signal 1970-01-01T00:01:00Z 1000 is too old"]);
    // The same value of the same minute: its age is gone, and nothing ran.
    first.commit(one("Signal", 1, "1000", X)).unwrap();
    assert_eq!((desk.runs(), desk.state("Median", 1, "")), (0, Some(State::Current)));
    assert!(desk.alarms().is_empty());
    // It goes on: each producer runs once, and all is current.
    first.commit(one("Signal", 2, "1000", X)).unwrap();
    assert_eq!((desk.runs(), desk.median(2)), (2, Some(MEDIAN)));
    let mut rows = desk.db.slot_table(None).unwrap();
    assert!(rows.all(|row| row.state == State::Current));
}

#[test]
fn a_strategy_that_is_lost_is_missed_until_it_is_deregistered() {
    let desk = Desk::new();
    let mut feed = desk.db.subscribe(&Watch::all(), Start::Now, Slow::CatchUp).unwrap();
    let (a, b) = (desk.oracle("X"), desk.oracle("Y"));
    a.commit(one("Decision", 1, "X", X)).unwrap();
    b.commit(one("Decision", 1, "Y", Y)).unwrap();
    assert_eq!(desk.runs(), 1);
    // A blip that is shorter than the lease changes nothing.
    desk.advance(seconds(20));
    a.beat().unwrap();
    assert_eq!(desk.runs(), 0);
    b.beat().unwrap();
    assert!(desk.alarms().is_empty());
    // Y dies.
    for _ in 0..2 {
        desk.advance(seconds(20));
        a.beat().unwrap();
        assert_eq!(desk.runs(), 0);
    }
    a.commit(one("Decision", 2, "X", X)).unwrap();
    assert_eq!((desk.runs(), desk.median(2)), (0, None), "no median of the rest");
    assert_eq!(desk.alarms(), ["producer Y gives no sign of life"]);
    let why = desk.why(2);
    assert!(why.contains("quorum 1/2: Y missing") && why.contains("Y gives no sign of life"), "{why}");
    let late = b.commit(one("Decision", 2, "Y", Y)).unwrap_err();
    assert!(matches!(late, CommitError::Graph(GraphError::SessionOver { .. })), "{late}");
    desk.db.deregister("Y").unwrap();
    assert_eq!((desk.runs(), desk.median(2)), (1, Some(X)));
    let late = b.commit(one("Decision", 2, "Y", Y)).unwrap_err();
    assert!(late.to_string().starts_with("fenced"), "{late}");
    assert!(desk.alarms().is_empty());
    assert_eq!(desk.runs(), 0);
    let mut sounded = Vec::new();
    while let Some(committed) = feed.next_within(Duration::ZERO).unwrap() {
        sounded.extend(committed.alarms);
    }
    assert_eq!(sounded.len(), 1, "it sounded once");
    assert_eq!(sounded[0].kind, AlarmKind::Lost { producer: "Y".to_string() });
}

/// Nobody commits anything any more, and the only worker hangs: alarms sound all the same, also in other processes.
#[test]
fn alarms_sound_where_everything_is_silent() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { workers: 1, ..underbelly_tests::options() };
    let db = Database::create_with(dir.path().join("db"), options).unwrap();
    db.define_slot(SlotDefinition::new("Signal").member_key("g").value("x", ColumnType::F64)).unwrap();
    db.define_slot(SlotDefinition::new("Out").cell_key("g", ColumnType::Utf8).value("x", ColumnType::F64))
        .unwrap();
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    db.register(ProducerDefinition::new("hangs").requires("Signal").provides("Out"), move |_| {
        let _gone = waits.lock().unwrap().recv();
        Ok(Outputs::new())
    })
    .unwrap();
    let mut feed = db.subscribe(&Watch::all(), Start::Now, Slow::CatchUp).unwrap();
    let lease = Duration::from_millis(20);
    let daemon = ProducerDefinition::daemon("d").provides_as("Signal", "1").lease(lease);
    let session = db.open_session(daemon).unwrap();
    session.commit(one("Signal", 1, "1", X)).unwrap();
    std::mem::forget(session);
    let mut sounded = None;
    while sounded.is_none() {
        let committed = feed.next_within(Duration::from_secs(60)).unwrap().expect("it sounds in time");
        sounded = committed.alarms.into_iter().next();
    }
    assert_eq!(sounded.unwrap().kind, AlarmKind::Lost { producer: "d".to_string() });
    let mut reader = Database::open_read_only(dir.path().join("db")).unwrap();
    reader.refresh().unwrap();
    assert_eq!(reader.alarms().len(), 1);
    drop(go_on);
    db.close().unwrap();
}

#[test]
fn a_session_has_no_twin() {
    let desk = Desk::new();
    let definition = || ProducerDefinition::daemon("X").provides_as("Decision", "X");
    for _ in 0..50 {
        let opened: Vec<_> = std::thread::scope(|scope| {
            let open = || scope.spawn(|| desk.db.open_session(definition()));
            let both = [open(), open()];
            both.map(|thread| thread.join().unwrap()).into_iter().collect()
        });
        let one = opened.iter().filter(|opened| opened.is_ok()).count();
        assert_eq!(one, 1, "{opened:?}");
    }
}

#[test]
fn a_session_that_is_over_by_the_clock_gives_way() {
    let desk = Desk::new();
    let a = desk.oracle("X");
    desk.advance(seconds(31));
    assert!(a.beat().is_err());
    let again = desk.oracle("X");
    assert!(again.epoch() > a.epoch());
    assert!(desk.alarms().is_empty(), "it is there");
    // One whose handle is gone gives way at once.
    drop(again);
    let last = desk.oracle("X");
    desk.db.deregister("X").unwrap();
    let told = last.beat().unwrap_err();
    assert!(matches!(told, CommitError::Graph(GraphError::SessionOver { .. })), "{told}");
    // Numbers begin where the source begins.
    let fresh = desk.oracle("X");
    assert!(matches!(fresh.commit_once(0, one("Decision", 1, "X", X)).unwrap(), Accepted::Now(_)));
    assert_eq!(fresh.commit_once(0, one("Decision", 1, "X", X)).unwrap(), Accepted::Before);
    // A lease is not for closures, which give no signs of life.
    let closure = ProducerDefinition::new("c").requires("Signal").provides("Median").lease(seconds(1));
    let refused = desk.db.register(closure, |_| Ok(Outputs::new()));
    assert!(matches!(refused, Err(SchemaError::Graph(GraphError::ClosureLease { .. }))), "{refused:?}");
}

#[test]
fn a_clean_goodbye_is_no_alarm() {
    let desk = Desk::new();
    let (a, b) = (desk.oracle("X"), desk.oracle("Y"));
    let taken =
        desk.db.open_session(ProducerDefinition::daemon("Y").provides_as("Decision", "Y").lease(seconds(30)));
    assert!(matches!(taken, Err(SchemaError::Graph(GraphError::SessionTaken { .. }))), "twice: {taken:?}");
    let other = desk.db.open_session(ProducerDefinition::daemon("Z").provides_as("Decision", "Y"));
    let is_taken = matches!(other, Err(SchemaError::Graph(GraphError::PriorityTaken { .. })));
    assert!(is_taken, "the member is another's: {other:?}");
    b.leave().unwrap();
    a.commit(one("Decision", 1, "X", X)).unwrap();
    assert_eq!((desk.runs(), desk.median(1)), (1, Some(X)));
    // It closes, and stays a member.
    a.close().unwrap();
    let a = desk.oracle("X");
    assert_eq!(a.last_sequence(), Some(1));
    assert!(desk.alarms().is_empty());
}

#[test]
fn a_stamp_ahead_of_the_clock_is_refused() {
    let desk = Desk::new();
    let first = desk.generator("1000");
    let mut batch = one("Signal", 1, "1000", X);
    batch.as_of(Timestamp(desk.clock.now().0 + 3_000_000_000));
    let refused = first.commit(batch).unwrap_err();
    assert!(matches!(refused, CommitError::Graph(GraphError::Skew { .. })), "{refused}");
    let mut batch = one("Signal", 1, "1000", X);
    batch.as_of(Timestamp(desk.clock.now().0 + 900_000_000));
    first.commit(batch).unwrap();
}

#[test]
fn what_was_committed_before_a_restart_counts_after_it() {
    let desk = Desk::new();
    let (a, b) = (desk.oracle("X"), desk.oracle("Y"));
    let mut batch = one("Decision", 1, "X", X);
    batch.due_by("Median", minute(1), minute(2));
    assert!(matches!(a.commit_once(77, batch.clone()).unwrap(), Accepted::Now(_)));
    assert_eq!(desk.runs(), 0);
    drop(a);
    drop(b);
    let desk = desk.reopen();
    // X comes back, and does not know whether its decision came through; Y does not come back.
    let a = desk.oracle("X");
    assert_eq!(a.last_sequence(), Some(77));
    assert_eq!(a.commit_once(77, batch).unwrap(), Accepted::Before);
    assert_eq!((desk.runs(), desk.median(1)), (0, None));
    desk.advance(seconds(29));
    a.beat().unwrap();
    assert_eq!((desk.runs(), desk.alarms()), (0, vec![]));
    desk.advance(seconds(31));
    desk.runs();
    let overdue = "Median 1970-01-01T00:01:00Z was to be up to date by 1970-01-01T00:02:00Z";
    assert!(desk.alarms().contains(&overdue.to_string()), "{:?}", desk.alarms());
    assert!(desk.alarms().contains(&"producer Y gives no sign of life".to_string()));
    let b = desk.oracle("Y");
    b.commit(one("Decision", 1, "Y", Y)).unwrap();
    assert_eq!((desk.runs(), desk.median(1)), (1, Some(MEDIAN)));
    assert!(!desk.alarms().contains(&overdue.to_string()), "it is up to date now");
    drop(b);
    let desk = desk.reopen();
    assert_eq!((desk.runs(), desk.median(1)), (0, Some(MEDIAN)), "exactly once");
}
