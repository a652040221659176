//! What the tests of processes kill: `supervisor DIR FOLDER PROGRAM` opens the database in DIR, has PROGRAM double A into B,
//! slowly, and commits numbers until it is killed. Each commit that was acknowledged is a line.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use underbelly::{Batch, Database, ProducerDefinition, Program};
use underbelly_tests::{counter_slot, day, one, options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("supervisor DIR FOLDER PROGRAM");
    let (dir, folder, program) = (next()?, next()?, next()?);
    let db = Database::open_with(dir, options())?;
    ["A", "B"].into_iter().try_for_each(|name| db.define_slot(counter_slot(name)))?;
    let program = Program::new(program).arg("slow").arg(folder).processes(2);
    db.register_program(ProducerDefinition::new("twice").requires("A").provides("B"), program)?;
    for n in 1..=8i64 {
        let mut batch = Batch::new();
        batch.put_slot("A", day(), [format!("k{n}").as_str()], one("n", n)?);
        db.commit(batch)?;
        let mut out = std::io::stdout().lock();
        out.write_all(format!("{n}\n").as_bytes())?;
        out.flush()?;
    }
    std::thread::sleep(Duration::from_secs(3600));
    Ok(())
}
