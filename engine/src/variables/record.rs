//! A variable as a record of the state image.

use std::sync::Arc;

use underbelly_storage::Timestamp;
use underbelly_storage::cursor::Cursor;
use underbelly_storage::error::Damage;
use underbelly_storage::image::Key;

use super::catalogue::{Name, Set, Stored, check_change};
use super::value::{Scope, VariableValue};

const GLOBAL: u8 = 0;
const EPISODE: u8 = 1;
const ASSET: u8 = 2;

const BOOL: u8 = 1;
const I64: u8 = 2;
const F64: u8 = 3;
const ARRAY: u8 = 4;
const BYTES: u8 = 5;

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Names have at most 255 bytes.
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}

/// Appends the record of a variable.
pub(crate) fn encode(out: &mut Vec<u8>, stored: &Stored) {
    let Set { value, seq, time } = &*stored.set;
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&time.0.to_le_bytes());
    put_name(out, &stored.name);
    put_value(out, value);
}

/// Appends scope and name.
pub(super) fn put_name(out: &mut Vec<u8>, name: &Name) {
    let Name { scope, name } = name;
    out.push(match scope {
        Scope::Global => GLOBAL,
        Scope::Episode(_) => EPISODE,
        Scope::Asset(_) => ASSET,
    });
    if let Some(name) = scope.name() {
        put_text(out, name);
    }
    put_text(out, name);
}

/// The name that bytes are from end to end.
pub(super) fn name_of(bytes: &[u8]) -> Option<Name> {
    let mut cursor = Cursor::new(bytes);
    let name = read_name(&mut cursor).ok()?;
    cursor.rest().is_empty().then_some(name)
}

fn put_value(out: &mut Vec<u8>, value: &VariableValue) {
    match value {
        VariableValue::Bool(value) => out.extend_from_slice(&[BOOL, u8::from(*value)]),
        VariableValue::I64(value) => {
            out.push(I64);
            out.extend_from_slice(&value.to_le_bytes());
        }
        VariableValue::F64(value) => {
            out.push(F64);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        VariableValue::Array(values) => {
            out.push(ARRAY);
            values.iter().for_each(|value| out.extend_from_slice(&value.to_bits().to_le_bytes()));
        }
        VariableValue::Bytes(bytes) => {
            out.push(BYTES);
            out.extend_from_slice(bytes);
        }
    }
}

/// Reads what [`encode`] wrote; says what is wrong with any other bytes.
pub(crate) fn decode(key: Key, bytes: &[u8]) -> Result<Stored, String> {
    let (name, set) = read(bytes).map_err(|Damage(what)| what.to_string())?;
    check_change(&name, Some(&set.value)).map_err(|error| error.to_string())?;
    if set.seq < key.major {
        return Err(format!("variable {name} was set by transaction {} and made by {}", set.seq, key.major));
    }
    Ok(Stored { place: (key.major, key.minor), name: Arc::new(name), set: Arc::new(set) })
}

fn text(cursor: &mut Cursor<'_>) -> Result<Arc<str>, Damage> {
    let length = usize::from(cursor.u8()?);
    let text = std::str::from_utf8(cursor.take(length)?);
    text.map(Arc::from).map_err(|_| Damage("a name is not UTF-8"))
}

fn read_name(cursor: &mut Cursor<'_>) -> Result<Name, Damage> {
    let scope = match cursor.u8()? {
        GLOBAL => Scope::Global,
        EPISODE => Scope::Episode(text(cursor)?),
        ASSET => Scope::Asset(text(cursor)?),
        _ => return Err(Damage("a variable's scope is unknown")),
    };
    Ok(Name { scope, name: text(cursor)? })
}

fn read(bytes: &[u8]) -> Result<(Name, Set), Damage> {
    let mut cursor = Cursor::new(bytes);
    let (seq, time) = (cursor.u64()?, Timestamp(cursor.i64()?));
    let name = read_name(&mut cursor)?;
    let value = match cursor.u8()? {
        BOOL => match cursor.u8()? {
            0 => VariableValue::Bool(false),
            1 => VariableValue::Bool(true),
            _ => return Err(Damage("a variable is neither true nor false")),
        },
        I64 => VariableValue::I64(cursor.i64()?),
        F64 => VariableValue::F64(f64::from_bits(cursor.u64()?)),
        ARRAY => {
            let (values, rest) = cursor.rest().as_chunks::<8>();
            if !rest.is_empty() {
                return Err(Damage("an array of floats ends within one"));
            }
            VariableValue::Array(values.iter().map(|value| f64::from_le_bytes(*value)).collect())
        }
        BYTES => VariableValue::Bytes(cursor.rest().into()),
        _ => return Err(Damage("a variable's type is unknown")),
    };
    match cursor.rest() {
        [] => Ok((name, Set { value, seq, time })),
        _ => Err(Damage("bytes stand behind a variable's value")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stored(scope: Scope, value: VariableValue) -> Stored {
        let set = Set { value, seq: 7, time: Timestamp(-2) };
        Stored { place: (5, 1), name: Arc::new(Name::new(&scope, "x\u{e9}")), set: Arc::new(set) }
    }

    fn all() -> Vec<Stored> {
        let odd = f64::from_bits(0x7ff8_0000_0000_0001);
        vec![
            stored(Scope::Global, VariableValue::Bool(true)),
            stored(Scope::episode("e"), VariableValue::I64(-3)),
            stored(Scope::asset("IBM"), VariableValue::F64(odd)),
            stored(Scope::Global, vec![1.5, odd].into()),
            stored(Scope::Global, Vec::<f64>::new().into()),
            stored(Scope::asset("a"), vec![0u8, 255].into()),
        ]
    }

    const KEY: Key = Key { kind: 9, major: 5, minor: 1 };

    /// A change of these bytes is a change of the format on disk.
    #[test]
    fn the_bytes_of_a_variable_are_fixed() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &all()[2]);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden =
            concat!("0700000000000000", "feffffffffffffff", "020349424d", "0378c3a9", "03010000000000f87f");
        assert_eq!(hex, golden);
    }

    #[test]
    fn damaged_variables_are_refused_or_read_as_variables() {
        for stored in all() {
            let mut bytes = Vec::new();
            encode(&mut bytes, &stored);
            let read = decode(KEY, &bytes).unwrap();
            assert_eq!((read.place, &read.name), (stored.place, &stored.name));
            // Bits, so that every NaN is itself.
            let mut again = Vec::new();
            encode(&mut again, &read);
            assert_eq!(again, bytes);
            for cut in 0..bytes.len() {
                let is_list = matches!(stored.set.value, VariableValue::Array(_) | VariableValue::Bytes(_));
                assert!(is_list || decode(KEY, &bytes[..cut]).is_err(), "{cut}");
            }
            for (at, byte) in (0..bytes.len()).flat_map(|at| [0, 1, 9, 0x80, 0xff].map(|byte| (at, byte))) {
                let mut bad = bytes.clone();
                bad[at] = byte;
                let _ = decode(KEY, &bad);
            }
        }
        let mut long = Vec::new();
        encode(&mut long, &stored(Scope::Global, vec![0u8; 5000].into()));
        assert!(decode(KEY, &long).is_err(), "longer than a variable may be");
        let mut older = Vec::new();
        encode(&mut older, &all()[0]);
        assert!(decode(Key { major: 8, ..KEY }, &older).is_err(), "set before it was made");
        let mut nameless = Vec::new();
        let name = Arc::new(Name::new(&Scope::Global, ""));
        encode(&mut nameless, &Stored { name, ..all().remove(0) });
        assert!(decode(KEY, &nameless).is_err());
    }
}
