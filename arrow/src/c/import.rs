//! Rows of others, which are copied.

use std::ffi::{CStr, c_char, c_void};

use underbelly_storage::{Column, Columns, LogicalType, LogicalTypes, Strings, Values};

use super::{ArrowArray, ArrowSchema};
use crate::columns::{STRUCT_DEPTH_MAX, at_places, decimals, member_path, zoned};
use crate::error::ArrowError;

/// Nanoseconds of a day and milliseconds of one.
const DAY_MS: i64 = 86_400_000;
/// Rows of one array: more are a number that lies.
const ROWS_MAX: i64 = u32::MAX as i64;
/// Columns of a record batch.
const COLUMNS_MAX: i64 = 4_096;

/// The rows of a record batch (a struct array) that another library made. Shorter integers widen, times become nanoseconds, texts
/// that stand in a dictionary become plain, a column of the type `null` is left out, and those within a struct have their paths as
/// names (`bid.price`). All is copied; the array is released.
///
/// # Errors
/// [`ArrowError::Rows`] where the array is no record batch, contradicts itself, or has a column that cannot be taken.
///
/// # Safety
/// `array` and `schema` obey the C Data Interface: pointers that are not null point to as many values as the interface says, which
/// nobody changes meanwhile.
pub unsafe fn import(array: ArrowArray, schema: &ArrowSchema) -> Result<Columns, ArrowError> {
    // SAFETY: the caller's word, for all that is below.
    unsafe {
        if array.is_released() || schema.release.is_none() {
            return Err(ArrowError::rows("the array or its schema was released"));
        }
        if text(schema.format)? != "+s" {
            return Err(ArrowError::rows("it is no record batch; hand over a struct of its columns"));
        }
        let slice = Slice::of(&array, 0, array.length)?;
        if array.null_count != 0 && buffer(&array, 0)?.is_some_and(|bits| !slice.all_set(bits)) {
            return Err(ArrowError::rows("a row is null as a whole; fill it or leave it out"));
        }
        let mut rows = Columns::new();
        add_members(&mut rows, (&array, schema), None, slice, None)?;
        Ok(rows)
    }
}

/// Adds the columns of a struct: all rows of the batch, or what stands at `path` in them. `whole` tells which rows of it are no null.
unsafe fn add_members(
    rows: &mut Columns,
    (array, schema): (&ArrowArray, &ArrowSchema),
    path: Option<&str>,
    slice: Slice,
    whole: Option<&[bool]>,
) -> Result<(), ArrowError> {
    // SAFETY: the word of who called `import`.
    unsafe {
        let count = schema.n_children;
        if count != array.n_children || !(0..=COLUMNS_MAX).contains(&count) {
            let found = array.n_children;
            return Err(ArrowError::rows(format!("{found} columns where the schema has {count}")));
        }
        if let (0, Some(path)) = (count, path) {
            let what = "is a struct of nothing, of which no column would tell; leave it out";
            return Err(ArrowError::rows(format!("column {path:?} {what}")));
        }
        for at in 0..count as usize {
            let (name, field) = member(schema, path, at)?;
            let values = child(array.children, at)?;
            let named = |what: String| ArrowError::rows(format!("column {name:?} {what}"));
            if text(field.format)? == "+s" {
                let inner = sound(values, slice.offset, slice.rows).map_err(named)?;
                let both = inner.validity(values, whole).map_err(named)?;
                add_members(rows, (values, field), Some(&name), inner, both.as_deref())?;
                continue;
            }
            if let Some(column) = column(values, field, (slice.offset, slice.rows), whole).map_err(named)? {
                rows.insert(name, column).map_err(|error| ArrowError::rows(error.to_string()))?;
            }
        }
        Ok(())
    }
}

/// The path of a member of a struct, and its schema.
unsafe fn member<'s>(
    schema: &'s ArrowSchema,
    path: Option<&str>,
    at: usize,
) -> Result<(String, &'s ArrowSchema), ArrowError> {
    // SAFETY: of the caller.
    let (field, name) = unsafe {
        let field: &ArrowSchema = child(schema.children, at)?;
        if field.release.is_none() {
            return Err(ArrowError::rows("the schema of a column was released"));
        }
        (field, text(field.name)?)
    };
    let Some(path) = path else { return Ok((name.to_string(), field)) };
    if path.matches('.').count() >= STRUCT_DEPTH_MAX {
        return Err(ArrowError::rows(format!(
            "column {path:?} is nested more than {STRUCT_DEPTH_MAX} levels deep"
        )));
    }
    let refused = |(path, what)| ArrowError::rows(format!("column {path:?} {what}"));
    Ok((member_path(path, name).map_err(refused)?, field))
}

/// What the columns of a record batch of another library hold, where that is not what [`import`] gives: decimals come as their scaled
/// integers, instants in UTC.
///
/// # Errors
/// [`ArrowError::Rows`] where the schema is of no record batch, or contradicts itself.
///
/// # Safety
/// `schema` obeys the C Data Interface.
pub unsafe fn types(schema: &ArrowSchema) -> Result<LogicalTypes, ArrowError> {
    let mut types = LogicalTypes::new();
    // SAFETY: the caller's word.
    unsafe { add_types(&mut types, schema, None)? };
    Ok(types)
}

unsafe fn add_types(
    types: &mut LogicalTypes,
    schema: &ArrowSchema,
    path: Option<&str>,
) -> Result<(), ArrowError> {
    // SAFETY: the word of who called `types`.
    unsafe {
        if schema.release.is_none() || !(0..=COLUMNS_MAX).contains(&schema.n_children) {
            return Err(ArrowError::rows("the schema was released, or is of no record batch"));
        }
        for at in 0..schema.n_children as usize {
            let (name, field) = member(schema, path, at)?;
            if text(field.format)? == "+s" {
                add_types(types, field, Some(&name))?;
                continue;
            }
            let values = field.dictionary.as_ref().unwrap_or(field);
            let format = text(values.format)?;
            let zone =
                || ["tss:", "tsm:", "tsu:", "tsn:"].iter().find_map(|unit| zoned(format.strip_prefix(unit)?));
            if let Some(logical) = scale(format).map(LogicalType::Decimal).or_else(zone) {
                types.insert(name, logical);
            }
        }
    }
    Ok(())
}

/// The scale of decimals of 128 bits that can be taken; `None` for any other type.
fn scale(format: &str) -> Option<u8> {
    let mut parts = format.strip_prefix("d:")?.split(',');
    let (_, scale, bits) = (parts.next()?, parts.next()?.parse().ok()?, parts.next().unwrap_or("128"));
    LogicalType::decimal(scale).ok().filter(|_| bits == "128" && parts.next().is_none())?.scale()
}

/// A text that C ends with a zero; empty where there is none.
unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, ArrowError> {
    if text.is_null() {
        return Ok("");
    }
    // SAFETY: it is not null, and the caller's word is that it ends.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| ArrowError::rows("a name is not UTF-8"))
}

unsafe fn child<'a, T>(children: *mut *mut T, at: usize) -> Result<&'a T, ArrowError> {
    // SAFETY: `at` is below the number of children; each pointer is looked at before it is followed.
    let child = unsafe { if children.is_null() { None } else { (*children.add(at)).as_ref() } };
    child.ok_or_else(|| ArrowError::rows("a column is missing"))
}

/// Buffer `at`; `None` where it is null.
unsafe fn buffer(array: &ArrowArray, at: usize) -> Result<Option<*const c_void>, ArrowError> {
    if array.buffers.is_null() || (at as i64) >= array.n_buffers {
        return Err(ArrowError::rows("a buffer is missing"));
    }
    // SAFETY: there are so many pointers.
    let buffer = unsafe { *array.buffers.add(at) };
    Ok((!buffer.is_null()).then_some(buffer))
}

/// Some rows of an array, behind its offset.
#[derive(Clone, Copy)]
struct Slice {
    offset: usize,
    rows: usize,
}

impl Slice {
    /// `rows` rows behind `skip` more.
    fn of(array: &ArrowArray, skip: usize, rows: i64) -> Result<Slice, ArrowError> {
        let lies = || {
            let (offset, length) = (array.offset, array.length);
            ArrowError::rows(format!("an array of {length} values from {offset} on"))
        };
        let is_sound = (0..=ROWS_MAX).contains(&array.length) && (0..=ROWS_MAX).contains(&array.offset);
        let within = i64::try_from(skip).ok().and_then(|skip| skip.checked_add(rows));
        if !is_sound || rows < 0 || within.is_none_or(|end| end > array.length) {
            return Err(lies());
        }
        Ok(Slice { offset: array.offset as usize + skip, rows: rows as usize })
    }

    /// A copy of the values in a buffer, which may be null where there are none. Of an array without rows it is not looked at: even
    /// its first offset may be missing.
    unsafe fn values<T: Copy + Default>(
        self,
        array: &ArrowArray,
        at: usize,
        more: usize,
    ) -> Result<Vec<T>, String> {
        // SAFETY: of the caller.
        let from = unsafe { buffer(array, at) }.map_err(|error| error.to_string())?;
        let count = self.rows + more;
        let mut values = vec![T::default(); count];
        if self.rows == 0 {
            return Ok(values);
        }
        let from = from.ok_or("has no values")?;
        // SAFETY: the buffer has so many values behind the offset; bytes are copied, so that it need not be aligned. Every
        // pattern of bits is a `T`, since this is called for numbers alone.
        unsafe {
            let from = from.cast::<u8>().add(self.offset * size_of::<T>());
            std::ptr::copy_nonoverlapping(from, values.as_mut_ptr().cast::<u8>(), count * size_of::<T>());
        }
        Ok(values)
    }

    /// The bits of a buffer, a bool each.
    unsafe fn bits(self, from: *const c_void) -> Vec<bool> {
        if self.rows == 0 {
            return Vec::new();
        }
        // SAFETY: the buffer has so many bits.
        let bytes = unsafe {
            let bytes = (self.offset + self.rows).div_ceil(8);
            std::slice::from_raw_parts(from.cast::<u8>(), bytes)
        };
        let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
        (self.offset..self.offset + self.rows).map(bit).collect()
    }

    /// Which rows are no null, by the array's own word and that of what it stands in.
    unsafe fn validity(
        self,
        array: &ArrowArray,
        whole: Option<&[bool]>,
    ) -> Result<Option<Vec<bool>>, String> {
        // SAFETY: of the caller.
        let own = unsafe {
            match buffer(array, 0).map_err(said)? {
                Some(bits) if array.null_count != 0 => Some(self.bits(bits)),
                _ => None,
            }
        };
        Ok(match (whole, own) {
            (Some(whole), Some(own)) => Some(own.into_iter().zip(whole).map(|(a, b)| a && *b).collect()),
            (whole, own) => own.or_else(|| whole.map(<[bool]>::to_vec)),
        })
    }

    unsafe fn all_set(self, from: *const c_void) -> bool {
        // SAFETY: of the caller.
        unsafe { self.bits(from) }.into_iter().all(|bit| bit)
    }
}

/// What an error says, for one that names the column.
fn said(error: ArrowError) -> String {
    match error {
        ArrowError::Rows { what } => what,
        other => other.to_string(),
    }
}

/// `rows` rows of an array behind `skip`, once it was not released.
fn sound(array: &ArrowArray, skip: usize, rows: usize) -> Result<Slice, String> {
    if array.is_released() {
        return Err("was released".to_string());
    }
    Slice::of(array, skip, rows as i64).map_err(said)
}

/// So many rows of an array behind others; `None` for one of the type `null`. `whole` tells which of them are no null whatever stands
/// there.
unsafe fn column(
    array: &ArrowArray,
    schema: &ArrowSchema,
    (skip, rows): (usize, usize),
    whole: Option<&[bool]>,
) -> Result<Option<Column>, String> {
    // SAFETY: the word of who called `import`.
    unsafe {
        let slice = sound(array, skip, rows)?;
        let format = text(schema.format).map_err(said)?;
        if format == "n" {
            return Ok(None);
        }
        let validity = slice.validity(array, whole)?;
        if !schema.dictionary.is_null() {
            let places = places(array, slice, format)?;
            let valid = |row: usize| validity.as_ref().is_none_or(|valid| valid.get(row) == Some(&true));
            let places: Vec<Option<usize>> = places
                .into_iter()
                .enumerate()
                .map(|(row, place)| match valid(row) {
                    false => Ok(None),
                    true => usize::try_from(place).map(Some).map_err(|_| "points before its dictionary"),
                })
                .collect::<Result<_, _>>()?;
            let (values, field) = (array.dictionary.as_ref(), schema.dictionary.as_ref());
            let (values, field) = values.zip(field).ok_or("lacks its dictionary")?;
            if field.release.is_none() {
                return Err("has a dictionary whose schema was released".to_string());
            }
            if !field.dictionary.is_null() {
                return Err("has a dictionary of dictionaries".to_string());
            }
            let count = usize::try_from(values.length).map_err(|_| "has a dictionary that lies")?;
            let values = column(values, field, (0, count), None)?.ok_or("has a dictionary of nothing")?;
            return at_places(&values, &places).map(Some);
        }
        let values = values(array, slice, format, validity.as_deref())?;
        Column::from_parts(values, validity)
            .map(Some)
            .ok_or_else(|| "has texts that are not UTF-8".to_string())
    }
}

/// Places in a dictionary, as large integers.
unsafe fn places(array: &ArrowArray, slice: Slice, format: &str) -> Result<Vec<i128>, String> {
    fn wide<T: Into<i128>>(values: Vec<T>) -> Vec<i128> {
        values.into_iter().map(Into::into).collect()
    }
    // SAFETY: of the caller.
    unsafe {
        Ok(match format {
            "c" => wide(slice.values::<i8>(array, 1, 0)?),
            "s" => wide(slice.values::<i16>(array, 1, 0)?),
            "i" => wide(slice.values::<i32>(array, 1, 0)?),
            "l" => wide(slice.values::<i64>(array, 1, 0)?),
            "C" => wide(slice.values::<u8>(array, 1, 0)?),
            "S" => wide(slice.values::<u16>(array, 1, 0)?),
            "I" => wide(slice.values::<u32>(array, 1, 0)?),
            "L" => wide(slice.values::<u64>(array, 1, 0)?),
            other => return Err(format!("points into its dictionary with {other:?}")),
        })
    }
}

unsafe fn values(
    array: &ArrowArray,
    slice: Slice,
    format: &str,
    validity: Option<&[bool]>,
) -> Result<Values, String> {
    fn wide<T: Into<U>, U>(values: Vec<T>) -> Vec<U> {
        values.into_iter().map(Into::into).collect()
    }
    // What stands under a null is of no interest.
    let valid = |row: usize| validity.is_none_or(|validity| validity.get(row) == Some(&true));
    let times = |values: Vec<i64>, scale: i64| -> Result<Values, String> {
        let scaled = values.into_iter().enumerate().map(|(row, time)| match valid(row) {
            true => time.checked_mul(scale).ok_or("has a time outside the years 1677 to 2262"),
            false => Ok(0),
        });
        Ok(Values::Timestamp(scaled.collect::<Result<_, _>>()?))
    };
    // SAFETY: of the caller.
    unsafe {
        Ok(match format {
            "b" => Values::Bool(match buffer(array, 1).map_err(|error| error.to_string())? {
                Some(bits) => slice.bits(bits),
                None if slice.rows == 0 => Vec::new(),
                None => return Err("has no values".to_string()),
            }),
            "c" => Values::I32(wide(slice.values::<i8>(array, 1, 0)?)),
            "C" => Values::I32(wide(slice.values::<u8>(array, 1, 0)?)),
            "s" => Values::I32(wide(slice.values::<i16>(array, 1, 0)?)),
            "S" => Values::I32(wide(slice.values::<u16>(array, 1, 0)?)),
            "i" => Values::I32(slice.values(array, 1, 0)?),
            "I" => Values::I64(wide(slice.values::<u32>(array, 1, 0)?)),
            "l" => Values::I64(slice.values(array, 1, 0)?),
            _ if scale(format).is_some() => {
                let numbers = slice.values::<i128>(array, 1, 0)?.into_iter().enumerate();
                Values::I64(decimals(numbers.map(|(row, number)| valid(row).then_some(number)))?)
            }
            "f" => Values::F32(slice.values(array, 1, 0)?),
            "g" => Values::F64(slice.values(array, 1, 0)?),
            "tdD" => Values::Date(slice.values(array, 1, 0)?),
            "tdm" => {
                let days = slice.values::<i64>(array, 1, 0)?.into_iter().enumerate().map(|(row, ms)| {
                    let is_day = ms.rem_euclid(DAY_MS) == 0;
                    match valid(row) {
                        true => i32::try_from(ms.div_euclid(DAY_MS)).ok().filter(|_| is_day),
                        false => Some(0),
                    }
                });
                Values::Date(days.collect::<Option<_>>().ok_or("has a date with a time of day")?)
            }
            "u" => Values::Utf8(strings::<i32>(array, slice)?),
            "U" => Values::Utf8(strings::<i64>(array, slice)?),
            "z" => Values::Bytes(strings::<i32>(array, slice)?),
            "Z" => Values::Bytes(strings::<i64>(array, slice)?),
            _ if format.starts_with("tss:") => times(slice.values(array, 1, 0)?, 1_000_000_000)?,
            _ if format.starts_with("tsm:") => times(slice.values(array, 1, 0)?, 1_000_000)?,
            _ if format.starts_with("tsu:") => times(slice.values(array, 1, 0)?, 1_000)?,
            _ if format.starts_with("tsn:") => times(slice.values(array, 1, 0)?, 1)?,
            other => {
                return Err(format!(
                    "is of the type {other:?}; use a bool, an integer of up to 64 bits, a float, a decimal of 128 bits with up to 18 digits behind the point, text, bytes, date32 or a timestamp"
                ));
            }
        })
    }
}

/// Texts behind offsets.
unsafe fn strings<O: Copy + Default + Into<i64>>(
    array: &ArrowArray,
    slice: Slice,
) -> Result<Strings, String> {
    // SAFETY: of the caller; there is one more offset than there are texts, and as many bytes as the last says.
    unsafe {
        let offsets = slice.values::<O>(array, 1, 1)?;
        let offsets: Vec<i64> = offsets.into_iter().map(Into::into).collect();
        let first = offsets.first().copied().unwrap_or(0);
        let last = offsets.last().copied().unwrap_or(0);
        if first < 0 || !offsets.is_sorted() {
            return Err("has offsets that are not in order".to_string());
        }
        let moved: Option<Vec<u32>> = offsets.iter().map(|at| u32::try_from(at - first).ok()).collect();
        let moved = moved.ok_or("has texts of more than 4 GiB")?;
        let mut bytes = vec![0u8; (last - first) as usize];
        if !bytes.is_empty() {
            let from = buffer(array, 2).map_err(|error| error.to_string())?.ok_or("has no texts")?;
            let from = from.cast::<u8>().add(first as usize);
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len());
        }
        Strings::from_parts(moved, bytes).ok_or_else(|| "has offsets that are not in order".to_string())
    }
}
