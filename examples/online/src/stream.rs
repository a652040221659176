//! Rows of a labelled stream.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

/// Features of a row.
pub const FEATURES: usize = 6;

/// A row: what is known, and what it turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What is known.
    pub features: [f64; FEATURES],
    /// What it turned out to be.
    pub label: bool,
}

/// The rows of a CSV file, packed or not: six features and a label of 0 or 1, under a header.
///
/// # Errors
/// Where the file cannot be read, or is none of these.
pub fn read(path: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let source: Box<dyn Read> = match path.extension().is_some_and(|end| end == "gz") {
        true => Box::new(GzDecoder::new(file)),
        false => Box::new(file),
    };
    let mut rows = Vec::new();
    for record in csv::Reader::from_reader(source).records() {
        let numbers = record?.iter().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        let Some((features, [label])) = numbers.split_first_chunk::<FEATURES>() else {
            return Err(format!("{}: a row has {} columns, not 7", path.display(), numbers.len()).into());
        };
        rows.push(Row { features: *features, label: *label != 0.0 });
    }
    Ok(rows)
}

/// Rows that are made up: prices that drift through the day, and a label that follows them with some noise.
pub fn made_up(count: usize) -> Vec<Row> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let row = |at: usize| {
        let day = (at % 48) as f64 / 48.0;
        let price = 0.5 + 0.3 * (std::f64::consts::TAU * day).sin() + 0.2 * (noise() - 0.5);
        let demand = price + 0.3 * (noise() - 0.5);
        let features = [day, price, demand, noise(), noise(), 0.4];
        // What pays changes slowly.
        let drift = 0.1 * (at as f64 / 9_000.0).sin();
        Row { features, label: price + 0.5 * demand + 0.2 * (noise() - 0.5) > 0.75 + drift }
    };
    (0..count).map(row).collect()
}
