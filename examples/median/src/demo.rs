//! All processes at once, one of which is killed on the way.

use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use underbelly::{Database, Reader, Value};

use crate::parts::minute;

/// Milliseconds of a minute.
const MINUTE: &str = "500";

/// How long something may take before the demonstration has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Processes<'a> {
    folder: &'a Path,
    running: Vec<Child>,
    hub: Option<Child>,
}

impl Processes<'_> {
    fn spawn(&self, words: &[&str]) -> Result<Child, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words).arg("--socket").arg(self.folder.join("socket")).args(["--lease", "1500"]);
        Ok(command.stdin(Stdio::piped()).spawn()?)
    }

    /// Starts a part that connects to the hub; its place among those that run.
    fn start(&mut self, words: &[&str]) -> Result<usize, Box<dyn Error>> {
        let child = self.spawn(words)?;
        self.running.push(child);
        Ok(self.running.len() - 1)
    }
}

impl Drop for Processes<'_> {
    fn drop(&mut self) {
        // The hub is the last: it hears the goodbyes of the others.
        for child in self.running.iter_mut().rev().chain(&mut self.hub) {
            // Its standard input is closed: it says goodbye.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

fn wait<T>(
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    let began = Instant::now();
    loop {
        match look()? {
            Some(found) => return Ok(found),
            None if began.elapsed() > PATIENCE => return Err(format!("{what} does not come").into()),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn has_median(reader: &mut Reader, number: i64) -> Result<Option<()>, Box<dyn Error>> {
    reader.refresh()?;
    let cell = reader.snapshot().slot("Median", minute(number), [] as [Value; 0])?;
    Ok(cell.map(drop))
}

/// Starts everything, strategies first, kills one, shows why there is no median, and takes it out.
pub fn run() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("underbelly-median-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let shown = show(&folder);
    std::fs::remove_dir_all(&folder)?;
    shown
}

fn show(folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut processes = Processes { folder, running: Vec::new(), hub: None };
    let db = folder.join("db");
    // In an order in which nothing would work if it waited for what comes later.
    processes.start(&["strategy", "X", "--signals", "1000"])?;
    let victim = processes.start(&["strategy", "Y", "--signals", "1001,1002"])?;
    processes.start(&["trader"])?;
    processes.hub = Some(processes.spawn(&["hub", "--db", &db.to_string_lossy()])?);
    let registered = wait("the system", || {
        let Ok(reader) = Database::open_read_only(&db) else { return Ok(None) };
        Ok((reader.producers().iter().filter(|producer| producer.attached).count() == 3).then_some(reader))
    });
    let mut reader = registered?;
    for name in ["1000", "1001", "1002"] {
        processes.start(&["generator", name, "--minutes", "40", "--every", MINUTE])?;
    }
    wait("a median", || has_median(&mut reader, 3))?;
    println!("-- Y is killed");
    if let Some(child) = processes.running.get_mut(victim) {
        child.kill()?;
    }
    let alarms = wait("an alarm", || {
        reader.refresh()?;
        let alarms = reader.alarms();
        Ok((!alarms.is_empty()).then_some(alarms))
    })?;
    for alarm in alarms {
        println!("-- alarm: {}", alarm.kind);
    }
    let missing = wait("a minute without a median", || {
        reader.refresh()?;
        let mut decisions = reader.slot_table(Some("Decision"))?.filter(|row| row.key.to_string() == "X");
        let mut without = Vec::new();
        for row in decisions.by_ref() {
            if reader.snapshot().slot("Median", row.date, [] as [Value; 0])?.is_none() {
                without.push(row.date);
            }
        }
        Ok(without.into_iter().max())
    })?;
    println!("-- why is there no median for {missing}?");
    print!("{}", reader.why("Median", missing, [] as [Value; 0])?);
    println!("-- Y is deregistered");
    let out = processes.start(&["deregister", "Y"])?;
    if let Some(child) = processes.running.get_mut(out) {
        child.wait()?;
    }
    wait("the median of the rest", || {
        reader.refresh()?;
        Ok(reader.snapshot().slot("Median", missing, [] as [Value; 0])?.map(drop))
    })?;
    println!("-- the others go on without it");
    Ok(())
}
