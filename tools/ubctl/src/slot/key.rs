//! Keys of cells as text: values joined by `/`, where `\` stands before a `/` or `\` of a value.

use underbelly::{ColumnType, Date, Decimal, LogicalType, SlotDefinition, Value};

use crate::error::Failed;
use crate::import::parse_bool;
use crate::time::parse_instant;

/// Cuts a key at each `/` that no `\` stands before.
fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let c = match c {
            '/' => {
                parts.push(String::new());
                continue;
            }
            '\\' => rest.next().ok_or("it ends with a single \\; write \\\\ for a backslash")?,
            c => c,
        };
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    Ok(parts)
}

/// A value of a type from its text.
pub(crate) fn parse_value(name: &str, text: &str, expected: ColumnType) -> Result<Value, Failed> {
    let value = match expected {
        ColumnType::Bool => parse_bool(text).map(Value::Bool),
        ColumnType::I64 => text.parse().ok().map(Value::I64),
        ColumnType::F64 => text.parse().ok().map(Value::F64),
        ColumnType::I32 => text.parse().ok().map(Value::I32),
        ColumnType::F32 => text.parse().ok().map(Value::F32),
        ColumnType::Utf8 => Some(Value::from(text)),
        ColumnType::Bytes => None,
        ColumnType::Timestamp => parse_instant(text).ok().map(Value::Timestamp),
        ColumnType::Date => Date::parse(text).map(Value::Date),
    };
    value.ok_or_else(|| Failed::Value {
        name: name.to_string(),
        text: text.to_string(),
        expected,
        remedy: match expected {
            ColumnType::Bool => "write true or false",
            ColumnType::I64 | ColumnType::F64 | ColumnType::I32 | ColumnType::F32 => "write a number",
            ColumnType::Date => "write it like 2014-06-02",
            ColumnType::Timestamp => "write it like 2014-06-02T13:30:00Z",
            ColumnType::Utf8 | ColumnType::Bytes => "such a column cannot be asked for",
        },
    })
}

/// The same of a column that may be said to be something else than what is stored.
pub(crate) fn parse_typed(name: &str, text: &str, expected: &LogicalType) -> Result<Value, Failed> {
    match expected {
        LogicalType::Decimal(scale) => match Decimal::parse(text, *scale) {
            Ok(value) => Ok(value.unscaled().into()),
            Err(error) => Err(Failed::Usage(format!("{name}: {error}"))),
        },
        other => parse_value(name, text, other.stored()),
    }
}

/// The key of a cell of `slot`, as its cell keys' types say.
pub(super) fn parse(slot: &SlotDefinition, text: Option<&str>) -> Result<Vec<Value>, Failed> {
    parse_key(&format!("slot {:?}", slot.name), &slot.cell_keys, text)
}

/// A key of these columns, which are those of `owner`.
pub(crate) fn parse_key(
    owner: &str,
    keys: &[(String, ColumnType)],
    text: Option<&str>,
) -> Result<Vec<Value>, Failed> {
    let shown = text.unwrap_or_default();
    let wrong = |what: String| Failed::Key { key: shown.to_string(), what };
    let parts = match text {
        None => Vec::new(),
        Some("") if keys.is_empty() => Vec::new(),
        Some(text) => split(text).map_err(|what| wrong(what.to_string()))?,
    };
    if parts.len() != keys.len() {
        let names: Vec<String> = keys.iter().map(|(name, t)| format!("{name} ({t})")).collect();
        let wanted = match names.is_empty() {
            true => "no key; leave it out".to_string(),
            false => format!("{}; join the values by / and write \\/ for a / of a value", names.join("/")),
        };
        return Err(wrong(format!("it has {} values, {owner} has {wanted}", parts.len())));
    }
    let values = keys.iter().zip(parts);
    values.map(|((name, t), part)| parse_value(&format!("key {name:?}"), &part, *t)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use underbelly::Key;

    #[test]
    fn keys_have_their_slots_types() {
        let slot = SlotDefinition::new("S")
            .cell_key("issuer", ColumnType::Utf8)
            .cell_key("n", ColumnType::I64)
            .cell_key("day", ColumnType::Date);
        let key = parse(&slot, Some("EU\\/RO/-3/2014-06-02")).unwrap();
        assert_eq!(key, ["EU/RO".into(), Value::I64(-3), Value::Date(Date::from_ymd(2014, 6, 2).unwrap())]);
        for (text, part) in
            [("a/1", "issuer (utf8)/n (i64)"), ("a/x/2014-06-02", "\"x\" is no i64"), ("a\\", "\\\\")]
        {
            let error = parse(&slot, Some(text)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(parse(&slot, None).is_err());
        assert_eq!(parse(&SlotDefinition::new("N"), None).unwrap(), []);
        assert_eq!(parse(&SlotDefinition::new("N"), Some("")).unwrap(), []);
        assert!(
            parse(&SlotDefinition::new("N"), Some("x")).unwrap_err().to_string().contains("leave it out")
        );
    }

    proptest! {
        #[test]
        fn a_printed_key_reads_back(a: String, n: i64, b: String) {
            let slot = SlotDefinition::new("S")
                .cell_key("a", ColumnType::Utf8)
                .cell_key("n", ColumnType::I64)
                .cell_key("b", ColumnType::Utf8);
            let values = vec![Value::from(a), Value::from(n), Value::from(b)];
            let printed = Key::new(values.clone()).unwrap().to_string();
            prop_assert_eq!(parse(&slot, Some(&printed)).unwrap(), values);
        }
    }
}
