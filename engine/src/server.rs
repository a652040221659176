//! A Unix socket over which processes that others have started work for a database: clients, daemons, and producers with runs,
//! in any order, and again after they were gone. They say what child processes say, and open sessions with it; `PROTOCOL.md`
//! has the messages, `peer` is one of them, `definition` what they say that they are.

mod definition;
mod peer;
mod place;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use self::place::Place;
use crate::core::Core;
use crate::database::Database;
use crate::error::ServeError;
use crate::limits::PEERS_MAX;
use crate::producers::{Wire, told};

/// A socket that is served. It is closed, and whoever is connected is let go, when this is dropped; a session with a lease
/// then is a lost one unless its process comes back in time.
pub struct Server {
    shared: Arc<Shared>,
}

/// What the threads of a server share.
pub(crate) struct Shared {
    db: Database,
    place: Place,
    is_over: AtomicBool,
    /// Whose end wakes the listener.
    awake: UnixStream,
    listener: Mutex<Option<JoinHandle<()>>>,
    next: AtomicU64,
    peers: Mutex<BTreeMap<u64, Peer>>,
}

/// A connection.
struct Peer {
    wire: Wire,
    thread: JoinHandle<()>,
}

impl Database {
    /// Lets other processes of this user work for the database over a Unix socket, until the answer is dropped or the database
    /// is closed. The crate `underbelly-worker` is their end of it. A socket that a killed process left there is replaced;
    /// any other file is left alone.
    ///
    /// What they commit is committed as what [`Database::commit`] or a [`Session`](crate::Session) commits. A producer with
    /// runs that connects is registered, and gets its runs, as one that [`Database::register`] takes; it is a lost session
    /// when it has given no sign of life for its lease. Its runs may take any time while it does; [`Database::cancel`] ends one. Readers need no server: they open the folder with
    /// [`Database::open_read_only`].
    ///
    /// # Errors
    /// [`ServeError::Taken`] where somebody serves there, [`ServeError::NoSocket`] where a file of another kind is there,
    /// [`ServeError::Io`] where the path is too long or the system refuses.
    pub fn serve(&self, path: impl AsRef<Path>) -> Result<Server, ServeError> {
        let path = path.as_ref().to_path_buf();
        let failed = |action: &'static str| {
            let path = path.clone();
            move |source: io::Error| ServeError::Io { action, path, source }
        };
        let core = self.core();
        // Whoever closes the database meanwhile waits, and ends this server too.
        let folder = core.enter().map_err(|_| ServeError::Closed { path: path.clone() })?;
        let (place, listener) = Place::take(&path)?;
        listener.set_nonblocking(true).map_err(failed("cannot listen at"))?;
        let (awake, over) = UnixStream::pair().map_err(failed("cannot make a pair for"))?;
        let shared = Arc::new(Shared {
            db: self.clone(),
            place,
            is_over: AtomicBool::new(false),
            awake,
            listener: Mutex::default(),
            next: AtomicU64::new(0),
            peers: Mutex::default(),
        });
        let listening = shared.clone();
        let thread = thread::Builder::new()
            .name("underbelly-server".to_string())
            .spawn(move || listening.listen(&listener, &over))
            .map_err(failed("cannot start a thread for"))?;
        *shared.listener() = Some(thread);
        let mut servers = core.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|server| server.strong_count() > 0);
        servers.push(Arc::downgrade(&shared));
        drop(servers);
        // A connection may be waiting for the folder, and the server's end for that.
        drop(folder);
        let server = Server { shared };
        // Whoever closes hangs up, and then looks for servers once more.
        if core.signals.is_hung_up() { Err(ServeError::Closed { path }) } else { Ok(server) }
    }
}

impl Server {
    /// The socket.
    pub fn path(&self) -> &Path {
        self.shared.place.path()
    }

    /// How many processes are connected.
    pub fn peers(&self) -> usize {
        self.shared.peers().values().filter(|peer| !peer.thread.is_finished()).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.end();
        self.shared.wait();
    }
}

impl Core {
    /// Ends the servers of a database that is closed; [`Shared::wait`] waits for their threads.
    pub(crate) fn end_servers(&self) -> Vec<Arc<Shared>> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let servers: Vec<Arc<Shared>> = servers.iter().filter_map(Weak::upgrade).collect();
        servers.iter().for_each(|server| server.end());
        servers
    }
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listener(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it lets nobody in any more, and whoever was connected go.
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Lets go of whoever is connected.
    fn end(&self) {
        let peers = self.peers();
        self.is_over.store(true, Ordering::SeqCst);
        let _ = self.awake.shutdown(Shutdown::Both);
        self.place.leave();
        peers.values().for_each(|peer| peer.wire.end());
    }

    /// Waits for the threads of one that was ended. Whoever comes second waits too.
    pub(crate) fn wait(&self) {
        let mut listener = self.listener();
        if let Some(listener) = listener.take() {
            let _ = listener.join();
        }
        let peers = std::mem::take(&mut *self.peers());
        for peer in peers.into_values() {
            let _ = peer.thread.join();
        }
    }

    fn listen(self: &Arc<Shared>, listener: &UnixListener, over: &UnixStream) {
        loop {
            let mut both = [PollFd::new(listener, PollFlags::IN), PollFd::new(over, PollFlags::IN)];
            let polled = poll(&mut both, None);
            if self.is_over() {
                return;
            }
            let accepted = polled.map_err(io::Error::from).and_then(|_| listener.accept());
            let taken = accepted.and_then(|(stream, _)| self.take(stream));
            match taken {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => {
                    self.db.core().note_trouble(format!("{}: {error}", self.place.path().display()));
                    // Too many open files, perhaps, which is so for a while.
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    /// Starts a thread for a connection.
    fn take(self: &Arc<Shared>, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        let mut peers = self.peers();
        if self.is_over() {
            return Ok(());
        }
        peers.retain(|_, peer| !peer.thread.is_finished());
        if peers.len() >= PEERS_MAX {
            // It comes again, as it would to an engine that is not there.
            return Err(io::Error::other(format!("{PEERS_MAX} processes are connected, which is the most")));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let wire = Wire::new(stream);
        let (shared, own) = (self.clone(), wire.clone());
        let thread = thread::Builder::new().name("underbelly-peer".to_string()).spawn(move || {
            // What is wrong with a connection is told there.
            let served = catch_unwind(AssertUnwindSafe(|| peer::serve(&shared, &own)));
            own.end();
            if let Err(panic) = served {
                let what = told(panic);
                shared.db.core().note_trouble(format!("the engine panicked at a connection: {what}"));
            }
        })?;
        peers.insert(number, Peer { wire, thread });
        Ok(())
    }
}
