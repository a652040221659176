//! What happens in the middle of a checkpoint, on a disk that can be held there.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use underbelly::disk::Mapped;
use underbelly::disk::{File, Lock};
use underbelly::{Batch, Database, Disk, SimulatedDisk};
use underbelly_tests::{BOOK, day, define, one, options};

/// A disk in memory that, once armed, tells when a state image is made, and waits before it makes it.
struct Paused {
    disk: SimulatedDisk,
    gate: Arc<Mutex<Option<Gate>>>,
}

struct Gate {
    reached: Sender<()>,
    open: Receiver<()>,
}

impl Disk for Paused {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.disk.create_dir(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        if name.starts_with("images/") {
            let gate = self.gate.lock().unwrap().take();
            if let Some(gate) = gate {
                gate.reached.send(()).unwrap();
                let _ = gate.open.recv();
            }
        }
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.disk.open(name)
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        self.disk.map(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn seal(&self, name: &str) -> io::Result<()> {
        self.disk.seal(name)
    }

    fn lock(&self, name: &str) -> io::Result<Result<Box<dyn Lock>, u32>> {
        self.disk.lock(name)
    }

    fn describe(&self) -> String {
        self.disk.describe()
    }
}

/// Contents that nobody names when a checkpoint begins, and that are put again while it goes on, are kept, whether
/// they were in memory or in a pack before.
#[test]
fn contents_that_come_back_during_a_checkpoint_are_kept() {
    for packed_before in [false, true] {
        let (disk, gate) = (SimulatedDisk::new(), Arc::new(Mutex::new(None)));
        let paused = Paused { disk: disk.clone(), gate: gate.clone() };
        let db = Database::create_on(Arc::new(paused), options()).unwrap();
        define(&db).unwrap();
        let put = |n: i64| {
            let mut batch = Batch::new();
            batch.put_slot(BOOK, day(), ["c"], one("n", n).unwrap());
            db.commit(batch).unwrap();
        };
        put(1);
        if packed_before {
            db.checkpoint().unwrap();
        }
        put(2);
        put(3);
        let (reached, reaches) = channel();
        let (opens, open) = channel::<()>();
        *gate.lock().unwrap() = Some(Gate { reached, open });
        std::thread::scope(|scope| {
            let checkpoint = scope.spawn(|| db.checkpoint().unwrap());
            reaches.recv_timeout(Duration::from_secs(60)).unwrap();
            put(1);
            drop(opens);
            checkpoint.join().unwrap();
        });
        let shown = |db: &Database| {
            let cell = db.snapshot().slot(BOOK, day(), ["c"]).unwrap();
            cell.map(|cell| cell.rows.i64s("n").unwrap().to_vec())
        };
        assert_eq!(shown(&db), Some(vec![1]));
        let crashed = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
        assert_eq!(shown(&crashed), Some(vec![1]), "after a crash; packed before: {packed_before}");
        assert_eq!(crashed.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
    }
}
