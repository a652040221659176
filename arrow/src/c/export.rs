//! Rows for others.

use std::borrow::Cow;
use std::ffi::{CString, c_void};
use std::ops::Range;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use underbelly_storage::logical::DECIMAL_DIGITS;
use underbelly_storage::{LogicalType, Strings, Values};

use super::{ArrowArray, ArrowSchema};
use crate::batch::{Batch, Lend, Lent};
use crate::columns::UTC;
use crate::error::ArrowError;

/// An array may hold nulls.
const NULLABLE: i64 = 2;
/// Rows without columns.
const RECORDS: &str = "+s";

/// What an exported array holds: the owner of what it lends, and what had to be made for it.
struct Held {
    /// Let go by dropping it; so are the rest.
    _owner: Arc<dyn Lend>,
    _made: Made,
    buffers: Box<[*const c_void]>,
    children: Box<[*mut ArrowArray]>,
}

/// Memory that has another form here than in Arrow.
#[derive(Default)]
struct Made {
    validity: Option<Vec<u8>>,
    bits: Option<Vec<u8>>,
    offsets: Option<Vec<i64>>,
    decimals: Option<Vec<i128>>,
}

struct HeldSchema {
    format: CString,
    name: CString,
    children: Box<[*mut ArrowSchema]>,
}

/// The rows of a batch as a record batch: a struct of its columns, and the schema of it. Numbers, times, days and texts stay where
/// they are, and the batch's owner with them until the array is released.
///
/// # Errors
/// [`ArrowError::Unfit`] where a name holds a NUL, or a column has other rows than the batch.
pub fn export(batch: &Batch) -> Result<(ArrowArray, ArrowSchema), ArrowError> {
    let mut columns = Vec::new();
    let mut fields = Vec::new();
    // From here on an early return drops what was made, which releases it.
    for (name, lent) in batch.owner.lent() {
        let logical = batch.types.get(name);
        let (array, format) = column(&batch.owner, &lent, batch.rows.clone(), logical)
            .ok_or_else(|| ArrowError::unfit(format!("column {name:?} has too few rows")))?;
        fields.push(schema(name, &format, Vec::new())?);
        columns.push(array);
    }
    let schema = schema("", RECORDS, fields)?;
    let (owner, rows) = (batch.owner.clone(), batch.rows.len());
    Ok((array(owner, rows, 0, Made::default(), vec![null()], columns), schema))
}

/// The schema that an export of such columns has, without rows: what a stream announces.
pub(super) fn schema_of(batch: &Batch) -> Result<ArrowSchema, ArrowError> {
    export(batch).map(|(_, schema)| schema)
}

/// A column's rows, and Arrow's name of their type; `None` where it has not so many.
fn column(
    owner: &Arc<dyn Lend>,
    lent: &Lent<'_>,
    rows: Range<usize>,
    logical: Option<&LogicalType>,
) -> Option<(ArrowArray, Cow<'static, str>)> {
    let instants = || format!("tsn:{}", logical.and_then(LogicalType::zone).unwrap_or(UTC));
    let mut made = Made::default();
    let count = rows.len();
    let column = match lent {
        Lent::Timestamps(times) => {
            let buffers = vec![null(), pointer(times.get(rows)?)];
            return Some((array(owner.clone(), count, 0, made, buffers, Vec::new()), instants().into()));
        }
        Lent::Column(column) => column,
    };
    if column.len() < rows.end {
        return None;
    }
    let mut nulls = 0;
    if let Some(validity) = column.validity() {
        let validity = validity.get(rows.clone())?;
        nulls = validity.iter().filter(|valid| !**valid).count();
        made.validity = (nulls > 0).then(|| packed(validity));
    }
    let mut buffers = vec![made.validity.as_deref().map_or(null(), pointer)];
    if let (Values::I64(v), Some(scale)) = (column.values(), logical.and_then(LogicalType::scale)) {
        let wide = v.get(rows)?.iter().map(|number| i128::from(*number)).collect();
        buffers.push(pointer(made.decimals.insert(wide)));
        let format = format!("d:{DECIMAL_DIGITS},{scale}");
        return Some((array(owner.clone(), count, nulls, made, buffers, Vec::new()), format.into()));
    }
    let format = match column.values() {
        Values::Bool(v) => {
            buffers.push(pointer(made.bits.insert(packed(v.get(rows)?))));
            "b"
        }
        Values::I32(v) => lend(&mut buffers, v.get(rows)?, "i"),
        Values::I64(v) => lend(&mut buffers, v.get(rows)?, "l"),
        Values::F32(v) => lend(&mut buffers, v.get(rows)?, "f"),
        Values::F64(v) => lend(&mut buffers, v.get(rows)?, "g"),
        Values::Date(v) => lend(&mut buffers, v.get(rows)?, "tdD"),
        Values::Timestamp(v) => {
            buffers.push(pointer(v.get(rows)?));
            return Some((array(owner.clone(), count, nulls, made, buffers, Vec::new()), instants().into()));
        }
        Values::Utf8(v) => text(&mut buffers, &mut made, v, rows, ["u", "U"])?,
        Values::Bytes(v) => text(&mut buffers, &mut made, v, rows, ["z", "Z"])?,
    };
    Some((array(owner.clone(), count, nulls, made, buffers, Vec::new()), format.into()))
}

fn pointer<T>(values: &[T]) -> *const c_void {
    values.as_ptr().cast()
}

fn lend<T>(buffers: &mut Vec<*const c_void>, values: &[T], format: &'static str) -> &'static str {
    buffers.push(pointer(values));
    format
}

/// Texts point into all of a column's bytes. Offsets of 32 bits are those of Arrow, as long as they have no sign.
fn text(
    buffers: &mut Vec<*const c_void>,
    made: &mut Made,
    strings: &Strings,
    rows: Range<usize>,
    [short, long]: [&'static str; 2],
) -> Option<&'static str> {
    let offsets = strings.offsets().get(rows.start..rows.end.checked_add(1)?)?;
    // They rise, so the last is the largest.
    let is_short = offsets.last().is_some_and(|end| i32::try_from(*end).is_ok());
    buffers.push(match is_short {
        true => pointer(offsets),
        false => pointer(made.offsets.insert(offsets.iter().map(|at| i64::from(*at)).collect())),
    });
    buffers.push(pointer(strings.bytes()));
    Some(if is_short { short } else { long })
}

/// A bit for each value, lowest first.
fn packed(values: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| bits.iter().rev().fold(0u8, |byte, bit| byte << 1 | u8::from(*bit));
    values.chunks(8).map(byte).collect()
}

fn array(
    owner: Arc<dyn Lend>,
    rows: usize,
    nulls: usize,
    made: Made,
    buffers: Vec<*const c_void>,
    children: Vec<ArrowArray>,
) -> ArrowArray {
    let children = children.into_iter().map(|child| Box::into_raw(Box::new(child))).collect();
    let mut held = Box::new(Held { _owner: owner, _made: made, buffers: buffers.into(), children });
    ArrowArray {
        length: rows as i64,
        null_count: nulls as i64,
        offset: 0,
        n_buffers: held.buffers.len() as i64,
        n_children: held.children.len() as i64,
        buffers: held.buffers.as_mut_ptr(),
        children: held.children.as_mut_ptr(),
        dictionary: null_mut(),
        release: Some(release_array),
        private_data: Box::into_raw(held).cast(),
    }
}

fn schema(name: &str, format: &str, children: Vec<ArrowSchema>) -> Result<ArrowSchema, ArrowError> {
    let text = |text: &str| {
        CString::new(text).map_err(|_| ArrowError::unfit(format!("the name {text:?} holds a NUL; rename it")))
    };
    let (name, format) = (text(name)?, text(format)?);
    let children = children.into_iter().map(|child| Box::into_raw(Box::new(child))).collect();
    let mut held = Box::new(HeldSchema { format, name, children });
    Ok(ArrowSchema {
        format: held.format.as_ptr(),
        name: held.name.as_ptr(),
        metadata: null(),
        flags: NULLABLE,
        n_children: held.children.len() as i64,
        children: held.children.as_mut_ptr(),
        dictionary: null_mut(),
        release: Some(release_schema),
        private_data: Box::into_raw(held).cast(),
    })
}

unsafe extern "C" fn release_array(array: *mut ArrowArray) {
    // SAFETY: the interface calls this once for each array that is not released, with that array; `array` made `private_data`
    // and the children from boxes. A child that somebody moved out is marked as released, so that dropping it does nothing.
    unsafe {
        let Some(array) = array.as_mut() else { return };
        array.release = None;
        let held = Box::from_raw(array.private_data.cast::<Held>());
        for child in &held.children {
            drop(Box::from_raw(*child));
        }
    }
}

unsafe extern "C" fn release_schema(schema: *mut ArrowSchema) {
    // SAFETY: as for arrays.
    unsafe {
        let Some(schema) = schema.as_mut() else { return };
        schema.release = None;
        let held = Box::from_raw(schema.private_data.cast::<HeldSchema>());
        for child in &held.children {
            drop(Box::from_raw(*child));
        }
    }
}
