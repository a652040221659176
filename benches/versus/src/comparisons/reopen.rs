//! Opening after a process that stored much was killed: how long until the first answers, and what was read.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use underbelly_benches::Failed;
use underbelly_benches::figure::median;
use underbelly_benches::raw::RawFile;

use crate::comparisons::{Entry, print_terms};
use crate::effort::Effort;
use crate::folders;
use crate::line::{Better, Comparison, Figure, Plain};
use crate::load::fill;
use crate::record::{KEY_BYTES, Kind, Record, VALUE_BYTES};
use crate::store::{Peer, Promise, Setup, Upkeep};

/// This comparison.
pub const ENTRY: Entry = Entry {
    name: "reopen",
    about: "opening after SIGKILL with 10 M rows, 1 M cells and 100 k models stored: time and bytes read",
    run,
};

/// Fewer rounds than elsewhere do: each begins with copies of everything.
const ROUNDS_MAX: usize = 3;
/// The first argument of a process that does a [`Task`].
pub const TASK: &str = "task";
/// Amounts that sled was seen to store within the memory of a usual machine.
const SLED_DIVISOR_MIN: u64 = 10;
/// What a process says when all is stored, and when it has opened.
const STORED: &str = "stored";
const OPENED: &str = "opened";

/// Everyone at its fastest to open.
const SETUP: Setup = Setup { promise: Promise::Synced, upkeep: Upkeep::Default, fast_reopen: true };

/// Records of a kind: how many, how many in a transaction, bytes of a value.
const STOCK: [(Kind, u64, u64, usize); 3] = [
    (Kind::Row, 10_000_000, 100_000, 40 - KEY_BYTES),
    (Kind::Model, 100_000, 1_000, 1024 - KEY_BYTES),
    (Kind::Cell, 1_000_000, 10_000, VALUE_BYTES),
];

/// What a process of this comparison does. Its parent ends it by SIGKILL.
#[derive(clap::Parser)]
pub struct Task {
    /// What is done.
    #[arg(value_enum)]
    role: Role,
    /// With which store.
    #[arg(value_enum)]
    peer: Peer,
    /// Where.
    folder: PathBuf,
    /// As [`Effort::divisor`] is.
    divisor: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Store,
    Open,
}

/// How an opening went.
struct Opening {
    seconds: f64,
    megabytes: f64,
    recovery: String,
}

/// The openings of one turn.
struct Turn {
    cold: Opening,
    cached: Opening,
}

/// A figure of a turn.
type Part = fn(&Turn) -> f64;

/// Whether an opening finds the files in the page cache.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pages {
    Cold,
    Cached,
}

fn run(folder: &Path, effort: &Effort) -> Result<(), Failed> {
    let rounds = effort.rounds.min(ROUNDS_MAX);
    let mut effort = Effort { rounds, warm_up: false, turn: Duration::ZERO, ..effort.clone() };
    let is_too_much = |peer: &Peer| *peer == Peer::Sled && effort.divisor < SLED_DIVISOR_MIN;
    if effort.peers.iter().any(is_too_much) {
        effort.peers.retain(|peer| !is_too_much(peer));
        println!(
            "sled: left out, as storing this takes it more than 23 GB of memory; --divisor {SLED_DIVISOR_MIN} compares with it"
        );
    }
    print_terms(&effort, SETUP);
    for (kind, all, each, bytes) in STOCK {
        let pair = KEY_BYTES + bytes;
        println!("{}: {} of {pair} bytes, {each} in a transaction", kind.name(), effort.amount(all));
    }
    let mut stores = Vec::new();
    for peer in &effort.peers {
        let store = folder.join(peer.to_string());
        let began = Instant::now();
        Process::start(Role::Store, *peer, &store, effort.divisor)?.expect(STORED)?;
        let took = began.elapsed().as_secs_f64();
        let size = folders::bytes(&store)? as f64 / 1e6;
        println!("{peer}: stored in {} s, {} MB; killed", Plain(took), Plain(size));
        stores.push((*peer, store));
    }
    // Made here so that there is a file to read.
    RawFile::create(folder)?;
    let raw = folder.join("raw");
    let opened = folder.join("opened");
    let rounds = effort.rounds(
        &stores,
        || {
            folders::evict_file(&raw)?;
            Ok(folders::read_rate(&raw)? / 1e6)
        },
        |peer, store| {
            let open = |pages| open_copy(peer, store, &opened, effort.divisor, pages);
            Ok(Turn { cold: open(Pages::Cold)?, cached: open(Pages::Cached)? })
        },
    )?;
    let raw = median(rounds.raw);
    let cases: [(&str, &'static str, Part); 3] = [
        ("time cold", "s", |turn| turn.cold.seconds),
        ("time cached", "s", |turn| turn.cached.seconds),
        ("read cold", "MB", |turn| turn.cold.megabytes),
    ];
    for (case, unit, value) in cases {
        let figures = rounds.turns.iter().map(|(peer, turns)| {
            let turns: Vec<f64> = turns.iter().map(value).collect();
            Figure::median(*peer, &turns)
        });
        let (case, figures) = (case.to_string(), figures.collect());
        let comparison = Comparison { name: ENTRY.name, case, unit, better: Better::Less, figures };
        println!("{comparison}");
        println!("raw read of a cold file, 1 MiB at a time: {} MB/s", Plain(raw));
        println!("{}", comparison.spread());
    }
    for (peer, turns) in &rounds.turns {
        if let Some(turn) = turns.last().filter(|turn| !turn.cold.recovery.is_empty()) {
            println!("{peer}: {}", turn.cold.recovery);
        }
    }
    Ok(())
}

/// Opens a copy of what was left, since opening mends it, and removes the copy.
fn open_copy(peer: Peer, store: &Path, copy: &Path, divisor: u64, pages: Pages) -> Result<Opening, Failed> {
    folders::copy(store, copy)?;
    // Written back in both cases, so that no opening waits for what the copy left behind.
    folders::sync(copy)?;
    if pages == Pages::Cold {
        folders::evict(copy)?;
    }
    let answer = Process::start(Role::Open, peer, copy, divisor)?.expect(OPENED)?;
    fs::remove_dir_all(copy)?;
    let mut words = answer.splitn(3, ' ');
    let mut number = || words.next().and_then(|word| word.parse::<f64>().ok());
    match (number(), number()) {
        (Some(seconds), Some(bytes)) => {
            let recovery = words.next().unwrap_or_default().to_string();
            Ok(Opening { seconds, megabytes: bytes / 1e6, recovery })
        }
        _ => Err(format!("a process that opens answered {answer:?}, not its seconds and bytes").into()),
    }
}

/// A process of this program; killed when it is dropped.
struct Process(Child);

impl Process {
    fn start(role: Role, peer: Peer, folder: &Path, divisor: u64) -> Result<Process, Failed> {
        let role = role.to_possible_value().map(|value| value.get_name().to_string());
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(TASK).args(role).arg(peer.to_string()).arg(folder).arg(divisor.to_string());
        Ok(Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }

    /// Waits for the line that begins with a word, answers the rest of it and kills the process.
    fn expect(mut self, word: &str) -> Result<String, Failed> {
        let output = self.0.stdout.take().ok_or("a process without output")?;
        for line in BufReader::new(output).lines() {
            if let Some(rest) = line?.strip_prefix(word) {
                return Ok(rest.trim().to_string());
            }
        }
        Err(format!("the process ended without {word:?}; what it says is above").into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Task {
    /// Does it, says so and waits to be killed; ends by itself where the parent has.
    pub fn perform(&self) -> Result<(), Failed> {
        let stock = STOCK.map(|(kind, all, each, bytes)| (kind, (all / self.divisor).max(1), each, bytes));
        let done = match self.role {
            Role::Store => {
                let store = self.peer.open(&self.folder, SETUP)?;
                for (kind, count, each, bytes) in stock {
                    fill(&*store, kind, 0..count, each, bytes)?;
                }
                (STORED.to_string(), store)
            }
            Role::Open => {
                let before = bytes_read()?;
                let began = Instant::now();
                let store = self.peer.open(&self.folder, SETUP)?;
                for (kind, count, _, bytes) in stock {
                    let last = Record::new(count - 1, count - 1, bytes);
                    if !store.holds(kind, &last)? {
                        return Err(format!("{} {} is lost", kind.name(), last.number).into());
                    }
                }
                let seconds = began.elapsed().as_secs_f64();
                let read = bytes_read()?.saturating_sub(before);
                let recovery = store.recovery().unwrap_or_default();
                (format!("{OPENED} {seconds} {read} {recovery}"), store)
            }
        };
        let (said, store) = done;
        println!("{said}");
        std::io::stdout().flush()?;
        std::io::stdin().read_to_end(&mut Vec::new())?;
        drop(store);
        Ok(())
    }
}

/// Bytes that this process fetched from the disk, by reads and by maps.
fn bytes_read() -> Result<u64, Failed> {
    let counters = fs::read_to_string("/proc/self/io")
        .map_err(|error| format!("cannot count bytes read: /proc/self/io: {error}"))?;
    let line = counters.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    Ok(line.ok_or("/proc/self/io has no read_bytes")?.trim().parse()?)
}
