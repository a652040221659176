//! Peers that are libraries of Python: scripts beside `run` that have them work, each in a process of its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use underbelly_benches::Failed;

/// The environment's name of a Python that has the peers.
const PYTHON: &str = "UNDERBELLY_PEERS_PYTHON";

/// What came of a piece of work.
pub struct Answer {
    /// How long it took.
    pub seconds: f64,
    /// What was found, as a number.
    pub check: f64,
}

/// A peer in a process of its own.
pub struct Peer {
    /// Of the library.
    pub name: &'static str,
    child: Child,
    mouth: ChildStdin,
    ear: BufReader<ChildStdout>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Starts those that are here, each in a folder of its own under `folder`, and tells which are not.
    pub fn start_all(script: &str, names: &[&'static str], data: &Path, folder: &Path) -> Vec<Peer> {
        let mut peers = Vec::new();
        for name in names {
            match Peer::start(script, name, data, &folder.join(name)) {
                Ok(peer) => peers.push(peer),
                Err(error) => println!("{name} is not here: {error}"),
            }
        }
        peers
    }

    /// Starts it; prints its version.
    fn start(script: &str, name: &'static str, data: &Path, folder: &Path) -> Result<Peer, Failed> {
        let python = std::env::var_os(PYTHON).ok_or_else(|| format!("{PYTHON} names no Python"))?;
        fs::create_dir_all(folder)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let mut child = Command::new(python)
            .arg(script)
            .arg(name)
            .arg(data)
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (mouth, ear) = (child.stdin.take(), child.stdout.take());
        let (Some(mouth), Some(ear)) = (mouth, ear) else { return Err("it has no pipes".into()) };
        let mut peer = Peer { name, child, mouth, ear: BufReader::new(ear) };
        println!("{name}: {}", peer.line()?);
        Ok(peer)
    }

    fn line(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        match self.ear.read_line(&mut line)? {
            0 => Err("its process has ended".into()),
            _ => Ok(line.trim().to_string()),
        }
    }

    /// Has it do a piece of work.
    pub fn work(&mut self, work: &str) -> Result<Answer, Failed> {
        writeln!(self.mouth, "{work}")?;
        let line = self.line()?;
        let number = |name: &str| {
            let (_, rest) = line.split_once(&format!("\"{name}\": "))?;
            rest.split([',', '}']).next()?.parse::<f64>().ok()
        };
        match (number("seconds"), number("check")) {
            (Some(seconds), Some(check)) => Ok(Answer { seconds, check }),
            _ => Err(line.into()),
        }
    }
}
