//! An engine and those that work for it, killed at any moment: `soak --minutes 60` starts all and looks at what is left; exit
//! code 1 where that is not as it should be. `soak play …` is one of the processes.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::Parser;
use underbelly_tests::soak::{self, Settings};

/// The engine, its program's processes, daemons and a producer on its socket, killed at any moment.
#[derive(Parser)]
struct Arguments {
    /// How long
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// What is killed when; the time without it
    #[arg(long)]
    seed: Option<u64>,
    /// A folder that is not there yet; one that is deleted in the end without it
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("play") {
        return soak::play(words);
    }
    let Arguments { minutes, seed, folder } = Arguments::parse();
    let seed = seed.unwrap_or_else(|| UNIX_EPOCH.elapsed().map_or(1, |since| since.as_micros() as u64));
    let passing = folder.is_none();
    let folder = folder.unwrap_or_else(|| std::env::temp_dir().join(format!("soak-{seed}")));
    std::fs::create_dir_all(&folder)?;
    println!("seed {seed} in {}", folder.display());
    let (program, time) = (std::env::current_exe()?, Some(Duration::from_secs_f64(minutes * 60.0)));
    let report = soak::run(&Settings { program, folder: folder.clone(), kills: None, time, seed })?;
    println!("{report}");
    if passing {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}
