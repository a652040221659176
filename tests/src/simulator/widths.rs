//! A field of numbers that widens: from `i32` to `i64`, and to `f64`, as rows come that need it.

use underbelly::{Batch, ColumnType, Row, Snapshot, Timestamp, Value};

use super::Trouble;
use super::life::Life;
use super::model::{Effect, Model, RowOf};

/// The series whose field `x` widens.
pub(super) const SIZES: &str = "sizes";
/// Types from the narrowest on.
const WIDTHS: [ColumnType; 3] = [ColumnType::I32, ColumnType::I64, ColumnType::F64];

/// A number of that series as an integer, which each of them is.
pub(super) fn as_integer(series: &str, value: Value) -> Value {
    match value {
        Value::I32(n) if series == SIZES => Value::I64(n.into()),
        Value::F64(n) if series == SIZES => Value::I64(n as i64),
        value => value,
    }
}

/// The field is as wide as the widest number that it was ever given, where all that is sequenced is visible. A field that was
/// widened since is wide for older snapshots, too.
pub(super) fn check(snapshot: &Snapshot, model: &Model) -> Result<(), Trouble> {
    if !model.series.contains_key(SIZES) {
        return Ok(());
    }
    let found = snapshot.series(SIZES)?.range(Timestamp::MIN, Timestamp::MAX)?;
    let found = found.column("x").map(|column| column.column_type());
    match found == Some(WIDTHS[model.width]) {
        true => Ok(()),
        false => Err(format!("numbers of {SIZES} are {found:?}, not {}", WIDTHS[model.width]).into()),
    }
}

impl Life {
    /// Appends numbers of some widths, seldom the widest.
    pub(super) fn widen(&mut self) -> Result<(), Trouble> {
        let (mut batch, mut effects) = (Batch::new(), Vec::new());
        for _ in 0..1 + self.numbers.below(3) {
            let width = [0, 0, 0, 0, 1, 1, 2][self.numbers.below(7) as usize];
            let (at, key, n) = (self.instant(), self.numbers.below(3) as u8, self.numbers.below(1000) as i64);
            let x = match WIDTHS[width] {
                ColumnType::I32 => Value::I32(n as i32),
                ColumnType::I64 => Value::I64(n),
                _ => Value::F64(n as f64),
            };
            let row = RowOf { at, key, x: Some(n), y: None };
            batch.append(Row::new(SIZES, Timestamp(at)).key("k", format!("k{key}")).field("x", x))?;
            self.figures.values[1] += u64::from(width > self.model.width);
            effects.extend([Effect::Rows(SIZES, vec![row]), Effect::Width(width)]);
        }
        self.tell(|| format!("numbers of some widths: {effects:?}"));
        self.attempt("widen", effects, |db| db.commit(batch)).map(|_| ())
    }
}
