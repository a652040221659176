//! What the tests of durability kill: `writer DIR OPERATIONS` opens a database that makes a checkpoint in the
//! background after so many operations, goes on with the script where it stands, and writes the number of each
//! transaction that was acknowledged as a line.

use std::error::Error;
use std::io::Write;

use underbelly::Database;
use underbelly_tests::{large_in_script, options, transaction, transactions_shown};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let dir = arguments.next().ok_or("the first argument is a folder")?;
    let operations = arguments.next().and_then(|text| text.to_str()?.parse().ok());
    let mut options = options();
    options.checkpoint_operations = operations.ok_or("the second argument is a number of operations")?;
    let db = Database::open_with(dir, options)?;
    let before = transactions_shown(&db.snapshot(), large_in_script)?;
    let mut out = std::io::stdout();
    for i in before + 1.. {
        db.commit(transaction(i, large_in_script(i))?)?;
        // One write, so that a kill never leaves a part of a number.
        out.write_all(format!("{i}\n").as_bytes())?;
        out.flush()?;
    }
    Ok(())
}
