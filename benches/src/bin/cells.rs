//! How much memory cells and edges take, and how long a database of cells takes to open:
//! `cargo run --release -p underbelly-benches --bin cells [CELLS]`; 1,000,000 unless given.

use std::time::Instant;

use underbelly::graph::{Event, Graph, Key, SlotDate, SlotDefinition, Submission, Write};
use underbelly::{ColumnType, Database, Date, Options, Timestamp, Value};
use underbelly_benches::checkpoint::{Filling, fill};
use underbelly_benches::mark::{Layers, Size};
use underbelly_benches::{Failed, or_exit, place};

const CELLS: u64 = 1_000_000;
/// Cells of one commit.
const BATCH: u64 = 10_000;
/// Times that a database is opened.
const ROUNDS: usize = 5;

fn main() {
    let cells = std::env::args().nth(1).map_or(Ok(CELLS), |cells| cells.parse().map_err(Failed::from));
    or_exit(cells.and_then(figures));
}

fn figures(cells: u64) -> Result<(), Failed> {
    if cells == 0 {
        return Err("there is nothing to measure without cells".into());
    }
    let graph = resident("graph", cells, || committed(cells))?;
    let records = graph.to_records();
    drop(graph);
    let restore = || {
        let began = Instant::now();
        let graph = Graph::from_records(records.iter().map(|(key, value)| (*key, value.as_slice())))?;
        println!("graph: restored from {} records in {:.2} s", records.len(), began.elapsed().as_secs_f64());
        Ok(graph)
    };
    drop(resident("restored graph", cells, restore)?);
    drop(records);
    let keys = usize::try_from(cells / 110)?.max(1);
    let mut of_widths = Vec::new();
    for width in [1, 10] {
        let size = Size { width, layers: 110 / width, keys };
        let before = place::resident_memory();
        let layers = Layers::build(size)?;
        let taken = place::resident_memory().saturating_sub(before);
        let (cells, edges) = (size.cells() as u64, size.edges() as u64);
        println!(
            "layers: {cells} cells and bundles, {edges} edges: {taken} bytes, {} a cell with its bundle",
            taken / cells
        );
        of_widths.push((edges, taken));
        drop(layers);
    }
    if let [(few, less), (many, more)] = of_widths[..] {
        println!(
            "layers: {:.1} bytes an edge",
            more.saturating_sub(less) as f64 / (many - few).max(1) as f64
        );
    }
    let scratch = place::scratch()?;
    let folder = scratch.path().join("cells");
    drop(fill(&folder, Filling { cells, models: 0, rows: 0 }, Options::default())?);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let db = Database::open(&folder)?;
        let took = began.elapsed().as_secs_f64();
        let phases = db.recovery_report().phases;
        println!(
            "database: {cells} cells opened in {took:.2} s (files {:.2?}, image {:.2?}, objects and what follows {:.2?}, log {:.2?})",
            phases.files, phases.image, phases.objects, phases.log
        );
        db.close()?;
    }
    Ok(())
}

/// Makes something of cells and prints how much memory it keeps.
fn resident<T>(what: &str, cells: u64, make: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    let before = place::resident_memory();
    let made = make()?;
    let taken = place::resident_memory().saturating_sub(before);
    println!("{what}: {cells} cells: {taken} bytes, {} a cell", taken / cells);
    Ok(made)
}

/// A graph of cells that nobody reads, each with contents of its own.
fn committed(cells: u64) -> Result<Graph, Failed> {
    let mut graph = Graph::new();
    let slot = SlotDefinition::new("cells").cell_key("key", ColumnType::I64);
    let slot =
        graph.apply(1, Timestamp(1), &Event::DefineSlot(slot))?.slot.ok_or("a slot that was not defined")?;
    for from in (0..cells).step_by(usize::try_from(BATCH)?) {
        let write = |cell: u64| -> Result<Write, Failed> {
            let mut content = [0; 32];
            content[..8].copy_from_slice(&cell.to_le_bytes());
            let key = Key::new(vec![Value::I64(i64::try_from(cell)?)])?;
            let date = SlotDate::Day(Date(20_000));
            Ok(Write { slot, date, key, priority: 0, content: Some(content) })
        };
        let writes = (from..(from + BATCH).min(cells)).map(write).collect::<Result<Vec<Write>, Failed>>()?;
        graph.apply(
            from + 2,
            Timestamp(from as i64),
            &Event::Commit(Submission { writes, ..Submission::default() }),
        )?;
    }
    Ok(graph)
}
