//! Underbelly and its peers side by side: the same work, the same promise, the same file system, one run.
//!
//! In reading order: `record` (what is stored), `store` (what a peer must do), `stores` (each of them), `load`
//! (threads that commit), `servers` (peers that are asked over
//! sockets), `python` (peers that are libraries of Python), `timed` (a disk that tells when a sync came back), `effort` (rounds), `folders`
//! (copied and put out of the page cache), `line` (figures and their lines), `comparisons` (what is compared).

mod comparisons;
mod effort;
mod folders;
mod line;
mod load;
mod python;
mod record;
mod servers;
mod store;
mod stores;
mod timed;

use std::time::Duration;

use clap::Parser;
use underbelly_benches::{Failed, or_exit, place};

use crate::comparisons::{reopen, variable, wake};
use crate::effort::Effort;
use crate::store::Peer;

/// Compares Underbelly with its peers side by side. Without a name, lists the comparisons.
///
/// Prints one line for each case: `versus NAME CASE: underbelly X | PEER Y | … | ratio R`. The ratio is how many
/// times better than the best peer Underbelly is. Lines of the machine's own limit and of the spread follow.
#[derive(Parser)]
#[command(name = "benches/versus/run")]
struct Args {
    /// The comparison; all of them with `all`.
    name: Option<String>,
    /// Little data and short turns: shows that it runs, its figures say little.
    #[arg(long)]
    quick: bool,
    /// Rounds that are counted; an odd number has a middle one.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: Option<u16>,
    /// Divides the amounts of data that are stored beforehand.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    divisor: Option<u64>,
    /// Peers to compare with.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::OTHERS)]
    peers: Vec<Peer>,
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(reopen::TASK) {
        let task = reopen::Task::parse_from(std::env::args().skip(1));
        return or_exit(task.perform());
    }
    if std::env::args().nth(1).as_deref() == Some(wake::TASK) {
        return or_exit(wake::produce());
    }
    if std::env::args().nth(1).as_deref() == Some(variable::TASK) {
        return or_exit(variable::read());
    }
    let args = Args::parse();
    let Some(name) = &args.name else {
        println!("benches/versus/run NAME, one of:");
        for entry in comparisons::ALL {
            println!("  {:<12}{}", entry.name, entry.about);
        }
        return;
    };
    or_exit(run(name, &args));
}

fn run(name: &str, args: &Args) -> Result<(), Failed> {
    let chosen: Vec<_> =
        comparisons::ALL.iter().filter(|entry| name == "all" || entry.name == name).collect();
    if chosen.is_empty() {
        let names: Vec<_> = comparisons::ALL.iter().map(|entry| entry.name).collect();
        return Err(
            format!("there is no comparison {name:?}; choose one of {}, or all", names.join(", ")).into()
        );
    }
    let mut peers = vec![Peer::Underbelly];
    peers.extend(Peer::OTHERS.into_iter().filter(|peer| args.peers.contains(peer)));
    let effort = effort(args, peers);
    for entry in chosen {
        let scratch = place::scratch()?;
        effort::describe(scratch.path()).iter().for_each(|line| println!("{line}"));
        println!("{}: {}", entry.name, entry.about);
        (entry.run)(scratch.path(), &effort)?;
    }
    Ok(())
}

fn effort(args: &Args, peers: Vec<Peer>) -> Effort {
    let (rounds, turn, divisor) = match args.quick {
        true => (1, Duration::from_millis(50), 100),
        false => (5, Duration::from_secs(1), 1),
    };
    let rounds = args.rounds.map_or(rounds, usize::from);
    let divisor = args.divisor.unwrap_or(divisor);
    Effort { rounds, warm_up: !args.quick, turn, divisor, peers }
}
