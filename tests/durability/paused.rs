//! What happens in the middle of a checkpoint, on a disk that can be held there.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use underbelly::disk::Act;
use underbelly::{Batch, Database, FaultyDisk, SimulatedDisk};
use underbelly_tests::{BOOK, day, define, one, options};

struct Gate {
    reached: Sender<()>,
    open: Receiver<()>,
}

/// A disk that, where there is a gate, tells when a state image is made, and waits before it makes it.
fn paused(disk: SimulatedDisk, gate: Arc<Mutex<Option<Gate>>>) -> FaultyDisk<SimulatedDisk> {
    let disk = FaultyDisk::new(disk);
    disk.watch(move |call| {
        if call.act == Act::Create && call.name.starts_with("images/") {
            let gate = gate.lock().unwrap().take();
            if let Some(gate) = gate {
                gate.reached.send(()).unwrap();
                let _ = gate.open.recv();
            }
        }
        Ok(())
    });
    disk
}

/// Contents that nobody names when a checkpoint begins, and that are put again while it goes on, are kept, whether
/// they were in memory or in a pack before.
#[test]
fn contents_that_come_back_during_a_checkpoint_are_kept() {
    for packed_before in [false, true] {
        let (disk, gate) = (SimulatedDisk::new(), Arc::new(Mutex::new(None)));
        let db = Database::create_on(Arc::new(paused(disk.clone(), gate.clone())), options()).unwrap();
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
