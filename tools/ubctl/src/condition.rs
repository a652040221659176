//! Conditions on the values of columns: `--where`.

use clap::Args;
use underbelly::{Predicate, Scan, Value};

use crate::error::Failed;
use crate::series::Rows;
use crate::slot::parse_typed;
use crate::time::parse_instant;

/// The column of the time.
const TIMESTAMP: &str = "timestamp";

/// The relation of a column to several values.
const IN: &str = " in ";

/// Which rows are meant by their values.
#[derive(Args, Debug)]
pub(crate) struct Conditions {
    /// Only rows where this holds, such as "price>=2.5" or "symbol in IBM,AIG"; several must all hold
    ///
    /// A column, one of =, !=, <, <=, >, >= and "in", and a value; behind "in" values with commas between them. Nothing behind =
    /// or !=, or between commas, stands for null. Of several names that end before such a word or sign the longest that is a column counts.
    #[arg(long = "where", value_name = "COL<OP>VALUE", value_parser = parse_condition)]
    conditions: Vec<Condition>,
}

/// What a text may mean, at least one: a relation may also stand in the name of a column, or in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition(Vec<Reading>);

/// A column, how its values must stand to a value, and that value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reading {
    column: String,
    relation: &'static str,
    value: String,
}

fn parse_condition(text: &str) -> Result<Condition, String> {
    // Longer ones first: a `<=` is no `<`.
    let relations = [IN, "!=", "<=", ">=", "=", "<", ">"];
    let (mut readings, mut at) = (Vec::new(), 0);
    while let Some(rest) = text.get(at..) {
        match relations.iter().find(|relation| rest.starts_with(**relation)) {
            Some(relation) => {
                let (column, value) =
                    (text[..at].trim().to_string(), rest[relation.len()..].trim().to_string());
                readings.push(Reading { column, relation, value });
                at += relation.trim_end().len();
            }
            None => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    match readings.first() {
        Some(first) if !first.column.is_empty() => Ok(Condition(readings)),
        _ => Err("write a column, one of =, !=, <, <=, >, >=, in, and a value".to_string()),
    }
}

impl Condition {
    /// That with the longest name of a column, or the first where there is none.
    fn reading(&self, series: &Rows) -> Option<&Reading> {
        let is_column = |name: &str| name == TIMESTAMP || series.schema().column(name).is_ok();
        self.0.iter().rev().find(|reading| is_column(&reading.column)).or(self.0.first())
    }
}

impl Reading {
    fn predicate(&self, series: &Rows) -> Result<Predicate, Failed> {
        let value = |text: &str| {
            Ok::<_, Failed>(match self.column.as_str() {
                TIMESTAMP => Value::Timestamp(parse_instant(text).map_err(Failed::Usage)?),
                name => {
                    let logical = series.types().of(name, series.schema().column(name)?.column_type);
                    parse_typed(&format!("column {name:?}"), text, &logical)?
                }
            })
        };
        Ok(match self.relation {
            "=" if self.value.is_empty() => Predicate::IsNull,
            "!=" if self.value.is_empty() => Predicate::NotNull,
            "=" => Predicate::Equal(value(&self.value)?),
            "!=" => Predicate::NotEqual(value(&self.value)?),
            "<" => Predicate::Below(value(&self.value)?),
            "<=" => Predicate::AtMost(value(&self.value)?),
            ">" => Predicate::Above(value(&self.value)?),
            ">=" => Predicate::AtLeast(value(&self.value)?),
            _ => {
                let texts = self.value.split(',').map(str::trim);
                let values = texts.map(|text| if text.is_empty() { Ok(Value::Null) } else { value(text) });
                Predicate::OneOf(values.collect::<Result<_, _>>()?)
            }
        })
    }
}

impl Conditions {
    /// The columns and what is asked of them, with values of their types.
    pub(crate) fn predicates(&self, series: &Rows) -> Result<Vec<(&str, Predicate)>, Failed> {
        let readings = self.conditions.iter().filter_map(|condition| condition.reading(series));
        readings.map(|reading| Ok((reading.column.as_str(), reading.predicate(series)?))).collect()
    }

    /// A scan of the rows that are meant.
    pub(crate) fn narrow<'a>(&self, series: &Rows, scan: Scan<'a>) -> Result<Scan<'a>, Failed> {
        let predicates = self.predicates(series)?.into_iter();
        Ok(predicates.fold(scan, |scan, (name, predicate)| scan.filter(name, predicate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_a_column_a_relation_and_a_value() {
        let of = |r: &Reading| (r.column.clone(), r.relation, r.value.clone());
        let all = |text| parse_condition(text).map(|c| c.0.iter().map(of).collect::<Vec<_>>());
        let read = |text| all(text).map(|readings| readings[0].clone());
        let is = |column: &str, relation, value: &str| Ok((column.to_string(), relation, value.to_string()));
        assert_eq!(read("price>=2.5"), is("price", ">=", "2.5"));
        assert_eq!(read("a < b=c"), is("a", "<", "b=c"));
        assert_eq!(read("s!="), is("s", "!=", ""));
        assert_eq!(read("s=!="), is("s", "=", "!="));
        assert_eq!(read("host in a,b=c"), is("host", IN, "a,b=c"));
        assert_eq!(read("note=a in b"), is("note", "=", "a in b"));
        assert_eq!(read("inn in 1, 2"), is("inn", IN, "1, 2"));
        let of_order = all("time in force=DAY").unwrap_or_default();
        assert_eq!(of_order.len(), 2);
        assert_eq!(Ok(of_order[1].clone()), is("time in force", "=", "DAY"));
        assert_eq!(all("ä<=1").map(|readings| readings.len()), Ok(1));
        assert_eq!(all("a in b in c").map(|readings| readings.len()), Ok(2));
        assert!(read("=3").is_err() && read("price").is_err() && read(" in 3").is_err());
    }
}
