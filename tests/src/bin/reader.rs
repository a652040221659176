//! What the tests of readers kill: `reader DIR` opens a database for reading, checks what it shows, and writes the
//! number of transactions of the script in it as a line; again after each line of its standard input.
//!
//! `reader DIR arrays LAST` reads two arrays, of the log and of none, until both are LAST, and writes how many values of each it saw.

use std::error::Error;
use std::io::Write;

use underbelly::{Database, Reader, Scope};
use underbelly_tests::{ARRAY, Places, large_in_script, transactions_shown};

/// An array is one number in all places, which rises.
fn watch(reader: &Reader, end: f64) -> Result<(), Box<dyn Error>> {
    let mut arrays =
        [reader.var::<Places>(&Scope::Global, ARRAY)?, reader.unlogged_var::<Places>(&Scope::Global, ARRAY)?];
    let (mut last, mut seen) = ([-1.0; 2], [0u64; 2]);
    let mut has_begun = false;
    while last != [end; 2] {
        for ((array, last), seen) in arrays.iter_mut().zip(&mut last).zip(&mut seen) {
            let Some(places) = array.get() else { return Err("an array is not there".into()) };
            let [first, rest @ ..] = &places;
            if rest.iter().any(|place| place != first) || first < last {
                return Err(format!("behind {last} comes {places:?}").into());
            }
            *seen += u64::from(first > last);
            *last = *first;
        }
        if !std::mem::replace(&mut has_begun, true) {
            println!("begun");
        }
    }
    println!("{} {}", seen[0], seen[1]);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let dir = arguments.next().ok_or("the argument is a folder")?;
    let mut db = Database::open_read_only(dir)?;
    if arguments.next().is_some_and(|mode| mode == "arrays") {
        let end = arguments.next().and_then(|text| text.to_str()?.parse().ok());
        return watch(&db, end.ok_or("the last argument is a number")?);
    }
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
