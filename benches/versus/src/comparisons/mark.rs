//! Edges a second by which a change of one source is carried to all that depends on it, in memory.
//!
//! The graph is that of the `mark` figures of `underbelly-benches`: layers of as many slots, each cell read by every slot of the next
//! layer at its key. Ours marks every cell out of date in the commit of the source, and tells each change of state. Salsa
//! marks nothing: once its input was set, asking for every cell validates again all on which they rest, here without running
//! anything, since what reads the input gives the same. SQLite walks the edges by a recursive query. Salsa and SQLite keep neither states nor
//! histories. The machine's limit is a loop over arrays of numbers that does no more than reach every edge.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use salsa::Setter;
use underbelly_benches::Failed;
use underbelly_benches::figure::{median, rate};
use underbelly_benches::mark::{Layers, Size};

use crate::comparisons::Entry;
use crate::effort::Effort;
use crate::line::Plain;

/// This comparison.
pub const ENTRY: Entry = Entry {
    name: "mark",
    about: "edges/s on one core from a source to all that depends on it; and a commit of equal contents",
    run,
};

/// Equal commits that are timed together.
const COMMITS: u64 = 20_000;

/// One contestant: carries a change, and says how long that took.
type Turn<'a> = Box<dyn FnMut() -> Result<Duration, Failed> + 'a>;

fn run(_: &Path, effort: &Effort) -> Result<(), Failed> {
    let keys = usize::try_from(1_000 / effort.divisor)?.max(1);
    let size = Size { width: 10, layers: 11, keys };
    println!(
        "{effort}; {} cells, {} edges; salsa 0.28; SQLite {}",
        size.cells(),
        size.edges(),
        rusqlite::version()
    );
    let mut ours = Layers::build(size)?;
    let mut salsa = Salsa::build(size);
    let sqlite = walkable(size)?;
    let arrays = Arrays::build(size);
    let mut equal = Vec::new();
    let mut is_there = true;
    let mut rounds: [Vec<f64>; 4] = Default::default();
    let mut turns: [Turn<'_>; 4] = [
        Box::new(|| {
            is_there = !is_there;
            let (took, _) = ours.mark(is_there)?;
            if is_there {
                equal.push(ours.commit_nothing(COMMITS)?.as_nanos() as f64 / COMMITS as f64);
            }
            Ok(took)
        }),
        Box::new(|| Ok(salsa.validate())),
        Box::new(|| walk(&sqlite, size)),
        Box::new(|| arrays.reach()),
    ];
    // The source goes and comes back, so each round is two turns. The first is not counted.
    for round in 0..=2 * effort.rounds {
        for (turn, rates) in turns.iter_mut().zip(&mut rounds) {
            let took = turn()?;
            if round > 0 {
                rates.push(rate(size.edges() as u64, took));
            }
        }
    }
    drop(turns);
    let [ours, salsa, sqlite, arrays] = rounds.map(median);
    println!(
        "versus {} edges={}: underbelly {} edges/s | salsa {} edges/s | sqlite {} edges/s | ratio {}",
        ENTRY.name,
        size.edges(),
        Plain(ours),
        Plain(salsa),
        Plain(sqlite),
        Plain(ours / salsa.max(sqlite))
    );
    println!(
        "a loop over arrays: {} edges/s; a commit of equal contents: {} ns",
        Plain(arrays),
        Plain(median(equal))
    );
    Ok(())
}

/// A cell's place among all: the source is 0, then layer by layer, slot by slot, key by key.
fn number(size: Size, layer: usize, slot: usize, key: usize) -> usize {
    1 + (layer * size.width + slot) * size.keys + key
}

/// The cells that read a cell.
fn readers(size: Size) -> impl Iterator<Item = (usize, usize)> {
    let first = (0..size.width).flat_map(move |slot| (0..size.keys).map(move |key| (slot, key)));
    let first = first.map(move |(slot, key)| (0, number(size, 0, slot, key)));
    let below = (1..size.layers).flat_map(move |layer| (0..size.width).map(move |slot| (layer, slot)));
    let edges = below.flat_map(move |(layer, slot)| {
        (0..size.width).flat_map(move |target| {
            (0..size.keys)
                .map(move |key| (number(size, layer - 1, slot, key), number(size, layer, target, key)))
        })
    });
    first.chain(edges)
}

/// The readers of each cell, one behind another.
struct Arrays {
    first: Vec<u32>,
    readers: Vec<u32>,
}

impl Arrays {
    fn build(size: Size) -> Arrays {
        let mut of_each = vec![Vec::new(); 1 + size.cells()];
        for (source, target) in readers(size) {
            of_each[source].push(target as u32);
        }
        let mut arrays = Arrays { first: vec![0], readers: Vec::with_capacity(size.edges()) };
        for of_one in of_each {
            arrays.readers.extend(of_one);
            arrays.first.push(arrays.readers.len() as u32);
        }
        arrays
    }

    /// Reaches every edge from the source on.
    fn reach(&self) -> Result<Duration, Failed> {
        let began = Instant::now();
        let mut counts = vec![0u32; self.first.len() - 1];
        let mut left = vec![0u32];
        let mut reached = 0;
        while let Some(cell) = left.pop() {
            let of_cell = self.first[cell as usize] as usize..self.first[cell as usize + 1] as usize;
            for reader in &self.readers[of_cell] {
                reached += 1;
                let count = &mut counts[*reader as usize];
                *count += 1;
                if *count == 1 {
                    left.push(*reader);
                }
            }
        }
        let took = began.elapsed();
        match reached == self.readers.len() {
            true => Ok(took),
            false => Err("a loop over arrays reached too little".into()),
        }
    }
}

#[salsa::db]
#[derive(Clone, Default)]
struct Queries {
    storage: salsa::Storage<Self>,
}

#[salsa::db]
impl salsa::Database for Queries {}

#[salsa::input]
struct Input {
    value: u64,
    width: u32,
}

/// The same for every value of the input.
#[salsa::tracked]
fn settled(db: &dyn salsa::Database, input: Input) -> u64 {
    *input.value(db) & 1
}

#[salsa::tracked]
fn cell(db: &dyn salsa::Database, input: Input, layer: u32, slot: u32, key: u32) -> u64 {
    match layer.checked_sub(1) {
        None => settled(db, input) + u64::from(slot) + u64::from(key),
        Some(below) => (0..*input.width(db)).map(|source| cell(db, input, below, source, key)).sum(),
    }
}

struct Salsa {
    queries: Queries,
    input: Input,
    size: Size,
}

impl Salsa {
    fn build(size: Size) -> Salsa {
        let queries = Queries::default();
        let input = Input::new(&queries, 0, size.width as u32);
        let mut salsa = Salsa { queries, input, size };
        salsa.validate();
        salsa
    }

    /// Sets the input, and asks for every cell of the last layer.
    fn validate(&mut self) -> Duration {
        let began = Instant::now();
        let value = *self.input.value(&self.queries);
        self.input.set_value(&mut self.queries).to(value + 2);
        let last = self.size.layers as u32 - 1;
        for slot in 0..self.size.width as u32 {
            for key in 0..self.size.keys as u32 {
                std::hint::black_box(cell(&self.queries, self.input, last, slot, key));
            }
        }
        began.elapsed()
    }
}

/// A table of edges, found by their sources.
fn walkable(size: Size) -> Result<Connection, Failed> {
    let mut db = Connection::open_in_memory()?;
    db.execute_batch(
        "CREATE TABLE edges (source INTEGER, target INTEGER, PRIMARY KEY (source, target)) WITHOUT ROWID",
    )?;
    let all = db.transaction()?;
    {
        let mut insert = all.prepare("INSERT INTO edges VALUES (?1, ?2)")?;
        for (source, target) in readers(size) {
            insert.execute((source as i64, target as i64))?;
        }
    }
    all.commit()?;
    Ok(db)
}

fn walk(db: &Connection, size: Size) -> Result<Duration, Failed> {
    let mut query = db.prepare_cached(
        "WITH RECURSIVE reached(cell) AS (SELECT 0 UNION SELECT target FROM edges JOIN reached ON source = cell) \
         SELECT count(*) FROM reached",
    )?;
    let began = Instant::now();
    let reached: i64 = query.query_row((), |row| row.get(0))?;
    let took = began.elapsed();
    match usize::try_from(reached) == Ok(1 + size.cells()) {
        true => Ok(took),
        false => Err(format!("SQLite reached {reached} cells").into()),
    }
}
