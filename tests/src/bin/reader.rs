//! What the tests of readers kill: `reader DIR` opens a database for reading, checks what it shows, and writes the
//! number of transactions of the script in it as a line; again after each line of its standard input.

use std::error::Error;
use std::io::Write;

use underbelly::Database;
use underbelly_tests::{large_in_script, transactions_shown};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).ok_or("the argument is a folder")?;
    let mut db = Database::open_read_only(dir)?;
    let mut out = std::io::stdout();
    loop {
        let shown = transactions_shown(&db.snapshot(), large_in_script)?;
        out.write_all(format!("{shown}\n").as_bytes())?;
        out.flush()?;
        if std::io::stdin().read_line(&mut String::new())? == 0 {
            return Ok(());
        }
        db.refresh()?;
    }
}
