//! Aggregates: what is computed of the rows of a group or a window.

mod state;

use std::sync::Arc;

use underbelly_storage::ColumnType;

pub(crate) use state::{Choice, State, by_size};

use crate::QueryError;

/// One aggregate and the name of its column.
///
/// Nulls are left out, so the first price of a window is the first that is not null; an aggregate of no value is null,
/// a count of none is 0. NaN is a value: a sum with it is NaN, and it is greater than every other number.
///
/// ```
/// use underbelly_query::Aggregate;
/// assert_eq!(Aggregate::mean("price").name(), "price_mean");
/// assert_eq!(Aggregate::quantile("price", 0.5).named("median").name(), "median");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    pub(crate) kind: Kind,
    name: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Rows,
    Count(Arc<str>),
    Sum(Arc<str>),
    Mean(Arc<str>),
    Std(Arc<str>),
    Quantile(Arc<str>, f64),
    Vwap { price: Arc<str>, size: Arc<str> },
    SumProduct { price: Arc<str>, size: Arc<str> },
    First(Arc<str>),
    Last(Arc<str>),
    Min(Arc<str>),
    Max(Arc<str>),
}

macro_rules! of_a_column {
    ($($(#[$doc:meta])* $name:ident $kind:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(column: &str) -> Aggregate {
            Aggregate { kind: Kind::$kind(column.into()), name: format!(concat!("{}_", stringify!($name)), column).into() }
        }
    )*};
}

impl Aggregate {
    /// The number of rows, as the column "rows".
    pub fn rows() -> Aggregate {
        Aggregate { kind: Kind::Rows, name: "rows".into() }
    }

    of_a_column! {
        /// The number of values that are not null.
        count Count;
        /// The sum of numbers: `i64` for integers, exactly, and `f64` for floats.
        sum Sum;
        /// The mean of numbers, as `f64`.
        mean Mean;
        /// The standard deviation of a sample (divided by n - 1) of numbers, by Welford's method; null below two values.
        std Std;
        /// The first value in order of time and arrival.
        first First;
        /// The last value in order of time and arrival.
        last Last;
        /// The smallest value; text and bytes compare by their bytes.
        min Min;
        /// The largest value; text and bytes compare by their bytes.
        max Max;
    }

    /// The value below which a part of the numbers lies, from 0 (the smallest) over 0.5 (the median) to 1 (the largest),
    /// as `f64`; between two values it is interpolated, as NumPy does. Named "price_q0.5".
    pub fn quantile(column: &str, quantile: f64) -> Aggregate {
        Aggregate {
            kind: Kind::Quantile(column.into(), quantile),
            name: format!("{column}_q{quantile}").into(),
        }
    }

    /// The mean of a price weighted by a size, over rows that have both, as the column "vwap"; null where sizes add up to 0.
    pub fn vwap(price: &str, size: &str) -> Aggregate {
        Aggregate { kind: Kind::Vwap { price: price.into(), size: size.into() }, name: "vwap".into() }
    }

    /// The sum of a price times a size, over rows that have both, as `f64` and as the column "turnover"; null where no row has.
    pub fn turnover(price: &str, size: &str) -> Aggregate {
        let kind = Kind::SumProduct { price: price.into(), size: size.into() };
        Aggregate { kind, name: "turnover".into() }
    }

    /// First, largest, smallest and last value, as the columns "open", "high", "low" and "close".
    pub fn ohlc(price: &str) -> [Aggregate; 4] {
        [
            Aggregate::first(price).named("open"),
            Aggregate::max(price).named("high"),
            Aggregate::min(price).named("low"),
            Aggregate::last(price).named("close"),
        ]
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Aggregate {
        self.name = name.into();
        self
    }

    /// The name of its column.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Whether the order of the rows decides.
    pub(crate) fn is_by_time(&self) -> bool {
        matches!(self.kind, Kind::First(_) | Kind::Last(_))
    }

    /// Whether it counts, so that nothing is 0 and not null.
    pub(crate) fn is_count(&self) -> bool {
        matches!(self.kind, Kind::Rows | Kind::Count(_))
    }

    /// The columns it reads.
    pub fn columns(&self) -> Vec<&Arc<str>> {
        match &self.kind {
            Kind::Rows => Vec::new(),
            Kind::Vwap { price, size } | Kind::SumProduct { price, size } => vec![price, size],
            Kind::Count(column)
            | Kind::Sum(column)
            | Kind::Mean(column)
            | Kind::Std(column)
            | Kind::Quantile(column, _)
            | Kind::First(column)
            | Kind::Last(column)
            | Kind::Min(column)
            | Kind::Max(column) => vec![column],
        }
    }

    /// Refuses columns of types that it cannot take; `types` are those of [`Aggregate::columns`].
    pub(crate) fn check(&self, types: &[ColumnType]) -> Result<(), QueryError> {
        let aggregate = match &self.kind {
            Kind::Quantile(_, quantile) if !(0.0..=1.0).contains(quantile) => {
                return Err(QueryError::BadQuantile { quantile: *quantile });
            }
            Kind::Quantile(..) => "a quantile",
            Kind::Sum(_) => "a sum",
            Kind::Mean(_) => "a mean",
            Kind::Std(_) => "a standard deviation",
            Kind::Vwap { .. } => "a weighted mean",
            Kind::SumProduct { .. } => "a sum of products",
            _ => return Ok(()),
        };
        let is_number = |found: &ColumnType| {
            matches!(found, ColumnType::I32 | ColumnType::I64 | ColumnType::F32 | ColumnType::F64)
        };
        match self.columns().into_iter().zip(types).find(|(_, found)| !is_number(found)) {
            None => Ok(()),
            Some((column, found)) => {
                Err(QueryError::NotNumber { aggregate, column: column.to_string(), found: *found })
            }
        }
    }
}
