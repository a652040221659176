//! A small trading system of processes that come and go: generators give a signal each minute, strategies make decisions of
//! signals, and a trader takes the median of all decisions. One process, the hub, holds the database; all others connect to
//! it, in any order, and again when it was gone.
//!
//! Nothing here waits, polls or looks at ages: a strategy runs when its signals are there, the trader when every strategy
//! has decided, and what is missing, old or gone is named by `ubctl slot why` and `ubctl alarms`.
//!
//! `cargo run --release -p underbelly-median -- demo` starts all of them for some minutes of half a second, kills a
//! strategy on the way, and prints what happened.

mod demo;
mod parts;

use std::error::Error;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Generators, strategies and a trader.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// The process that holds the database
    Hub {
        /// The folder of the database, which is made where there is none
        #[arg(long, value_name = "DIR")]
        db: PathBuf,
        #[command(flatten)]
        hub: Meeting,
    },
    /// A process that gives a signal each minute
    Generator {
        /// Its name, such as 1000
        name: String,
        /// The signals, the first of minute 1; made up where none are given
        #[arg(long, value_delimiter = ',')]
        values: Vec<f64>,
        /// The first minute
        #[arg(long, default_value_t = 1)]
        from: i64,
        /// How many minutes; without end where it is left out and the signals are made up
        #[arg(long)]
        minutes: Option<i64>,
        /// Milliseconds of a minute
        #[arg(long, default_value_t = 60_000)]
        every: u64,
        #[command(flatten)]
        hub: Meeting,
    },
    /// A process that makes a decision of signals: their sum
    Strategy {
        /// Its name
        name: String,
        /// The generators that it follows
        #[arg(long, value_delimiter = ',', required = true)]
        signals: Vec<String>,
        #[command(flatten)]
        hub: Meeting,
    },
    /// The process that takes the median of all decisions
    Trader {
        #[command(flatten)]
        hub: Meeting,
    },
    /// Takes a strategy out that does not come back
    Deregister {
        /// Its name
        name: String,
        #[command(flatten)]
        hub: Meeting,
    },
    /// Starts all of them, and shows what happens
    Demo,
}

/// Where the others find the hub, and how long a silence is borne.
#[derive(Args, Clone)]
pub struct Meeting {
    /// The socket
    #[arg(long, value_name = "FILE", default_value = "median.socket")]
    socket: PathBuf,
    /// Milliseconds without a sign of life after which a process counts as lost
    #[arg(long, default_value_t = 10_000)]
    lease: u64,
}

impl Meeting {
    fn lease(&self) -> Duration {
        Duration::from_millis(self.lease)
    }
}

/// Waits until whoever started this process closes its standard input.
fn until_told() {
    let mut nothing = [0; 64];
    while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
}

fn run(part: Part) -> Result<(), Box<dyn Error>> {
    match part {
        Part::Hub { db, hub } => parts::hub(&db, &hub),
        Part::Generator { name, values, from, minutes, every, hub } => {
            let minutes = minutes.or((!values.is_empty()).then_some(values.len() as i64));
            let every = Duration::from_millis(every);
            parts::Generator { name, values, from, minutes, every }.run(&hub)
        }
        Part::Strategy { name, signals, hub } => parts::strategy(&name, &signals, &hub),
        Part::Trader { hub } => parts::trader(&hub),
        Part::Deregister { name, hub } => parts::deregister(&name, &hub),
        Part::Demo => demo::run(),
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().part) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
