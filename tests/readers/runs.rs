//! Runs that go on.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use underbelly::{Batch, Database, Outputs, ProducerDefinition};
use underbelly_tests::{counter_slot, day, one, options};

/// Long enough for every machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The start of a run rides to the disk with the next commit; where none comes it is written all the same.
#[test]
fn a_run_that_goes_on_is_seen_though_nothing_else_is_committed() {
    let _alone = crate::alone();
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), options()).unwrap();
    ["A", "B"].into_iter().for_each(|name| db.define_slot(counter_slot(name)).unwrap());
    let (go, gone) = channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    db.register(ProducerDefinition::new("slow").requires("A").provides("B"), move |run| {
        let _ended = gone.lock().unwrap().recv();
        Ok(Outputs::new().put("B", run.input("A")?))
    })
    .unwrap();
    let mut batch = Batch::new();
    batch.put_slot("A", day(), ["k"], one("n", 1).unwrap());
    db.commit(batch).unwrap();
    let mut reader = Database::open_read_only(dir.path()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while reader.running().count() == 0 {
        assert!(Instant::now() < deadline, "nobody sees the run");
        std::thread::sleep(Duration::from_millis(5));
        reader.refresh().unwrap();
    }
    assert_eq!(reader.running().next().unwrap().producer, "slow");
    drop(go);
    assert!(db.wait_idle(PATIENCE));
    reader.refresh().unwrap();
    assert_eq!(reader.running().count(), 0);
    db.close().unwrap();
}
