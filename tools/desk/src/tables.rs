//! The desk's slots, and its structs as their rows and back.

use underbelly::{ColumnError, ColumnType, Columns, Date as Day, SlotDefinition, Value};

use crate::black::Refused;
use crate::chain::{Bar, Date, Expiry, Freshness, Price, Quote, Right, Spot};
use crate::forward::Forward;
use crate::smile::{Residual, Smile, Svi};
use crate::surface::Surface;
use crate::vols::{RefusedQuote, VolPoint, Vols};

/// Quotes: one cell for each date and expiry, rows by strike and right.
pub const CHAIN: &str = "MarketData.Vanilla.Chain";
/// The underlying's prices: one cell for each date.
pub const SPOT: &str = "MarketData.Equity.Spot";
/// Forward and discount: one cell for each date and expiry.
pub const FORWARD: &str = "Forward.Vanilla";
/// Implied volatilities, and the quotes without one: rows by strike and right.
pub const VOLATILITY: &str = "ImpliedVolatility.Vanilla";
/// Parameters of the smile: one cell for each date and expiry.
pub const SMILE: &str = "Smile.Vanilla";
/// Market beside smile: rows by strike and right.
pub const RESIDUAL: &str = "SmileResidual.Vanilla";
/// The surface: one cell for each date, rows by expiry and log-moneyness.
pub const SURFACE: &str = "Surface.Vanilla";

/// Why rows of a slot could not be read as what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rows of {slot} have no usable column {column:?}; they were written by another program")]
pub struct TableError {
    /// The slot.
    pub slot: &'static str,
    /// The column.
    pub column: String,
}

/// All slots of the desk.
pub fn slots() -> Vec<SlotDefinition> {
    use ColumnType::{Bool, Date, F64, I64, Utf8};
    let columns = |mut slot: SlotDefinition, names: &[&str], column_type| {
        for name in names {
            slot = slot.value(*name, column_type);
        }
        slot
    };
    let by_strike = |name| {
        SlotDefinition::new(name).cell_key("expiry", Date).row_key("strike", F64).row_key("right", Utf8)
    };
    let by_expiry = |name| SlotDefinition::new(name).cell_key("expiry", Date);
    vec![
        columns(by_strike(CHAIN), &["open", "high", "low", "close", "bid", "ask", "vendor_vol"], F64)
            .value("volume", I64)
            .value("open_interest", I64)
            .value("freshness", Utf8),
        columns(SlotDefinition::new(SPOT), &["open", "high", "low", "close"], F64).value("volume", I64),
        columns(by_expiry(FORWARD), &["years", "forward", "discount", "rms"], F64)
            .value("pairs_used", I64)
            .value("pairs_refused", I64),
        columns(by_strike(VOLATILITY), &["years", "forward", "k", "vol", "error"], F64)
            .value("refused", Utf8),
        columns(
            by_expiry(SMILE),
            &["years", "forward", "a", "b", "rho", "m", "sigma", "rms", "rms_weighted", "error_max", "g_min"],
            F64,
        )
        .value("used", I64)
        .value("repaired", Bool),
        columns(by_strike(RESIDUAL), &["k", "market", "fitted", "error"], F64).value("used", Bool),
        columns(
            SlotDefinition::new(SURFACE).row_key("expiry", Date).row_key("k", F64),
            &["years", "variance", "vol"],
            F64,
        ),
    ]
}

fn table(
    columns: &[(&str, ColumnType)],
    rows: impl Iterator<Item = Vec<Value>>,
) -> Result<Columns, ColumnError> {
    let mut table = Columns::with_types(columns.iter().copied())?;
    for row in rows {
        table.push_row(&row)?;
    }
    Ok(table)
}

/// Reads the rows of one slot.
struct Reader<'a> {
    slot: &'static str,
    rows: &'a Columns,
}

impl Reader<'_> {
    fn missing(&self, column: &str) -> TableError {
        TableError { slot: self.slot, column: column.to_string() }
    }

    fn value(&self, column: &str, row: usize) -> Result<Value, TableError> {
        self.rows.value(column, row).ok_or_else(|| self.missing(column))
    }

    fn number(&self, column: &str, row: usize) -> Result<f64, TableError> {
        self.value(column, row)?.as_f64().ok_or_else(|| self.missing(column))
    }

    fn number_if_any(&self, column: &str, row: usize) -> Result<Option<f64>, TableError> {
        Ok(self.value(column, row)?.as_f64())
    }

    fn count(&self, column: &str, row: usize) -> Result<u64, TableError> {
        match self.value(column, row)? {
            Value::I64(count) => u64::try_from(count).map_err(|_| self.missing(column)),
            _ => Err(self.missing(column)),
        }
    }

    fn flag(&self, column: &str, row: usize) -> Result<bool, TableError> {
        if let Value::Bool(flag) = self.value(column, row)? { Ok(flag) } else { Err(self.missing(column)) }
    }

    fn right(&self, row: usize) -> Result<Right, TableError> {
        match self.value("right", row)?.as_str() {
            Some("C") => Ok(Right::Call),
            Some("P") => Ok(Right::Put),
            _ => Err(self.missing("right")),
        }
    }
}

fn right(right: Right) -> Value {
    right.letter().to_string().into()
}

const FRESHNESS: [(Freshness, &str); 4] = [
    (Freshness::Live, "live"),
    (Freshness::Mid, "mid"),
    (Freshness::Carried, "carried"),
    (Freshness::Missing, "missing"),
];

/// Rows of [`CHAIN`].
pub fn chain_rows(expiry: &Expiry) -> Result<Columns, ColumnError> {
    use ColumnType::{F64, I64, Utf8};
    let columns = [
        ("strike", F64),
        ("right", Utf8),
        ("open", F64),
        ("high", F64),
        ("low", F64),
        ("close", F64),
        ("bid", F64),
        ("ask", F64),
        ("vendor_vol", F64),
        ("volume", I64),
        ("open_interest", I64),
        ("freshness", Utf8),
    ];
    let row = |quote: &Quote| {
        let freshness = FRESHNESS.iter().find(|(f, _)| *f == quote.freshness).map(|(_, name)| *name);
        let mut row: Vec<Value> = vec![quote.strike.into(), right(quote.right)];
        match quote.price {
            Price::Bar(bar) => {
                row.extend([bar.open, bar.high, bar.low, bar.close].map(Value::F64));
                row.extend([Value::Null, Value::Null]);
            }
            Price::BidAsk { bid, ask } => {
                row.extend([const { Value::Null }; 4]);
                row.extend([bid.into(), ask.into()]);
            }
        }
        row.push(quote.vendor_vol.into());
        row.push(Value::I64(quote.volume as i64));
        row.push(quote.open_interest.map(|n| n as i64).into());
        row.push(freshness.into());
        row
    };
    table(&columns, expiry.quotes.iter().map(row))
}

/// The quotes of rows of [`CHAIN`].
pub fn expiry(expiry: Day, rows: &Columns) -> Result<Expiry, TableError> {
    let reader = Reader { slot: CHAIN, rows };
    let quote = |row| {
        let freshness = reader.value("freshness", row)?;
        let known = FRESHNESS.iter().find(|(_, name)| freshness.as_str() == Some(name));
        let price = match reader.number_if_any("bid", row)? {
            Some(bid) => Price::BidAsk { bid, ask: reader.number("ask", row)? },
            None => Price::Bar(Bar {
                open: reader.number("open", row)?,
                high: reader.number("high", row)?,
                low: reader.number("low", row)?,
                close: reader.number("close", row)?,
            }),
        };
        Ok(Quote {
            strike: reader.number("strike", row)?,
            right: reader.right(row)?,
            price,
            volume: reader.count("volume", row)?,
            open_interest: reader.number_if_any("open_interest", row)?.map(|n| n as u64),
            vendor_vol: reader.number_if_any("vendor_vol", row)?,
            freshness: known.map(|(f, _)| *f).ok_or_else(|| reader.missing("freshness"))?,
        })
    };
    Ok(Expiry { expiry, quotes: (0..rows.rows()).map(quote).collect::<Result<_, TableError>>()? })
}

/// Rows of [`SPOT`].
pub fn spot_rows(spot: &Spot) -> Result<Columns, ColumnError> {
    use ColumnType::{F64, I64};
    let columns = [("open", F64), ("high", F64), ("low", F64), ("close", F64), ("volume", I64)];
    let bar = spot.bar;
    let mut row: Vec<Value> = [bar.open, bar.high, bar.low, bar.close].map(Value::F64).into();
    row.push(Value::I64(spot.volume as i64));
    table(&columns, std::iter::once(row))
}

/// The closing price in rows of [`SPOT`].
pub fn spot_close(rows: &Columns) -> Result<f64, TableError> {
    Reader { slot: SPOT, rows }.number("close", 0)
}

/// Rows of [`FORWARD`].
pub fn forward_rows(forward: &Forward) -> Result<Columns, ColumnError> {
    use ColumnType::{F64, I64};
    let columns = [
        ("years", F64),
        ("forward", F64),
        ("discount", F64),
        ("rms", F64),
        ("pairs_used", I64),
        ("pairs_refused", I64),
    ];
    let mut row: Vec<Value> =
        [forward.years, forward.forward, forward.discount, forward.rms].map(Value::F64).into();
    row.push(Value::I64(forward.pairs_used as i64));
    row.push(Value::I64(forward.refused.len() as i64));
    table(&columns, std::iter::once(row))
}

/// The forward in rows of [`FORWARD`]; its list of refused pairs is not kept.
pub fn forward(expiry: Day, rows: &Columns) -> Result<Forward, TableError> {
    let reader = Reader { slot: FORWARD, rows };
    Ok(Forward {
        expiry,
        years: reader.number("years", 0)?,
        forward: reader.number("forward", 0)?,
        discount: reader.number("discount", 0)?,
        pairs_used: reader.count("pairs_used", 0)? as usize,
        rms: reader.number("rms", 0)?,
        refused: Vec::new(),
    })
}

/// Rows of [`VOLATILITY`].
pub fn vol_rows(vols: &Vols) -> Result<Columns, ColumnError> {
    use ColumnType::{F64, Utf8};
    let columns = [
        ("strike", F64),
        ("right", Utf8),
        ("years", F64),
        ("forward", F64),
        ("k", F64),
        ("vol", F64),
        ("error", F64),
        ("refused", Utf8),
    ];
    let row = |strike: f64, side, k: f64, vol: Option<f64>, error: Option<f64>, refused: Option<Refused>| {
        let refused = refused.map(|reason| reason.to_string());
        vec![
            strike.into(),
            right(side),
            vols.years.into(),
            vols.forward.into(),
            k.into(),
            vol.into(),
            error.into(),
            refused.into(),
        ]
    };
    let points = vols.points.iter().map(|p| row(p.strike, p.right, p.k, Some(p.vol), Some(p.error), None));
    let refused = vols.refused.iter().map(|q| row(q.strike, q.right, q.k, q.vol, None, Some(q.reason)));
    table(&columns, points.chain(refused))
}

/// The volatilities in rows of [`VOLATILITY`].
pub fn vols(expiry: Day, rows: &Columns) -> Result<Vols, TableError> {
    let reader = Reader { slot: VOLATILITY, rows };
    let mut vols = Vols {
        expiry,
        years: reader.number("years", 0)?,
        forward: reader.number("forward", 0)?,
        points: Vec::new(),
        refused: Vec::new(),
    };
    for row in 0..rows.rows() {
        let (strike, right, k) =
            (reader.number("strike", row)?, reader.right(row)?, reader.number("k", row)?);
        match reader.value("refused", row)? {
            Value::Null => {
                let (vol, error) = (reader.number("vol", row)?, reader.number("error", row)?);
                vols.points.push(VolPoint { strike, right, k, vol, error });
            }
            text => {
                let known =
                    Refused::ALL.into_iter().find(|reason| text.as_str() == Some(&reason.to_string()));
                let reason = known.ok_or_else(|| reader.missing("refused"))?;
                let vol = reader.number_if_any("vol", row)?;
                vols.refused.push(RefusedQuote { strike, right, k, vol, reason });
            }
        }
    }
    Ok(vols)
}

/// Rows of [`SMILE`].
pub fn smile_rows(smile: &Smile) -> Result<Columns, ColumnError> {
    use ColumnType::{Bool, F64, I64};
    let columns = [
        ("years", F64),
        ("forward", F64),
        ("a", F64),
        ("b", F64),
        ("rho", F64),
        ("m", F64),
        ("sigma", F64),
        ("rms", F64),
        ("rms_weighted", F64),
        ("error_max", F64),
        ("g_min", F64),
        ("used", I64),
        ("repaired", Bool),
    ];
    let svi = smile.svi;
    let mut row: Vec<Value> = [
        smile.years,
        smile.forward,
        svi.a,
        svi.b,
        svi.rho,
        svi.m,
        svi.sigma,
        smile.rms,
        smile.rms_weighted,
        smile.error_max,
        smile.g_min,
    ]
    .map(Value::F64)
    .into();
    row.push(Value::I64(smile.used as i64));
    row.push(smile.repaired.into());
    table(&columns, std::iter::once(row))
}

/// The smile in rows of [`SMILE`], with the residuals in rows of [`RESIDUAL`] where they are given.
pub fn smile(expiry: Day, rows: &Columns, residuals: Option<&Columns>) -> Result<Smile, TableError> {
    let reader = Reader { slot: SMILE, rows };
    let number = |column| reader.number(column, 0);
    let svi = Svi {
        a: number("a")?,
        b: number("b")?,
        rho: number("rho")?,
        m: number("m")?,
        sigma: number("sigma")?,
    };
    Ok(Smile {
        expiry,
        years: number("years")?,
        forward: number("forward")?,
        svi,
        residuals: residuals.map(read_residuals).transpose()?.unwrap_or_default(),
        used: reader.count("used", 0)? as usize,
        rms: number("rms")?,
        rms_weighted: number("rms_weighted")?,
        error_max: number("error_max")?,
        g_min: number("g_min")?,
        repaired: reader.flag("repaired", 0)?,
    })
}

/// Rows of [`RESIDUAL`].
pub fn residual_rows(smile: &Smile) -> Result<Columns, ColumnError> {
    use ColumnType::{Bool, F64, Utf8};
    let columns = [
        ("strike", F64),
        ("right", Utf8),
        ("k", F64),
        ("market", F64),
        ("fitted", F64),
        ("error", F64),
        ("used", Bool),
    ];
    let row = |r: &Residual| {
        vec![
            r.strike.into(),
            right(r.right),
            r.k.into(),
            r.market.into(),
            r.fitted.into(),
            r.error.into(),
            r.used.into(),
        ]
    };
    table(&columns, smile.residuals.iter().map(row))
}

fn read_residuals(rows: &Columns) -> Result<Vec<Residual>, TableError> {
    let reader = Reader { slot: RESIDUAL, rows };
    let residual = |row| {
        Ok(Residual {
            strike: reader.number("strike", row)?,
            right: reader.right(row)?,
            k: reader.number("k", row)?,
            market: reader.number("market", row)?,
            fitted: reader.number("fitted", row)?,
            error: reader.number("error", row)?,
            used: reader.flag("used", row)?,
        })
    };
    (0..rows.rows()).map(residual).collect()
}

/// Rows of [`SURFACE`].
pub fn surface_rows(surface: &Surface) -> Result<Columns, ColumnError> {
    use ColumnType::{Date, F64};
    let columns = [("expiry", Date), ("k", F64), ("years", F64), ("variance", F64), ("vol", F64)];
    let rows = surface.smiles.iter().zip(&surface.variance).flat_map(|(smile, variance)| {
        surface.grid.iter().zip(variance).map(move |(k, variance)| {
            let vol = (variance / smile.years).sqrt();
            vec![smile.expiry.into(), Value::F64(*k), smile.years.into(), Value::F64(*variance), vol.into()]
        })
    });
    table(&columns, rows)
}

/// The date in a key.
pub fn day(value: Option<&Value>) -> Option<Date> {
    if let Some(Value::Date(day)) = value { Some(*day) } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::desk::{DeskSettings, night};
    use crate::simulate::{MarketSettings, day as simulated_day};

    #[test]
    fn everything_comes_back_from_its_rows() {
        let chain = simulated_day(&MarketSettings::default(), 0).chain;
        let night = night(&chain, &DeskSettings::default());
        let mut smiles = 0;
        for (source, (day, slice)) in chain.expiries.iter().zip(&night.slices) {
            assert_eq!(&expiry(*day, &chain_rows(source).unwrap()).unwrap(), source);
            let Ok(slice) = slice else { continue };
            let without_pairs = Forward { refused: Vec::new(), ..slice.forward.clone() };
            assert_eq!(forward(*day, &forward_rows(&slice.forward).unwrap()).unwrap(), without_pairs);
            assert_eq!(vols(*day, &vol_rows(&slice.vols).unwrap()).unwrap(), slice.vols);
            let (rows, residuals) = (smile_rows(&slice.smile).unwrap(), residual_rows(&slice.smile).unwrap());
            assert_eq!(smile(*day, &rows, Some(&residuals)).unwrap(), slice.smile);
            smiles += 1;
        }
        assert!(smiles >= 8, "{smiles}");
        let spot = spot_rows(&chain.underlying).unwrap();
        assert_eq!(spot_close(&spot).unwrap(), chain.underlying.bar.close);
        assert!(spot_close(&Columns::new()).unwrap_err().to_string().contains("close"));
    }
}
