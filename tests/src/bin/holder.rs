//! What the tests of locking find in their way: `holder DIR` opens a database, says `open`, and holds it until its
//! standard input ends.

use std::error::Error;
use std::io::Write;

use underbelly::Database;
use underbelly_tests::options;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).ok_or("the argument is a folder")?;
    let _db = Database::open_with(dir, options())?;
    let mut out = std::io::stdout();
    writeln!(out, "open")?;
    out.flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
