//! Rows that are deleted for their values.

use underbelly::{Delete, Predicate};

use super::life::Life;
use super::model::OfValue;
use super::rules::SERIES;

/// Asks for rows with such a value, too.
pub(super) fn filter(delete: Delete, value: &OfValue) -> Delete {
    match value {
        OfValue::XAtMost(most) => delete.filter("x", Predicate::AtMost((*most).into())),
        OfValue::NoX => delete.filter("x", Predicate::IsNull),
        OfValue::Y(y) => delete.filter("y", Predicate::Equal(y.as_str().into())),
        OfValue::OtherY(y) => delete.filter("y", Predicate::NotEqual(y.as_str().into())),
    }
}

impl Life {
    /// In one of six deletes a value for which rows of a series go. A column is there where a row has had a value in it.
    pub(super) fn doomed_value(&mut self, series: &'static str) -> Option<OfValue> {
        let (is_wanted, choice, n) =
            (self.numbers.below(6) == 0, self.numbers.below(4), self.numbers.below(4) as i64);
        let rows = self.model.series.get(series).filter(|_| is_wanted && SERIES.contains(&series))?;
        let has_x = rows.iter().any(|row| row.x.is_some());
        let has_y = rows.iter().any(|row| row.y.is_some());
        let value = match choice {
            0 if has_x => OfValue::XAtMost(n),
            1 if has_x => OfValue::NoX,
            2 if has_y => OfValue::Y(format!("y{n}")),
            3 if has_y => OfValue::OtherY(format!("y{n}")),
            _ => return None,
        };
        self.figures.values[0] += 1;
        Some(value)
    }
}
