//! Reads a chain from a comma-separated file with one row for each contract.

use super::{Bar, Chain, Date, Expiry, Quote, Right, Spot};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use thiserror::Error;

/// The columns, in order. Those after `implied_volatility` are read past.
const COLUMNS: [&str; 10] = [
    "expiry",
    "strike",
    "right",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "open_interest",
    "implied_volatility",
];
/// Most contracts that one file may hold.
const CONTRACTS_MAX: usize = 1_000_000;

/// Why a chain could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The file cannot be opened.
    #[error("{file}: cannot open it: {source}; check the path and its permissions")]
    Open {
        /// Path as given.
        file: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The name of the file is not a date.
    #[error("{file}: the name does not give the date; name the file YYYYMMDD.csv")]
    NoDate {
        /// Path as given.
        file: String,
    },
    /// The file is not comma-separated text.
    #[error("{file}: {source}; the file must be comma-separated UTF-8 text with 10 or more columns")]
    Text {
        /// Path as given.
        file: String,
        /// Cause, with its line.
        source: csv::Error,
    },
    /// The first line is not the header.
    #[error(
        "{file}, line 1: column {column} is {found:?} instead of {wanted:?}; is it an option universe file?"
    )]
    Header {
        /// Path as given.
        file: String,
        /// Column, from 1.
        column: usize,
        /// Text found.
        found: String,
        /// Name wanted.
        wanted: &'static str,
    },
    /// A cell cannot be read.
    #[error("{file}, line {line}, column {column}: {found:?} is not {wanted}; correct or remove the row")]
    Cell {
        /// Path as given.
        file: String,
        /// Line, from 1.
        line: u64,
        /// Name of the column.
        column: &'static str,
        /// Text found.
        found: String,
        /// What belongs there.
        wanted: &'static str,
    },
    /// The same contract appears twice.
    #[error("{file}, line {line}: a second row for {contract}; keep one")]
    Duplicate {
        /// Path as given.
        file: String,
        /// Line of the second row.
        line: u64,
        /// Expiry, strike and right.
        contract: String,
    },
    /// The underlying's row is missing.
    #[error(
        "{file}: no row with empty expiry, strike and right; add the underlying's row before the contracts"
    )]
    NoUnderlying {
        /// Path as given.
        file: String,
    },
    /// More rows than a chain may have.
    #[error("{file}: more than {limit} contracts; split the file by underlying")]
    TooMany {
        /// Path as given.
        file: String,
        /// The limit.
        limit: usize,
    },
}

/// Reads the file `YYYYMMDD.csv`.
///
/// # Errors
/// [`ChainError`], naming the file, the line and the column.
pub fn read(path: &Path) -> Result<Chain, ChainError> {
    let file = path.display().to_string();
    let date = path.file_stem().and_then(|stem| stem.to_str()).and_then(Date::parse);
    let Some(date) = date else { return Err(ChainError::NoDate { file }) };
    match File::open(path) {
        Ok(input) => parse(&file, date, input),
        Err(source) => Err(ChainError::Open { file, source }),
    }
}

/// Reads a chain from any input; `file` is its name in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &str, date: Date, input: impl Read) -> Result<Chain, ChainError> {
    let text = |source| ChainError::Text { file: file.to_string(), source };
    let mut rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(input);
    let mut record = csv::StringRecord::new();
    if rows.read_record(&mut record).map_err(text)? {
        check_header(file, &record)?;
    }
    let mut underlying = None;
    let mut expiries: BTreeMap<Date, Vec<Quote>> = BTreeMap::new();
    let mut seen = HashSet::new();
    while rows.read_record(&mut record).map_err(text)? {
        let row = Row { file, line: record.position().map_or(0, csv::Position::line), record: &record };
        let [expiry, strike, right] = [0, 1, 2].map(|column| row.cell(column));
        if expiry.is_empty() && strike.is_empty() && right.is_empty() && underlying.is_none() {
            underlying = Some(Spot { bar: row.bar()?, volume: row.count(7)?.unwrap_or(0) });
            continue;
        }
        let quote = row.quote()?;
        let day = Date::parse(expiry).ok_or_else(|| row.wrong(0, "a date like 20140621"))?;
        if !seen.insert((day, quote.strike.to_bits(), quote.right)) {
            let contract = format!("{day} {} {}", quote.strike, quote.right);
            return Err(ChainError::Duplicate { file: file.to_string(), line: row.line, contract });
        }
        if seen.len() > CONTRACTS_MAX {
            return Err(ChainError::TooMany { file: file.to_string(), limit: CONTRACTS_MAX });
        }
        expiries.entry(day).or_default().push(quote);
    }
    let underlying = underlying.ok_or_else(|| ChainError::NoUnderlying { file: file.to_string() })?;
    let mut expiries: Vec<Expiry> =
        expiries.into_iter().map(|(expiry, quotes)| Expiry { expiry, quotes }).collect();
    for expiry in &mut expiries {
        expiry.quotes.sort_by(|a, b| a.strike.total_cmp(&b.strike).then(a.right.cmp(&b.right)));
    }
    Ok(Chain { date, underlying, expiries })
}

fn check_header(file: &str, record: &csv::StringRecord) -> Result<(), ChainError> {
    for (column, wanted) in COLUMNS.into_iter().enumerate() {
        let found = record.get(column).unwrap_or("").trim_start_matches(['\u{feff}', '#']);
        if found != wanted {
            let (file, found) = (file.to_string(), found.to_string());
            return Err(ChainError::Header { file, column: column + 1, found, wanted });
        }
    }
    Ok(())
}

struct Row<'a> {
    file: &'a str,
    line: u64,
    record: &'a csv::StringRecord,
}

impl Row<'_> {
    fn cell(&self, column: usize) -> &str {
        self.record.get(column).unwrap_or("").trim()
    }

    fn wrong(&self, column: usize, wanted: &'static str) -> ChainError {
        ChainError::Cell {
            file: self.file.to_string(),
            line: self.line,
            column: COLUMNS.get(column).copied().unwrap_or("?"),
            found: self.cell(column).to_string(),
            wanted,
        }
    }

    fn price(&self, column: usize) -> Result<f64, ChainError> {
        let value: Option<f64> = self.cell(column).parse().ok();
        value.filter(|v| v.is_finite() && *v >= 0.0).ok_or_else(|| self.wrong(column, "a price of 0 or more"))
    }

    fn bar(&self) -> Result<Bar, ChainError> {
        let bar =
            Bar { open: self.price(3)?, high: self.price(4)?, low: self.price(5)?, close: self.price(6)? };
        if bar.low > bar.high {
            return Err(self.wrong(5, "at most the high"));
        }
        Ok(bar)
    }

    fn count(&self, column: usize) -> Result<Option<u64>, ChainError> {
        match self.cell(column) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| self.wrong(column, "a whole number of 0 or more")),
        }
    }

    fn quote(&self) -> Result<Quote, ChainError> {
        let strike = self.price(1)?;
        if strike <= 0.0 {
            return Err(self.wrong(1, "a strike above 0"));
        }
        let right = match self.cell(2) {
            "C" => Right::Call,
            "P" => Right::Put,
            _ => return Err(self.wrong(2, "C or P")),
        };
        let mut quote = Quote::from_bar(strike, right, self.bar()?, self.count(7)?.unwrap_or(0));
        quote.open_interest = self.count(8)?;
        if !self.cell(9).is_empty() {
            quote.vendor_vol = Some(self.price(9)?).filter(|vol| *vol > 0.0);
        }
        Ok(quote)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str =
        "#expiry,strike,right,open,high,low,close,volume,open_interest,implied_volatility,delta\n";
    const SPOT: &str = ",,,633.49,633.50,633.28,633.40,131,,,\n";

    fn parse_text(body: &str) -> Result<Chain, ChainError> {
        parse("test.csv", Date(16_000), format!("{HEADER}{SPOT}{body}").as_bytes())
    }

    #[test]
    fn rows_become_quotes() {
        let chain =
            parse_text("20140621,490,P,1,2,0.5,1.5,7,12,0.25,0\n20140621,490,C,1,1,1,1,0,,0,0\n").unwrap();
        assert_eq!(chain.underlying.bar.close, 633.40);
        assert_eq!(chain.contracts(), 2);
        let quotes = &chain.expiries[0].quotes;
        assert_eq!(
            (quotes[0].right, quotes[0].vendor_vol, quotes[0].open_interest),
            (Right::Call, None, None)
        );
        assert_eq!(
            (quotes[1].vendor_vol, quotes[1].open_interest, quotes[1].volume),
            (Some(0.25), Some(12), 7)
        );
    }

    #[test]
    fn errors_name_line_column_and_remedy() {
        for (body, wanted) in [
            ("20140621,490,C,1,2,x,1.5,7,,,\n", "test.csv, line 3, column low: \"x\" is not a price"),
            ("20140621,490,C,1,2,1,NaN,7,,,\n", "column close: \"NaN\""),
            ("20140621,490,C,1,2,3,2,7,,,\n", "at most the high"),
            ("20140621,490,X,1,2,1,2,7,,,\n", "C or P"),
            ("20149921,490,C,1,2,1,2,7,,,\n", "column expiry: \"20149921\" is not a date"),
            ("20140621,0,C,1,2,1,2,7,,,\n", "a strike above 0"),
            ("20140621,490,C,1,2,1,2,-7,,,\n", "column volume: \"-7\""),
            ("20140621\n", "column strike: \"\""),
            (
                "20140621,1,C,1,2,1,2,7,,,\n20140621,1.0,C,1,2,1,2,7,,,\n",
                "line 4: a second row for 2014-06-21 1 call",
            ),
        ] {
            let error = parse_text(body).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}\nwanted {wanted}");
        }
    }

    #[test]
    fn files_that_are_something_else_are_refused() {
        let error = |bytes: &[u8]| parse("x", Date(0), bytes).unwrap_err();
        assert!(matches!(error(b""), ChainError::NoUnderlying { .. }));
        assert!(matches!(error(b"a,b\n1,2\n"), ChainError::Header { column: 1, .. }));
        assert!(matches!(error(b"\xff\xfe,\n"), ChainError::Text { .. }));
        assert!(matches!(read(Path::new("/nowhere/20140602.csv")), Err(ChainError::Open { .. })));
        assert!(matches!(read(Path::new("/nowhere/x.csv")), Err(ChainError::NoDate { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut file = HEADER.as_bytes().to_vec();
            file.extend_from_slice(SPOT.as_bytes());
            file.extend(bytes);
            let _ = parse("x", Date(0), file.as_slice());
        }
    }
}
