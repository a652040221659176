//! The desk on a database: its slots, its producers, and the transaction that loads a day.

use std::thread;
use std::time::Duration;

use underbelly::{
    Batch, ColumnError, CommitError, Database, Date, Failure, MetaValue, Metadata, Outputs,
    ProducerDefinition, Row, Run, SchemaError, SlotDate, Timestamp, Value,
};

use crate::chain::Chain;
use crate::desk::{DeskSettings, GRID_REACH, GRID_STEPS};
use crate::smile::Smile;
use crate::surface::{Surface, even_grid};
use crate::tables::{self, CHAIN, FORWARD, RESIDUAL, SMILE, SPOT, SURFACE, TableError, VOLATILITY};
use crate::{forward, smile, vols};

/// Forward and discount of each expiry.
pub const FORWARD_FITTER: &str = "forward_fitter";
/// Implied volatilities of each expiry.
pub const IMPLIED_VOL: &str = "implied_vol";
/// The smile of each expiry.
pub const SMILE_FITTER: &str = "smile_fitter";
/// The surface of each date.
pub const SURFACE_BUILDER: &str = "surface";
/// The series of the underlying's daily prices.
pub const UNDERLYING_SERIES: &str = "underlying";

impl From<TableError> for Failure {
    fn from(error: TableError) -> Failure {
        Failure::fatal(error.to_string())
    }
}

/// Defines the slots and registers the producers. `underlying` is the name by which models are found; each run takes
/// `pause` beside its work, for who wants to watch.
pub fn install(
    db: &Database,
    underlying: &str,
    settings: DeskSettings,
    pause: Duration,
) -> Result<(), SchemaError> {
    for slot in tables::slots() {
        db.define_slot(slot)?;
    }
    let pause = move || {
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    };
    db.register(
        ProducerDefinition::new(FORWARD_FITTER).requires(CHAIN).broadcast(SPOT).provides(FORWARD),
        move |run| {
            pause();
            let expiry = tables::expiry(expiry(run)?, &run.input(CHAIN)?)?;
            let spot = tables::spot_close(&run.input(SPOT)?)?;
            // An expiry without live pairs has no forward today, which is no failure.
            let forward = forward::imply(date(run)?, &expiry, spot, &settings.forward)
                .map_err(|error| Failure::declined(error.to_string()))?;
            Ok(Outputs::new().put(FORWARD, tables::forward_rows(&forward)?))
        },
    )?;
    db.register(
        ProducerDefinition::new(IMPLIED_VOL).requires(CHAIN).requires(FORWARD).provides(VOLATILITY),
        move |run| {
            pause();
            let day = expiry(run)?;
            let quotes = tables::expiry(day, &run.input(CHAIN)?)?;
            let forward = tables::forward(day, &run.input(FORWARD)?)?;
            Ok(Outputs::new().put(VOLATILITY, tables::vol_rows(&vols::invert(&quotes, &forward))?))
        },
    )?;
    let name = underlying.to_string();
    db.register(
        ProducerDefinition::new(SMILE_FITTER).requires(VOLATILITY).provides(SMILE).provides(RESIDUAL),
        move |run| {
            pause();
            let vols = tables::vols(expiry(run)?, &run.input(VOLATILITY)?)?;
            let smile =
                smile::fit(&vols, &settings.smile).map_err(|error| Failure::declined(error.to_string()))?;
            let metadata = smile_metadata(&name, smile.expiry).with("timestamp", noon(date(run)?));
            Ok(Outputs::new()
                .put(SMILE, tables::smile_rows(&smile)?)
                .put(RESIDUAL, tables::residual_rows(&smile)?)
                .put_model(metadata, smile_blob(&smile)))
        },
    )?;
    db.register(
        ProducerDefinition::new(SURFACE_BUILDER).requires(SMILE).group_by_date().provides(SURFACE),
        move |run| {
            pause();
            let smiles = run.inputs(SMILE)?.iter().map(|cell| {
                let day = tables::day(cell.key("expiry"))
                    .ok_or_else(|| Failure::fatal("a smile without expiry"))?;
                Ok(tables::smile(day, &cell.rows()?, None)?)
            });
            let smiles = smiles.collect::<Result<Vec<Smile>, Failure>>()?;
            let surface = Surface::build(date(run)?, smiles, even_grid(GRID_REACH, GRID_STEPS))
                .map_err(|error| Failure::declined(error.to_string()))?;
            Ok(Outputs::new().put(SURFACE, tables::surface_rows(&surface)?))
        },
    )
}

fn expiry(run: &Run) -> Result<Date, Failure> {
    tables::day(run.key("expiry")).ok_or_else(|| Failure::fatal("the bundle has no expiry"))
}

fn date(run: &Run) -> Result<Date, Failure> {
    match run.date() {
        SlotDate::Day(day) => Ok(day),
        SlotDate::Instant(at) => Err(Failure::fatal(format!("the desk works by days, not at {at}"))),
    }
}

/// Noon of a day, UTC.
fn noon(day: Date) -> Timestamp {
    Timestamp((i64::from(day.0) * 86_400 + 43_200) * 1_000_000_000)
}

/// The identity of the fitted model of one expiry.
pub fn smile_metadata(underlying: &str, expiry: Date) -> Metadata {
    Metadata::new("smile")
        .with("underlying", underlying)
        .with("expiry", MetaValue::Text(expiry.to_string()))
        .with("fitter", "svi")
}

/// The model's blob: a, b, ρ, m, σ, years and forward as little-endian binary64.
fn smile_blob(smile: &Smile) -> Vec<u8> {
    let svi = smile.svi;
    let numbers = [svi.a, svi.b, svi.rho, svi.m, svi.sigma, smile.years, smile.forward];
    numbers.iter().flat_map(|number| number.to_bits().to_le_bytes()).collect()
}

/// Everything of a day in one transaction: the underlying as series row and slot, each expiry's quotes as a cell,
/// and the end of the date.
pub fn load(chain: &Chain, underlying: &str) -> Result<Batch, CommitError> {
    let mut batch = begin(chain, underlying, |_| true)?;
    batch.end_of(chain.date);
    Ok(batch)
}

/// The beginning of a day, to which more quotes come later: the underlying, and the expiries that are wanted.
pub fn begin(chain: &Chain, underlying: &str, wanted: impl Fn(Date) -> bool) -> Result<Batch, CommitError> {
    let mut batch = Batch::new();
    let bar = chain.underlying.bar;
    batch.append(
        Row::new(UNDERLYING_SERIES, noon(chain.date))
            .key("symbol", underlying)
            .field("open", bar.open)
            .field("high", bar.high)
            .field("low", bar.low)
            .field("close", bar.close)
            .field("volume", Value::I64(chain.underlying.volume as i64)),
    )?;
    batch.put_slot(SPOT, chain.date, no_key(), tables::spot_rows(&chain.underlying)?);
    quotes(&mut batch, chain, wanted)?;
    Ok(batch)
}

/// The quotes of the expiries that are wanted.
pub fn quotes(batch: &mut Batch, chain: &Chain, wanted: impl Fn(Date) -> bool) -> Result<(), ColumnError> {
    for expiry in chain.expiries.iter().filter(|expiry| wanted(expiry.expiry)) {
        batch.put_slot(CHAIN, chain.date, [expiry.expiry], tables::chain_rows(expiry)?);
    }
    Ok(())
}

/// The key of a slot without cell keys.
pub fn no_key() -> [Value; 0] {
    []
}
