//! Columns of Underbelly as arrays of Arrow, and back.

use arrow2::array::{
    Array, BinaryArray, BooleanArray, DictionaryArray, DictionaryKey, PrimitiveArray, StructArray, Utf8Array,
};
use arrow2::bitmap::Bitmap;
use arrow2::buffer::Buffer;
use arrow2::datatypes::{DataType, Field, IntegerType, TimeUnit};
use arrow2::error::Error;
use arrow2::offset::{Offset, OffsetsBuffer};
use arrow2::types::NativeType;
use underbelly_storage::logical::DECIMAL_DIGITS;
use underbelly_storage::{Column, ColumnType, LogicalType, Strings, Values};

/// Structs in each other.
pub(super) const STRUCT_DEPTH_MAX: usize = 32;

/// Bytes of the path of a column within structs.
const PATH_BYTES_MAX: usize = 255;

/// The zone of instants whose zone nobody named.
pub(super) const UTC: &str = "UTC";

/// The array of a column, which may be said to be something else than what is stored.
pub(super) fn to_arrow(column: Column, logical: Option<&LogicalType>) -> Result<Box<dyn Array>, Error> {
    let (values, validity) = column.into_parts();
    let validity = validity.map(Bitmap::from);
    let scale = logical.and_then(LogicalType::scale);
    Ok(match values {
        Values::I64(v) if scale.is_some() => {
            let decimals = DataType::Decimal(DECIMAL_DIGITS.into(), scale.unwrap_or(0).into());
            primitive(decimals, v.into_iter().map(i128::from).collect(), validity)?
        }
        Values::Bool(v) => BooleanArray::try_new(DataType::Boolean, v.into(), validity)?.boxed(),
        Values::I64(v) => primitive(DataType::Int64, v, validity)?,
        Values::I32(v) => primitive(DataType::Int32, v, validity)?,
        Values::F64(v) => primitive(DataType::Float64, v, validity)?,
        Values::F32(v) => primitive(DataType::Float32, v, validity)?,
        Values::Date(v) => primitive(DataType::Date32, v, validity)?,
        Values::Timestamp(v) => {
            let zone = logical.and_then(LogicalType::zone).unwrap_or(UTC);
            primitive(DataType::Timestamp(TimeUnit::Nanosecond, Some(zone.to_string())), v, validity)?
        }
        Values::Utf8(v) => match short_offsets(&v) {
            Some(offsets) => {
                let (_, bytes) = v.into_parts();
                Utf8Array::<i32>::try_new(DataType::Utf8, offsets, bytes.into(), validity)?.boxed()
            }
            None => {
                let (offsets, bytes) = long_offsets(v)?;
                Utf8Array::<i64>::try_new(DataType::LargeUtf8, offsets, bytes, validity)?.boxed()
            }
        },
        Values::Bytes(v) => match short_offsets(&v) {
            Some(offsets) => {
                let (_, bytes) = v.into_parts();
                BinaryArray::<i32>::try_new(DataType::Binary, offsets, bytes.into(), validity)?.boxed()
            }
            None => {
                let (offsets, bytes) = long_offsets(v)?;
                BinaryArray::<i64>::try_new(DataType::LargeBinary, offsets, bytes, validity)?.boxed()
            }
        },
    })
}

fn primitive<T: NativeType>(
    data_type: DataType,
    values: Vec<T>,
    validity: Option<Bitmap>,
) -> Result<Box<dyn Array>, Error> {
    Ok(PrimitiveArray::try_new(data_type, values.into(), validity)?.boxed())
}

/// Offsets of 32 bits, where they fit.
fn short_offsets(strings: &Strings) -> Option<OffsetsBuffer<i32>> {
    let offsets: Option<Vec<i32>> = strings.offsets().iter().map(|at| i32::try_from(*at).ok()).collect();
    OffsetsBuffer::try_from(Buffer::from(offsets?)).ok()
}

fn long_offsets(strings: Strings) -> Result<(OffsetsBuffer<i64>, Buffer<u8>), Error> {
    let (offsets, bytes) = strings.into_parts();
    let offsets: Vec<i64> = offsets.into_iter().map(i64::from).collect();
    Ok((OffsetsBuffer::try_from(Buffer::from(offsets))?, bytes.into()))
}

/// Adds the plain columns of a field: itself, or those within a struct by their paths.
pub(super) fn leaves(
    field: &Field,
    path: String,
    to: &mut Vec<(String, DataType)>,
) -> Result<(), (String, String)> {
    let DataType::Struct(members) = field.data_type.to_logical_type() else {
        to.push((path, field.data_type.clone()));
        return Ok(());
    };
    if members.is_empty() {
        return Err((
            path,
            "is a struct of nothing, of which no column would tell; leave it out".to_string(),
        ));
    }
    members.iter().try_for_each(|member| leaves(member, member_path(&path, &member.name)?, to))
}

/// The path of what stands under a name in a struct, which is no longer than the name of a column may be.
pub(super) fn member_path(path: &str, name: &str) -> Result<String, (String, String)> {
    if path.len() + name.len() >= PATH_BYTES_MAX {
        let what = format!("has a member whose path is longer than {PATH_BYTES_MAX} bytes; rename it");
        return Err((path.chars().take(PATH_BYTES_MAX).collect(), what));
    }
    if name.is_empty() || name.contains('.') {
        let what = format!(
            "has a member {name:?}, a name that is empty or has a dot, and would not come back; rename it"
        );
        return Err((path.to_string(), what));
    }
    Ok(format!("{path}.{name}"))
}

/// Does something with each plain array of a column: itself, or those within a struct, and which of its rows are not null as a whole.
pub(super) fn each_leaf(
    array: &dyn Array,
    whole: Option<&Bitmap>,
    to: &mut impl FnMut(&dyn Array, Option<&Bitmap>) -> Result<(), String>,
) -> Result<(), String> {
    if !matches!(array.data_type().to_logical_type(), DataType::Struct(_)) {
        return to(array, whole);
    }
    let of_struct = cast::<StructArray>(array)?;
    let both = match (whole, of_struct.validity()) {
        (Some(whole), Some(own)) => Some(whole & own),
        (whole, own) => whole.or(own).cloned(),
    };
    of_struct.values().iter().try_for_each(|values| each_leaf(&**values, both.as_ref(), to))
}

/// What a column of arrays of this type holds, where that is not what is stored.
pub(super) fn logical(data_type: &DataType) -> Option<LogicalType> {
    match data_type.to_logical_type() {
        DataType::Decimal(_, scale) => LogicalType::decimal(u8::try_from(*scale).ok()?).ok(),
        DataType::Dictionary(_, values, _) => logical(values),
        DataType::Timestamp(_, Some(zone)) => zoned(zone),
        _ => None,
    }
}

/// Instants of a zone; `None` where it is UTC or an offset, which need no name.
pub(super) fn zoned(zone: &str) -> Option<LogicalType> {
    let is_name = zone.starts_with(|c: char| c.is_ascii_alphabetic());
    (is_name && !["UTC", "utc", "Z", "z"].contains(&zone)).then(|| LogicalType::Zoned(zone.into()))
}

/// An empty column for arrays of this type; `None` for a column of nothing but nulls without a type.
pub(super) fn empty(data_type: &DataType) -> Result<Option<Column>, String> {
    let column_type = match data_type.to_logical_type() {
        DataType::Null => return Ok(None),
        DataType::Boolean => ColumnType::Bool,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 | DataType::Int32 => {
            ColumnType::I32
        }
        DataType::UInt32 | DataType::Int64 => ColumnType::I64,
        DataType::Decimal(..) if logical(data_type).is_some() => ColumnType::I64,
        DataType::Float32 => ColumnType::F32,
        DataType::Float64 => ColumnType::F64,
        DataType::Utf8 | DataType::LargeUtf8 => ColumnType::Utf8,
        DataType::Binary | DataType::LargeBinary => ColumnType::Bytes,
        DataType::Date32 => ColumnType::Date,
        DataType::Timestamp(..) => ColumnType::Timestamp,
        DataType::Dictionary(_, values, _) => return empty(values),
        other => {
            return Err(format!(
                "is of the type {other:?}; use a bool, an integer of up to 64 bits, a float, a decimal of 128 bits with up to 18 digits behind the point, text, bytes, date32 or a timestamp"
            ));
        }
    };
    Ok(Some(Column::new(column_type)))
}

/// Appends an array to the column of its type; null where the struct that it stands in is.
pub(super) fn append(column: &mut Column, array: &dyn Array, whole: Option<&Bitmap>) -> Result<(), String> {
    let more = match (array.validity(), whole) {
        (_, None) => plain(array),
        (None, Some(whole)) => plain(&*array.with_validity(Some(whole.clone()))),
        (Some(own), Some(whole)) => plain(&*array.with_validity(Some(own & whole))),
    }?;
    if column.is_empty() {
        *column = more;
        return Ok(());
    }
    let rows = more.len();
    column.extend_range(&more, 0..rows).ok_or_else(|| "has texts of more than 4 GiB".to_string())
}

/// The column of an array.
fn plain(array: &dyn Array) -> Result<Column, String> {
    if let DataType::Dictionary(key, ..) = array.data_type().to_logical_type() {
        return match key {
            IntegerType::Int8 => of_dictionary::<i8>(array),
            IntegerType::Int16 => of_dictionary::<i16>(array),
            IntegerType::Int32 => of_dictionary::<i32>(array),
            IntegerType::Int64 => of_dictionary::<i64>(array),
            IntegerType::UInt8 => of_dictionary::<u8>(array),
            IntegerType::UInt16 => of_dictionary::<u16>(array),
            IntegerType::UInt32 => of_dictionary::<u32>(array),
            IntegerType::UInt64 => of_dictionary::<u64>(array),
        };
    }
    let values = match array.data_type().to_logical_type() {
        DataType::Boolean => Values::Bool(cast::<BooleanArray>(array)?.values_iter().collect()),
        DataType::Int8 => Values::I32(numbers::<i8, _>(array)?),
        DataType::Int16 => Values::I32(numbers::<i16, _>(array)?),
        DataType::Int32 => Values::I32(numbers::<i32, _>(array)?),
        DataType::UInt8 => Values::I32(numbers::<u8, _>(array)?),
        DataType::UInt16 => Values::I32(numbers::<u16, _>(array)?),
        DataType::UInt32 => Values::I64(numbers::<u32, _>(array)?),
        DataType::Int64 => Values::I64(numbers::<i64, _>(array)?),
        DataType::Decimal(..) => {
            Values::I64(decimals(cast::<PrimitiveArray<i128>>(array)?.iter().map(|v| v.copied()))?)
        }
        DataType::Float32 => Values::F32(numbers::<f32, _>(array)?),
        DataType::Float64 => Values::F64(numbers::<f64, _>(array)?),
        DataType::Date32 => Values::Date(numbers::<i32, _>(array)?),
        DataType::Timestamp(unit, _) => {
            let scale = match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1,
            };
            Values::Timestamp(nanoseconds(cast::<PrimitiveArray<i64>>(array)?, scale)?)
        }
        DataType::Utf8 => {
            let array = cast::<Utf8Array<i32>>(array)?;
            Values::Utf8(strings(array.offsets(), array.values())?)
        }
        DataType::LargeUtf8 => {
            let array = cast::<Utf8Array<i64>>(array)?;
            Values::Utf8(strings(array.offsets(), array.values())?)
        }
        DataType::Binary => {
            let array = cast::<BinaryArray<i32>>(array)?;
            Values::Bytes(strings(array.offsets(), array.values())?)
        }
        DataType::LargeBinary => {
            let array = cast::<BinaryArray<i64>>(array)?;
            Values::Bytes(strings(array.offsets(), array.values())?)
        }
        other => return Err(format!("turned into the type {other:?}")),
    };
    let validity = array.validity().map(|bits| bits.iter().collect());
    Column::from_parts(values, validity).ok_or_else(|| "has texts that are not UTF-8".to_string())
}

/// The column of an array whose values stand in a dictionary.
fn of_dictionary<K: DictionaryKey>(array: &dyn Array) -> Result<Column, String> {
    let array = cast::<DictionaryArray<K>>(array)?;
    let values = plain(&**array.values())?;
    let keys = array.keys().iter().map(|key| key.map(|key| (*key).try_into().ok()));
    let keys: Vec<Option<usize>> = keys
        .map(|key| key.map(|key: Option<usize>| key.ok_or("has a place that is no number")).transpose())
        .collect::<Result<_, _>>()?;
    at_places(&values, &keys)
}

/// The values of a dictionary at places; `None` is null.
pub(super) fn at_places(values: &Column, places: &[Option<usize>]) -> Result<Column, String> {
    if values.is_empty() {
        let is_all_null = places.iter().all(Option::is_none);
        let nulls = || Column::nulls(values.column_type(), places.len());
        return is_all_null.then(nulls).ok_or_else(|| "points behind its dictionary".to_string());
    }
    let place = |place: &Option<usize>| {
        let place = place.unwrap_or(0);
        u32::try_from(place).ok().filter(|_| place < values.len())
    };
    let rows: Option<Vec<u32>> = places.iter().map(place).collect();
    let rows = rows.ok_or("points behind its dictionary")?;
    let validity = places.iter().map(|place| place.is_some_and(|place| !values.is_null(place))).collect();
    let taken = values.take(&rows).ok_or("has texts of more than 4 GiB")?;
    Column::from_parts(taken.into_parts().0, Some(validity))
        .ok_or_else(|| "cannot be put together".to_string())
}

fn cast<A: Array>(array: &dyn Array) -> Result<&A, String> {
    array.as_any().downcast_ref().ok_or_else(|| "is not what its type says".to_string())
}

fn numbers<T: NativeType, N: From<T>>(array: &dyn Array) -> Result<Vec<N>, String> {
    Ok(cast::<PrimitiveArray<T>>(array)?.values_iter().map(|v| N::from(*v)).collect())
}

/// Scaled integers. What stands under a null is of no interest.
pub(super) fn decimals(numbers: impl Iterator<Item = Option<i128>>) -> Result<Vec<i64>, String> {
    let short = numbers.map(|number| i64::try_from(number.unwrap_or(0)));
    let short: Result<Vec<i64>, _> = short.collect();
    short.map_err(|_| "has a decimal that does not fit in 64 bits without its point".to_string())
}

/// Times in nanoseconds. What stands under a null is of no interest.
fn nanoseconds(array: &PrimitiveArray<i64>, scale: i64) -> Result<Vec<i64>, String> {
    let scaled = array.iter().map(|v| v.map_or(Some(0), |v| v.checked_mul(scale)));
    let all: Option<Vec<i64>> = scaled.collect();
    all.ok_or_else(|| "has a time outside the years 1677 to 2262".to_string())
}

fn strings<O: Offset>(offsets: &OffsetsBuffer<O>, bytes: &Buffer<u8>) -> Result<Strings, String> {
    let offsets = offsets.as_slice();
    let (first, last) = (offsets.first().map_or(0, O::to_usize), offsets.last().map_or(0, O::to_usize));
    let text = bytes.get(first..last).ok_or("has offsets beyond its text")?;
    let moved = offsets.iter().map(|at| u32::try_from(at.to_usize().checked_sub(first)?).ok());
    let moved: Option<Vec<u32>> = moved.collect();
    let moved = moved.ok_or("has texts of more than 4 GiB, or offsets that fall")?;
    Strings::from_parts(moved, text.to_vec()).ok_or_else(|| "has offsets that are not in order".to_string())
}
