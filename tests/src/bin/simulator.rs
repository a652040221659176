//! Runs the simulator: `simulator --seconds 20`, `simulator --cycles 1000000 --seed 7`, and to see one life again
//! `simulator --seed 7 --trace`. A failing seed is named with the command that repeats it, and the exit code is 1; so it is with
//! `--at-least 300` where fewer cycles a second are lived, and where some kind of transaction was never met in 10,000 cycles.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use underbelly_tests::simulator::{Figures, live};

/// A fifth of a life is asking for memory and giving it back.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole engine on a simulated disk against a simple model.
#[derive(Parser)]
struct Arguments {
    /// Stop after so many cycles: a crash or a failing disk, a recovery, a full check
    #[arg(long)]
    cycles: Option<u64>,
    /// Stop after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// The first seed; each life has the next. Alone, one life of this seed. Without it, the time
    #[arg(long)]
    seed: Option<u64>,
    /// Fail where fewer cycles are lived in a second of processor time
    #[arg(long)]
    at_least: Option<f64>,
    /// Tell every step
    #[arg(long)]
    trace: bool,
}

/// Cycles after which each kind of transaction has come, as sure as anything.
const MANY: u64 = 10_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let Arguments { cycles, seconds, seed, at_least, trace } = Arguments::parse();
    let one = seed.is_some() && cycles.is_none() && seconds.is_none();
    let first = seed.unwrap_or_else(|| UNIX_EPOCH.elapsed().map_or(1, |since| since.as_micros() as u64));
    let time = seconds
        .map_or(if cycles.is_some() { Duration::MAX } else { Duration::from_secs(20) }, Duration::from_secs);
    let cycles = cycles.unwrap_or(u64::MAX);
    // A panic of the engine is told with its seed; here is where it happened.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));

    let (began, mut figures) = (Instant::now(), Figures::default());
    let mut told = began;
    let mut out = std::io::stdout();
    writeln!(out, "first seed {first}")?;
    for seed in first.. {
        live(seed, trace, &mut figures)?;
        if told.elapsed() > Duration::from_secs(60) {
            tell(&mut out, &figures, began)?;
            told = Instant::now();
        }
        if one || figures.cycles >= cycles || began.elapsed() >= time {
            break;
        }
    }
    tell(&mut out, &figures, began)?;
    let (rate, least) = (figures.cycles as f64 / busy(), at_least.unwrap_or(0.0));
    if rate < least {
        let what =
            format!("{rate:.0} cycles in a second of a core are fewer than the {least} that are asked for");
        return Err(what.into());
    }
    let lacks: Vec<&str> =
        figures.kinds().into_iter().filter(|(_, count)| *count == 0).map(|(kind, _)| kind).collect();
    match figures.cycles >= MANY && !lacks.is_empty() {
        true => Err(format!("no life had {}", lacks.join(", ")).into()),
        false => Ok(()),
    }
}

/// Seconds of processor time of this process.
fn busy() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn tell(out: &mut impl Write, figures: &Figures, began: Instant) -> Result<(), Box<dyn Error>> {
    let seconds = began.elapsed().as_secs_f64();
    writeln!(
        out,
        "{} cycles in {seconds:.1} s: {:.0} cycles/s, {:.0} in a second of one core; {} transactions, {} crashes, {} failed calls, {} recoveries \
         cut short, {} transactions within checkpoints, {} looks of readers, {} fall-backs, {} backups ({} beside a writer) and {} cut short, {} commits of daemons and {} sent again, \
         {} sessions lost, {} transactions refused, {} expiries, {} series as they were known, {} changing calls",
        figures.cycles,
        figures.cycles as f64 / seconds,
        figures.cycles as f64 / busy(),
        figures.transactions,
        figures.crashes,
        figures.faults,
        figures.interrupted,
        figures.meanwhile,
        figures.reads,
        figures.fallbacks,
        figures.backups,
        figures.overtaken,
        figures.cut,
        figures.sent,
        figures.again,
        figures.lost,
        figures.refused,
        figures.expired,
        figures.known,
        figures.calls,
    )?;
    let kinds: Vec<String> =
        figures.kinds().into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    writeln!(out, "among them {}", kinds.join(", "))?;
    Ok(())
}
