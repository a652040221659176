//! Logical types of columns beside an archive that does not know them: in log records and in manifests.
//!
//! For each column: `u8` length of the series' name, the name, `u8` length of the column's name, the name, `u8` kind, and for kind 1
//! (decimals) the `u8` scale, for kind 2 (instants of a zone) `u8` length of its name and the name. The last one ends with the bytes.

use underbelly_storage::{LogicalType, LogicalTypes};

/// Logical types by series.
type BySeries = Vec<(String, LogicalTypes)>;

const DECIMAL: u8 = 1;
const ZONED: u8 = 2;

/// The bytes of logical types by series.
pub(crate) fn encode<S: AsRef<str>>(types: &[(S, LogicalTypes)]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for (series, types) in types {
        for (column, logical) in types.iter() {
            logical.check().map_err(|error| format!("column {column:?}: {error}"))?;
            name(&mut bytes, series.as_ref())?;
            name(&mut bytes, column)?;
            match logical {
                LogicalType::Decimal(scale) => bytes.extend_from_slice(&[DECIMAL, *scale]),
                LogicalType::Zoned(zone) => {
                    bytes.push(ZONED);
                    name(&mut bytes, zone)?;
                }
                other => return Err(format!("column {column:?}: {other} is none that can be kept")),
            }
        }
    }
    Ok(bytes)
}

fn name(bytes: &mut Vec<u8>, name: &str) -> Result<(), String> {
    bytes.push(u8::try_from(name.len()).map_err(|_| format!("{name:?} is longer than 255 bytes"))?);
    bytes.extend_from_slice(name.as_bytes());
    Ok(())
}

/// Splits off types that stand behind a `u32` with their length.
pub(crate) fn split(bytes: &[u8]) -> Result<(BySeries, &[u8]), String> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or("cut short before the logical types")?;
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let (types, rest) = rest.split_at_checked(length).ok_or("cut short within the logical types")?;
    Ok((decode(types)?, rest))
}

/// Reads what [`encode`] wrote; says what is wrong with any other bytes.
pub(crate) fn decode(bytes: &[u8]) -> Result<BySeries, String> {
    let (mut rest, mut found) = (bytes, BySeries::new());
    while !rest.is_empty() {
        let (series, column) = (text(&mut rest)?, text(&mut rest)?);
        let logical = match byte(&mut rest)? {
            DECIMAL => LogicalType::decimal(byte(&mut rest)?).map_err(|error| error.to_string())?,
            ZONED => LogicalType::Zoned(text(&mut rest)?.into()),
            kind => {
                return Err(format!(
                    "column {column:?} has unknown logical type {kind}; use a newer release"
                ));
            }
        };
        match found.last_mut() {
            Some((last, types)) if *last == series => types.insert(column, logical),
            _ => found.push((series, LogicalTypes::new().with(column, logical))),
        }
    }
    Ok(found)
}

fn byte(rest: &mut &[u8]) -> Result<u8, String> {
    let (byte, behind) = rest.split_first().ok_or("logical types are cut short")?;
    *rest = behind;
    Ok(*byte)
}

fn text(rest: &mut &[u8]) -> Result<String, String> {
    let length = byte(rest)?;
    let (text, behind) = rest.split_at_checked(length.into()).ok_or("logical types are cut short")?;
    *rest = behind;
    String::from_utf8(text.to_vec()).map_err(|_| "a name is not UTF-8".to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> BySeries {
        let types = LogicalTypes::new().with("price", LogicalType::Decimal(2));
        let types = types.with("\u{e9}", LogicalType::Decimal(18));
        let other = LogicalTypes::new().with("x", LogicalType::Zoned("UTC".into()));
        vec![("trade".to_string(), types), ("s".to_string(), other)]
    }

    /// A change of these bytes is a change of the format on disk.
    #[test]
    fn the_bytes_of_logical_types_are_fixed() {
        let bytes = encode(&sample()).unwrap();
        let expected = b"\x05trade\x05price\x01\x02\x05trade\x02\xc3\xa9\x01\x12\x01s\x01x\x02\x03UTC";
        assert_eq!(bytes, expected);
        assert_eq!(decode(&bytes), Ok(sample()));
        let whole = [14, 25, bytes.len()];
        for len in 1..=bytes.len() {
            assert_eq!(decode(&bytes[..len]).is_ok(), whole.contains(&len), "{len} bytes");
        }
        assert!(decode(b"\x01s\x01x\x09").unwrap_err().contains("newer release"));
        assert!(decode(b"\x01s\x01x\x01\x13").unwrap_err().contains("0 to 18"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = split(&bytes);
        }
    }
}
