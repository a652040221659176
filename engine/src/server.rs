//! A Unix socket over which processes that others have started work for a database: clients, daemons, and producers with runs,
//! in any order, and again after they were gone. They say what child processes say, and open sessions with it; `PROTOCOL.md`
//! has the messages, `peer` is one of them, `definition` what they say that they are.

mod definition;
mod peer;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::database::Database;
use crate::error::ServeError;
use crate::limits::PEERS_MAX;
use crate::sessions::Session;

/// A socket that is served. It is closed, and whoever is connected is let go, when this is dropped; a session with a lease
/// then is a lost one unless its process comes back in time.
pub struct Server {
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

/// What the threads of a server share.
struct Shared {
    db: Database,
    path: PathBuf,
    is_over: AtomicBool,
    next: AtomicU64,
    peers: Mutex<BTreeMap<u64, Peer>>,
    /// Held by whoever opens a session.
    opening: Mutex<()>,
    /// Sessions with a lease whose connection was lost, by producer, until their process comes back.
    parked: Mutex<BTreeMap<String, Session>>,
}

/// A connection.
struct Peer {
    stream: UnixStream,
    /// Not there until it was started.
    thread: Option<JoinHandle<()>>,
}

impl Database {
    /// Lets other processes of this user work for the database over a Unix socket, until the answer is dropped or the database
    /// is closed. The crate `underbelly-worker` is their end of it. A socket that a killed process left there is replaced.
    ///
    /// What they commit is committed as what [`Database::commit`] or a [`Session`] commits. A producer with runs that connects
    /// is registered, and gets its runs, as one that [`Database::register`] takes; it is a lost session when it has given no
    /// sign of life for its lease. Readers need no server: they open the folder with [`Database::open_read_only`].
    ///
    /// # Errors
    /// [`ServeError::Taken`] where somebody serves there, [`ServeError::Io`] where the path is too long or the system refuses.
    pub fn serve(&self, path: impl AsRef<Path>) -> Result<Server, ServeError> {
        let path = path.as_ref().to_path_buf();
        let failed = |action: &'static str| {
            let path = path.clone();
            move |source: io::Error| ServeError::Io { action, path, source }
        };
        let listener = match UnixListener::bind(&path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                // Nobody answers at a socket whose process is gone.
                if UnixStream::connect(&path).is_ok() {
                    return Err(ServeError::Taken { path });
                }
                fs::remove_file(&path).map_err(failed("cannot replace"))?;
                UnixListener::bind(&path)
            }
            bound => bound,
        };
        let listener = listener.map_err(failed("cannot make"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed("cannot protect"))?;
        let shared = Arc::new(Shared {
            db: self.clone(),
            path: path.clone(),
            is_over: AtomicBool::new(false),
            next: AtomicU64::new(0),
            peers: Mutex::default(),
            opening: Mutex::default(),
            parked: Mutex::default(),
        });
        let listening = shared.clone();
        let thread = thread::Builder::new()
            .name("underbelly-server".to_string())
            .spawn(move || listening.listen(&listener))
            .map_err(failed("cannot start a thread for"))?;
        Ok(Server { shared, listener: Some(thread) })
    }
}

impl Server {
    /// The socket.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// How many processes are connected.
    pub fn peers(&self) -> usize {
        self.shared.peers().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // The listener waits for somebody.
        let _ = UnixStream::connect(&self.shared.path);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        let _ = fs::remove_file(&self.shared.path);
        let peers = std::mem::take(&mut *self.shared.peers());
        for peer in peers.values() {
            let _ = peer.stream.shutdown(Shutdown::Both);
        }
        for peer in peers.into_values() {
            peer.thread.map(JoinHandle::join);
        }
    }
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parked(&self) -> MutexGuard<'_, BTreeMap<String, Session>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: &Arc<Shared>, listener: &UnixListener) {
        for stream in listener.incoming() {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let taken = stream.and_then(|stream| self.take(stream));
            if let Err(error) = taken {
                self.db.core().note_trouble(format!("{}: {error}", self.path.display()));
                // Too many open files, perhaps, which is so for a while.
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Starts a thread for a connection.
    fn take(self: &Arc<Shared>, stream: UnixStream) -> io::Result<()> {
        let mut peers = self.peers();
        if peers.len() >= PEERS_MAX {
            return Err(io::Error::other(format!("more than {PEERS_MAX} processes are connected")));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let own = stream.try_clone()?;
        peers.insert(number, Peer { stream, thread: None });
        let shared = self.clone();
        let started = thread::Builder::new().name("underbelly-peer".to_string()).spawn(move || {
            // What is wrong with a connection was told there.
            let _ = peer::serve(&shared, own);
            shared.peers().remove(&number);
        });
        match started {
            Ok(thread) => {
                if let Some(peer) = peers.get_mut(&number) {
                    peer.thread = Some(thread);
                }
                Ok(())
            }
            Err(error) => {
                peers.remove(&number);
                Err(error)
            }
        }
    }
}
