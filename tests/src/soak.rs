//! Processes that work for one database, and are killed at any moment: the engine, processes of a program that it starts,
//! daemons and a producer that connect over its socket.
//!
//! Daemons number what they commit, and put it into few cells in turn; each cell is doubled by the program and tripled by
//! the producer. In the end each number must have been taken once, each cell be the last that was put there, and what was
//! made of it be right; nothing is damaged, no process is left, and the engine has no more memory than before.
//!
//! - [`run`]: starts all, kills, and looks at what is left.
//! - [`play`]: what the processes do.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use underbelly::{
    ColumnType, Database, Options, ProducerDefinition, Program, Reader, Retry, SlotDefinition, State, View,
};
use underbelly_worker::remote::{Cells, Daemon, Producer, RemoteError};
use underbelly_worker::{Columns, Definition, Failure, InputDefinition, Outputs, Run, serve};

use crate::{Numbers, day};

type Done = Result<(), Box<dyn Error>>;

/// Daemons that commit.
const DAEMONS: usize = 3;
/// Cells that each daemon puts in turn.
const CELLS: u64 = 16;
/// Long enough for every machine; who waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nobody may hear of a process.
const LEASE: Duration = Duration::from_secs(5);
/// How often a run that is cut off is tried again.
const ATTEMPTS: u32 = 1_000;
/// By how much the memory of the engine in the last quarter may be above that in the second, beside a quarter of it; medians,
/// since a merge of segments takes some for a moment.
const GROWTH: u64 = 16 << 20;

/// How long, and where.
pub struct Settings {
    /// What is started: [`play`] with its arguments.
    pub program: PathBuf,
    /// A folder of its own.
    pub folder: PathBuf,
    /// Kills after which it ends, the engine's among them.
    pub kills: Option<u64>,
    /// Time after which it ends.
    pub time: Option<Duration>,
    /// What is killed when.
    pub seed: u64,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Kills, by what was killed.
    pub kills: BTreeMap<&'static str, u64>,
    /// Numbers that daemons committed.
    pub inputs: u64,
    /// Runs, by how they ended.
    pub runs: BTreeMap<String, u64>,
    /// Bytes of memory that the engine which was not killed any more had now and then, by the quarters of its life.
    pub memory: Vec<Vec<u64>>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { kills, inputs, runs, memory } = self;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let memory = memory.iter().map(|quarter| {
            let most = quarter.iter().max().copied().unwrap_or(0);
            format!("{:.1} (at most {:.1})", megabytes(median(quarter)), megabytes(most))
        });
        let memory = memory.collect::<Vec<_>>().join(", ");
        write!(f, "kills {kills:?}; {inputs} inputs; runs {runs:?}; MB of the engine by quarters: {memory}")
    }
}

/// A process that is started again when it was killed.
struct Worker {
    child: Child,
    /// Reads what it says.
    listener: JoinHandle<()>,
}

impl Worker {
    fn kill(mut self) -> Done {
        self.child.kill()?;
        self.end()
    }

    fn end(mut self) -> Done {
        drop(self.child.stdin.take());
        let _killed = self.child.wait()?;
        self.listener.join().map_err(|_| "a listener panicked".into())
    }
}

struct Soak<'a> {
    settings: &'a Settings,
    /// The last number of each daemon that was acknowledged.
    acknowledged: Vec<Arc<AtomicU64>>,
}

impl Soak<'_> {
    fn start(
        &self,
        role: &str,
        of: Option<usize>,
        hear: impl Fn(&str) + Send + 'static,
    ) -> io::Result<Worker> {
        let mut command = Command::new(&self.settings.program);
        command.arg("play").arg(role).arg(&self.settings.folder);
        command.args(of.map(|of| of.to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = child.stdout.take().map(BufReader::new);
        let listener = thread::spawn(move || {
            for line in lines.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                hear(&line);
            }
        });
        Ok(Worker { child, listener })
    }

    /// An engine that answers.
    fn engine(&self) -> Result<Worker, Box<dyn Error>> {
        let (ready, told) = std::sync::mpsc::channel();
        let engine = self.start("engine", None, move |_| {
            // Nobody listens any more where it was killed.
            let _ = ready.send(());
        })?;
        told.recv_timeout(PATIENCE).map_err(|_| "the engine does not open")?;
        Ok(engine)
    }

    fn daemon(&self, at: usize) -> Result<Worker, Box<dyn Error>> {
        let Some(known) = self.acknowledged.get(at).cloned() else { return Err("no such daemon".into()) };
        let hear = move |line: &str| {
            if let Ok(number) = line.parse() {
                known.fetch_max(number, Ordering::Relaxed);
            }
        };
        Ok(self.start("daemon", Some(at), hear)?)
    }

    fn producer(&self) -> io::Result<Worker> {
        self.start("producer", None, |_| ())
    }

    /// Processes that play this for the soak in its folder.
    fn playing(&self, role: &str) -> io::Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // One that has ended meanwhile plays nothing.
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let folder = self.settings.folder.as_os_str().as_encoded_bytes();
            let plays = words.get(2).is_some_and(|word| role.is_empty() || *word == role.as_bytes());
            if plays && words.get(1) == Some(&&b"play"[..]) && words.get(3) == Some(&folder) {
                found.push(process);
            }
        }
        Ok(found)
    }

    /// Waits until something is so.
    fn until(&self, what: &str, mut is_so: impl FnMut() -> Result<bool, Box<dyn Error>>) -> Done {
        let deadline = Instant::now() + PATIENCE;
        while !is_so()? {
            if Instant::now() > deadline {
                return Err(format!("not so: {what}").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

fn median(numbers: &[u64]) -> u64 {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or(0)
}

/// Resident bytes of a process.
fn memory(process: u32) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes << 10)
}

/// Processes that ended and that nobody asked how.
fn zombies() -> io::Result<usize> {
    let own = format!(" Z {} ", std::process::id());
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let told = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
        count += usize::from(told.contains(&own));
    }
    Ok(count)
}

/// Starts all, kills as long as told, and looks at what is left. The engine is killed in the first fifth of the time alone,
/// so that its memory can be compared, unless kills are counted.
///
/// # Errors
/// What is not as it should be.
pub fn run(settings: &Settings) -> Result<Report, Box<dyn Error>> {
    let acknowledged = (0..DAEMONS).map(|_| Arc::default()).collect();
    let soak = Soak { settings, acknowledged };
    let mut report = Report::default();
    prepare(&settings.folder)?;
    let mut engine = soak.engine()?;
    let mut daemons = (0..DAEMONS).map(|at| soak.daemon(at)).collect::<Result<Vec<_>, _>>()?;
    let mut producer = soak.producer()?;
    let mut numbers = Numbers::new(settings.seed);
    let began = Instant::now();
    let time = settings.time.unwrap_or(PATIENCE);
    let mut killed = 0;
    while began.elapsed() < time && settings.kills.is_none_or(|kills| killed < kills) {
        thread::sleep(Duration::from_millis(20 + numbers.below(400)));
        let engines = settings.kills.is_some() || began.elapsed() < time / 5;
        if !engines {
            let passed = began.elapsed().saturating_sub(time / 5).as_secs_f64();
            let quarter = (4.0 * passed / (time * 4 / 5).as_secs_f64()) as usize;
            if quarter >= report.memory.len() {
                report.inputs = soak.acknowledged.iter().map(|number| number.load(Ordering::Relaxed)).sum();
                println!("{:.0} s: {report}", began.elapsed().as_secs_f64());
                report.memory.push(Vec::new());
            }
            let now = memory(engine.child.id())?;
            report.memory.iter_mut().last().into_iter().for_each(|quarter| quarter.push(now));
        }
        let victim = match numbers.below(10) {
            0..2 if engines => {
                engine.kill()?;
                engine = soak.engine()?;
                "engine"
            }
            2..5 => {
                let at = numbers.below(DAEMONS as u64) as usize;
                daemons.swap_remove(at).kill()?;
                // In the order of its place, which it takes as the last.
                daemons = replace(daemons, at, soak.daemon(at)?);
                "daemon"
            }
            5..7 => {
                producer.kill()?;
                producer = soak.producer()?;
                "producer"
            }
            _ => {
                let working = soak.playing("work")?;
                let Some(victim) = working.get(numbers.below(working.len() as u64) as usize) else {
                    continue;
                };
                // It may have ended meanwhile.
                if let Some(victim) = Pid::from_raw(*victim) {
                    let _ = kill_process(victim, Signal::KILL);
                }
                "work"
            }
        };
        killed += 1;
        *report.kills.entry(victim).or_default() += 1;
    }
    for daemon in daemons {
        daemon.kill()?;
    }
    let reader = Database::open_read_only(database(&settings.folder))?;
    come_to_rest(&soak, reader)?;
    producer.kill()?;
    // It closes when nobody speaks to it any more.
    engine.end()?;
    soak.until("no process is left", || Ok(soak.playing("")?.is_empty() && zombies()? == 0))?;
    check(&soak, &mut report)?;
    if let (Some(first), Some(last)) = (report.memory.get(1), report.memory.last())
        && median(last) > median(first) + median(first) / 4 + GROWTH
    {
        return Err(format!("the engine has grown: {report}").into());
    }
    Ok(report)
}

/// The daemon in this place was taken out, and the last one put there.
fn replace(mut daemons: Vec<Worker>, at: usize, daemon: Worker) -> Vec<Worker> {
    daemons.push(daemon);
    let last = daemons.len() - 1;
    daemons.swap(at, last);
    daemons
}

fn database(folder: &Path) -> PathBuf {
    folder.join("db")
}

fn options() -> Options {
    Options { log_file_bytes: 1 << 20, checkpoint_operations: 20_000, workers: 2, ..Options::default() }
}

fn prepare(folder: &Path) -> Done {
    let db = Database::create_with(database(folder), options())?;
    let slot = |name| SlotDefinition::new(name).value("n", ColumnType::I64);
    db.define_slot(slot("A").member_key("who").cell_key("name", ColumnType::Utf8))?;
    for name in ["B", "C"] {
        db.define_slot(slot(name).cell_key("who", ColumnType::Utf8).cell_key("name", ColumnType::Utf8))?;
    }
    db.close()?;
    Ok(())
}

fn who(daemon: usize) -> String {
    format!("d{daemon}")
}

/// What a cell says and how often that changed, by slot, daemon and name.
type Shown = BTreeMap<(String, String, String), (i64, u64, State)>;

fn shown(view: &View) -> Result<Shown, Box<dyn Error>> {
    let snapshot = view.snapshot();
    let mut shown = Shown::new();
    for row in view.slot_table(None)? {
        let key = row.key.values().to_vec();
        let text = |at: usize| key.get(at).and_then(|value| value.as_str()).unwrap_or_default().to_string();
        let name = (row.slot.clone(), text(0), text(1));
        if let Some(cell) = snapshot.slot(&row.slot, row.date, key)? {
            let n = cell.rows.i64s("n").and_then(|n| n.first()).copied().ok_or("a cell without a number")?;
            shown.insert(name, (n, cell.generation, row.state));
        }
    }
    Ok(shown)
}

/// Waits until everything is made of what daemons gave.
fn come_to_rest(soak: &Soak<'_>, mut reader: Reader) -> Done {
    let mut last = Shown::new();
    let rest = soak.until("everything is made", || {
        reader.refresh()?;
        last = shown(&reader)?;
        let is_made = |((slot, who, name), (n, ..)): (&(String, String, String), &(i64, u64, State))| {
            let made =
                |slot: &str| last.get(&(slot.to_string(), who.clone(), name.clone())).map(|made| made.0);
            slot != "A" || (made("B") == Some(2 * n) && made("C") == Some(3 * n))
        };
        Ok(!last.is_empty() && last.iter().all(is_made))
    });
    rest.map_err(|error| format!("{error}: {last:?}").into())
}

/// Each number was taken once; what was made is right, and made at most once of each; nothing is damaged.
fn check(soak: &Soak<'_>, report: &mut Report) -> Done {
    let db = Database::open_with(database(&soak.settings.folder), options())?;
    let shown = shown(&db)?;
    let mut inputs = 0;
    for (at, acknowledged) in soak.acknowledged.iter().enumerate() {
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        let own = shown.iter().filter(|((slot, who_gave, _), _)| slot == "A" && *who_gave == who(at));
        let last = own.clone().map(|(_, (n, ..))| *n as u64).max().unwrap_or(0);
        if !(acknowledged..=acknowledged + 1).contains(&last) {
            let what = format!("of daemon {at} {acknowledged} were acknowledged, and {last} are there");
            return Err(what.into());
        }
        if own.count() as u64 != CELLS.min(last) {
            return Err(format!("daemon {at} gave {last} numbers to too few cells: {shown:?}").into());
        }
        inputs += last;
        for cell in 1..=CELLS.min(last) {
            // Of the numbers up to the last one those that this cell gets.
            let count = (last - cell) / CELLS + 1;
            let n = (cell + (count - 1) * CELLS) as i64;
            let get = |slot: &str| shown.get(&(slot.to_string(), who(at), name(cell))).copied();
            let (a, b, c) = (get("A"), get("B"), get("C"));
            let is_right = |made: Option<(i64, u64, State)>, times: i64| {
                made.is_some_and(|(made, g, state)| {
                    made == times * n && (1..=count).contains(&g) && state == State::Current
                })
            };
            let is_once = a.is_some_and(|(given, g, _)| given == n && g == count);
            if !is_once || !is_right(b, 2) || !is_right(c, 3) {
                let what = format!("daemon {at} gave {n} as the {count}th: A {a:?}, B {b:?}, C {c:?}");
                return Err(what.into());
            }
        }
    }
    for run in db.runs(None, usize::MAX)? {
        *report.runs.entry(run.outcome).or_default() += 1;
    }
    report.inputs = inputs;
    let completed = report.runs.get("completed").copied().unwrap_or(0);
    let made: u64 = shown.iter().filter(|((slot, ..), _)| slot != "A").map(|(_, (_, g, _))| g).sum();
    // Each number differs from the one before it, so each success is another generation.
    if completed != made {
        return Err(format!("{completed} runs succeeded, and {made} results were taken").into());
    }
    let damages = db.verify(|_, _| ())?.damages;
    db.close()?;
    if damages.is_empty() { Ok(()) } else { Err(format!("damages: {damages:?}").into()) }
}

fn name(number: u64) -> String {
    format!("k{}", number % CELLS)
}

/// What a process does, by its arguments: a role, the folder, and for a daemon its number.
///
/// # Errors
/// What ends it.
pub fn play(mut arguments: impl Iterator<Item = String>) -> Done {
    let (role, folder) = (arguments.next().ok_or("a role is missing")?, arguments.next());
    let folder = PathBuf::from(folder.ok_or("a folder is missing")?);
    let socket = folder.join("socket");
    match role.as_str() {
        "engine" => engine(&folder, &socket),
        "work" => Ok(serve(|run| make(run, "B", 2))?),
        "producer" => loop {
            let input = InputDefinition::required("A");
            let (soon, later) = (Duration::from_millis(1), Duration::from_millis(50));
            let definition = Definition::new("thrice").input(input).provides("C").lease(LEASE);
            let definition = definition.retry(ATTEMPTS, soon, later);
            match Producer::connect(&socket, definition, PATIENCE) {
                // The one before it is thought to be there.
                Err(RemoteError::Taken(_)) => thread::sleep(Duration::from_millis(50)),
                connected => match connected?.serve(|run| make(run, "C", 3)) {
                    Ok(()) => return Ok(()),
                    Err(error) => eprintln!("the producer begins again: {error}"),
                },
            }
        },
        "daemon" => {
            let number: usize = arguments.next().ok_or("a number is missing")?.parse()?;
            daemon(&who(number), &socket)
        }
        other => Err(format!("no role {other:?}").into()),
    }
}

/// Serves until its standard input ends.
fn engine(folder: &Path, socket: &Path) -> Done {
    let db = Database::open_with(database(folder), options())?;
    let program = Program::new(std::env::current_exe()?).arg("play").arg("work");
    let program = program.arg(folder.display().to_string()).processes(2);
    let retry = Retry::new(ATTEMPTS, Duration::from_millis(1), Duration::from_millis(50));
    let definition = ProducerDefinition::new("twice").requires("A").provides("B").retry(retry);
    db.register_program(definition, program)?;
    let server = db.serve(socket)?;
    writeln!(io::stdout(), "ready")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(server);
    db.close()?;
    Ok(())
}

fn number(run: &Run) -> Result<i64, Failure> {
    let rows = run.input("A")?;
    rows.i64s("n").and_then(|n| n.first()).copied().ok_or_else(|| Failure::fatal("no number"))
}

/// So many times the input, after a while that is longer for some.
fn make(run: &Run, slot: &str, times: i64) -> Result<Outputs, Failure> {
    let n = number(run)?;
    thread::sleep(Duration::from_millis(n.unsigned_abs() % 4));
    Ok(Outputs::new().put(slot, Columns::new().with("n", vec![times * n].into())?))
}

/// Commits one number after the other, each once, from where it stands.
fn daemon(who: &str, socket: &Path) -> Done {
    loop {
        let definition = Definition::daemon(who).provides_as("A", who).lease(LEASE);
        let mut daemon = match Daemon::connect(socket, definition, PATIENCE) {
            Err(RemoteError::Taken(_)) => {
                thread::sleep(Duration::from_millis(50));
                continue;
            }
            connected => connected?,
        };
        let mut last = daemon.last().unwrap_or(0);
        loop {
            let next = last + 1;
            let rows = Columns::new().with("n", vec![next as i64].into())?;
            let key = [("who", who.to_string()), ("name", name(next))];
            match daemon.commit_once(next, &Cells::new().put("A", day(), key, rows)) {
                Err(RemoteError::Fenced(_)) => break,
                accepted => drop(accepted?),
            }
            last = next;
            let mut out = io::stdout().lock();
            out.write_all(format!("{next}\n").as_bytes())?;
            out.flush()?;
            drop(out);
            thread::sleep(Duration::from_millis(5));
        }
    }
}
