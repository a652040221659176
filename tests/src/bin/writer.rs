//! What the tests of durability kill: `writer DIR OPERATIONS MODE` opens a database that makes a checkpoint in the
//! background after so many operations, goes on where it stands, and writes each transaction that was acknowledged as a
//! line with the numbers of its thread and of itself. Every so often it closes the database and opens it again.
//!
//! `script` commits the script with one thread; `steady` does so and never closes; `desk` commits quotes with several, and producers that read them are
//! at work; `arrays` sets two arrays, of the log and of none, to one number in all places, which rises; `linger` is `script`, but for that it says what was refused and waits for its end.

use std::error::Error;
use std::io::Write;

use underbelly::{Database, Options, Scope};
use underbelly_tests::{ARRAY, Places, desk, large_in_script, options, transaction, transactions_shown};

/// Transactions of a thread between two openings.
const SPELL: u64 = 40;

type Done = Result<(), Box<dyn Error + Send + Sync>>;

/// Says that a transaction was acknowledged.
fn acknowledge(thread: usize, number: u64) -> Done {
    // One write, so that a kill never leaves a part of a line.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{thread} {number}\n").as_bytes())?;
    Ok(out.flush()?)
}

fn script(db: &Database) -> Done {
    let before = transactions_shown(&db.snapshot(), large_in_script)?;
    for i in before + 1..=before + SPELL {
        db.commit(transaction(i, large_in_script(i))?)?;
        acknowledge(0, i)?;
    }
    Ok(())
}

fn quotes(db: &Database) -> Done {
    desk::register(db)?;
    let before = desk::quoted(&db.snapshot())?;
    std::thread::scope(|scope| {
        let commit = |thread: usize, before: u64| {
            move || -> Done {
                for i in before + 1..=before + SPELL {
                    db.commit(desk::quote(thread, i)?)?;
                    acknowledge(thread, i)?;
                }
                Ok(())
            }
        };
        let threads = before.into_iter().enumerate();
        let threads: Vec<_> = threads.map(|(thread, before)| scope.spawn(commit(thread, before))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })
}

/// How often the one of no log is set for each time that the other is.
const UNLOGGED: u32 = 200;

fn arrays(db: &Database) -> Done {
    let logged = db.var::<Places>(&Scope::Global, ARRAY)?;
    let unlogged = db.unlogged_var::<Places>(&Scope::Global, ARRAY)?;
    let before = logged.get().map_or(0.0, |[first, ..]| first) as u64;
    for n in before + 1.. {
        for part in 1..=UNLOGGED {
            unlogged.set([n as f64 + f64::from(part) / f64::from(UNLOGGED); 512])?;
        }
        logged.set([n as f64; 512])?;
        acknowledge(0, n)?;
    }
    Ok(())
}

fn run(dir: &std::ffi::OsStr, options: &Options, spell: fn(&Database) -> Done) -> Done {
    loop {
        let db = Database::open_with(dir, options.clone())?;
        spell(&db)?;
        db.close()?;
    }
}

fn main() -> Done {
    let mut arguments = std::env::args_os().skip(1);
    let dir = arguments.next().ok_or("the first argument is a folder")?;
    let operations = arguments.next().and_then(|text| text.to_str()?.parse().ok());
    let mut options = options();
    options.checkpoint_operations = operations.ok_or("the second argument is a number of operations")?;
    let mode = arguments.next().ok_or("the third argument is a mode")?;
    match mode.to_str() {
        Some("script") => run(&dir, &options, script),
        Some("steady") => {
            let db = Database::open_with(dir, options)?;
            loop {
                script(&db)?;
            }
        }
        Some("arrays") => arrays(&Database::open_with(dir, options)?),
        Some("desk") => run(&dir, &options, quotes),
        Some("linger") => {
            let told = run(&dir, &options, |db| {
                let done = script(db);
                if let Err(error) = &done {
                    linger(&**error);
                }
                done
            });
            if let Err(error) = &told {
                linger(&**error);
            }
            told
        }
        _ => Err("the third argument is script, steady, desk, arrays or linger".into()),
    }
}

/// Says what was refused, and keeps everything as it is until the process is killed.
fn linger(error: &dyn Error) {
    let _ = writeln!(std::io::stdout(), "refused: {error}");
    loop {
        std::thread::park();
    }
}
