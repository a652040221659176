//! What a producer's program is, and how its processes are looked after.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A program that does a producer's work in processes of its own, as `PROTOCOL.md` describes. See
/// [`Database::register_program`](crate::Database::register_program).
///
/// ```
/// use underbelly::Program;
/// use std::time::Duration;
/// let program = Program::new("python3").arg("mean.py").processes(2).run_timeout(Duration::from_secs(60));
/// # let _ = program;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Program {
    /// The program: a path, or a name that is looked for in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables beside those of this process.
    pub env: BTreeMap<String, String>,
    /// The folder in which it works. Default: that of this process.
    pub dir: Option<PathBuf>,
    /// Most processes at once. Default 1.
    pub processes: usize,
    /// How long a process may take until it has said hello. Default 30 seconds.
    pub startup_timeout: Duration,
    /// How long a batch may take; a process that takes longer is killed. Default: no limit.
    pub run_timeout: Option<Duration>,
    /// How often a process that has work tells that it lives. Default: one second.
    pub heartbeat: Duration,
    /// How long a process that has work may be silent before it is killed. Default: 15 seconds.
    pub heartbeat_grace: Duration,
    /// How long processes may take to end what they do when the database is closed or the producer is taken out. Default:
    /// 5 seconds.
    pub close_grace: Duration,
    /// How long to wait after a process that could not start; twice that after the next, and so on up to
    /// [`Program::max_backoff`]. Default: a tenth of a second.
    pub backoff: Duration,
    /// The longest such wait. Default: 30 seconds.
    pub max_backoff: Duration,
}

impl Program {
    /// A program without arguments.
    pub fn new(program: impl Into<PathBuf>) -> Program {
        Program {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            dir: None,
            processes: 1,
            startup_timeout: Duration::from_secs(30),
            run_timeout: None,
            heartbeat: Duration::from_secs(1),
            heartbeat_grace: Duration::from_secs(15),
            close_grace: Duration::from_secs(5),
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(30),
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Program {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Program {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Program {
        self.env.insert(name.into(), value.into());
        self
    }

    /// The folder in which it works.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Program {
        self.dir = Some(dir.into());
        self
    }

    /// Most processes at once.
    pub fn processes(mut self, processes: usize) -> Program {
        self.processes = processes;
        self
    }

    /// How long a process may take until it has said hello.
    pub fn startup_timeout(mut self, timeout: Duration) -> Program {
        self.startup_timeout = timeout;
        self
    }

    /// How long a batch may take.
    pub fn run_timeout(mut self, timeout: Duration) -> Program {
        self.run_timeout = Some(timeout);
        self
    }

    /// How often a process that has work tells that it lives, and how long it may be silent.
    pub fn heartbeat(mut self, every: Duration, grace: Duration) -> Program {
        (self.heartbeat, self.heartbeat_grace) = (every, grace);
        self
    }

    /// How long processes may take to end.
    pub fn close_grace(mut self, grace: Duration) -> Program {
        self.close_grace = grace;
        self
    }

    /// The first and the longest wait after a process that could not start.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Program {
        (self.backoff, self.max_backoff) = (first, longest);
        self
    }
}
