//! Batches one after another, for others and of others.

use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null;

use underbelly_storage::{Columns, LogicalTypes};

use super::export::{export, schema_of};
use super::{ArrowArray, ArrowArrayStream, ArrowSchema, import, types};
use crate::batch::Batch;
use crate::error::ArrowError;

/// What `get_next` answers where there is no batch, as `errno` has it: an error of input or output.
const FAILED: c_int = 5;

type Batches = Box<dyn Iterator<Item = Result<Batch, String>> + Send>;

struct Held {
    types: Batch,
    batches: Batches,
    error: Option<CString>,
    is_over: bool,
}

impl Held {
    fn fail(&mut self, what: String) -> c_int {
        self.is_over = true;
        self.error = CString::new(what.replace('\0', " ")).ok();
        FAILED
    }

    fn advance(&mut self) -> Result<Option<ArrowArray>, String> {
        if self.is_over {
            return Ok(None);
        }
        let Some(batch) = self.batches.next().transpose()? else { return Ok(None) };
        let (array, schema) = export(&batch).map_err(|error| error.to_string())?;
        let expected = schema_of(&self.types).map_err(|error| error.to_string())?;
        // SAFETY: both were made here.
        let is_same = unsafe { formats(&schema) == formats(&expected) };
        is_same.then_some(Some(array)).ok_or_else(|| "a batch has other columns than the stream".to_string())
    }
}

/// Names and types of the columns of a schema of ours.
unsafe fn formats(schema: &ArrowSchema) -> Vec<(CString, CString)> {
    // SAFETY: `schema` is one that `export` made, whose children and texts are never null.
    unsafe {
        let child = |at: usize| {
            let child = &**schema.children.add(at);
            (CStr::from_ptr(child.name).to_owned(), CStr::from_ptr(child.format).to_owned())
        };
        (0..schema.n_children as usize).map(child).collect()
    }
}

/// A stream of batches, all with the columns of `types`, whose rows do not matter. It ends after an error.
///
/// # Errors
/// [`ArrowError::Unfit`] where the columns cannot be handed over.
pub fn export_stream<E: std::fmt::Display>(
    types: impl Into<Batch>,
    batches: impl Iterator<Item = Result<Batch, E>> + Send + 'static,
) -> Result<ArrowArrayStream, ArrowError> {
    let types = types.into();
    schema_of(&types)?;
    let batches = Box::new(batches.map(|batch| batch.map_err(|error| error.to_string())));
    let held = Box::new(Held { types, batches, error: None, is_over: false });
    Ok(ArrowArrayStream {
        get_schema: Some(get_schema),
        get_next: Some(get_next),
        get_last_error: Some(get_last_error),
        release: Some(release),
        private_data: Box::into_raw(held).cast(),
    })
}

/// What a stream of ours holds.
unsafe fn held<'a>(stream: *mut ArrowArrayStream) -> Option<&'a mut Held> {
    // SAFETY: the interface calls with a stream that is not released, whose `private_data` came from a box of this, from one
    // thread at a time.
    unsafe { stream.as_mut().and_then(|stream| stream.private_data.cast::<Held>().as_mut()) }
}

unsafe extern "C" fn get_schema(stream: *mut ArrowArrayStream, to: *mut ArrowSchema) -> c_int {
    // SAFETY: of the interface; `to` is room for a schema that nobody looks at before.
    unsafe {
        let Some(held) = held(stream) else { return FAILED };
        match schema_of(&held.types) {
            Ok(schema) => {
                to.write(schema);
                0
            }
            Err(error) => held.fail(error.to_string()),
        }
    }
}

unsafe extern "C" fn get_next(stream: *mut ArrowArrayStream, to: *mut ArrowArray) -> c_int {
    // SAFETY: of the interface; `to` is room for an array that nobody looks at before.
    unsafe {
        let Some(held) = held(stream) else { return FAILED };
        let next = catch_unwind(AssertUnwindSafe(|| held.advance()));
        match next.unwrap_or_else(|_| Err("what makes the batches panicked".to_string())) {
            Ok(array) => {
                held.is_over = array.is_none();
                to.write(array.unwrap_or_else(ArrowArray::empty));
                0
            }
            Err(what) => held.fail(what),
        }
    }
}

unsafe extern "C" fn get_last_error(stream: *mut ArrowArrayStream) -> *const c_char {
    // SAFETY: of the interface.
    let held = unsafe { held(stream) };
    held.and_then(|held| held.error.as_ref()).map_or(null(), |error| error.as_ptr())
}

unsafe extern "C" fn release(stream: *mut ArrowArrayStream) {
    // SAFETY: the interface calls this once for each stream that is not released; `export_stream` made `private_data`.
    unsafe {
        let Some(stream) = stream.as_mut() else { return };
        stream.release = None;
        drop(Box::from_raw(stream.private_data.cast::<Held>()));
    }
}

/// Batches of a stream that another library made: made by [`import_stream`]. It ends after an error.
pub struct Imported {
    stream: ArrowArrayStream,
    schema: ArrowSchema,
    is_over: bool,
}

/// Reads a stream of record batches that another library made.
///
/// # Errors
/// [`ArrowError::Rows`] where the stream was released, or has no schema. What is wrong with a batch comes with it.
///
/// # Safety
/// `stream` obeys the C stream interface, and what it hands over obeys the C Data Interface.
pub unsafe fn import_stream(mut stream: ArrowArrayStream) -> Result<Imported, ArrowError> {
    let mut schema = ArrowSchema::empty();
    let get_schema = stream.release.and(stream.get_schema);
    let get_schema = get_schema.ok_or_else(|| ArrowError::rows("the stream was released, or is none"))?;
    // SAFETY: the caller's word.
    let answer = unsafe { get_schema(&mut stream, &mut schema) };
    if answer != 0 {
        // SAFETY: the caller's word.
        return Err(unsafe { last_error(&mut stream, answer) });
    }
    Ok(Imported { stream, schema, is_over: false })
}

unsafe fn last_error(stream: &mut ArrowArrayStream, answer: c_int) -> ArrowError {
    // SAFETY: the word of who called `import_stream`; the text is copied before anything else is asked.
    unsafe {
        let text = stream.get_last_error.map_or(null(), |get_last_error| get_last_error(stream));
        match text.is_null() {
            true => ArrowError::rows(format!("the stream failed with {answer}")),
            false => ArrowError::rows(CStr::from_ptr(text).to_string_lossy()),
        }
    }
}

impl Imported {
    /// What the columns hold, where that is not what is stored.
    ///
    /// # Errors
    /// [`ArrowError::Rows`] where the schema contradicts itself.
    pub fn types(&self) -> Result<LogicalTypes, ArrowError> {
        // SAFETY: the word of who called `import_stream`.
        unsafe { types(&self.schema) }
    }

    fn advance(&mut self) -> Result<Option<Columns>, ArrowError> {
        let get_next = self.stream.get_next.ok_or_else(|| ArrowError::rows("the stream is none"))?;
        let mut array = ArrowArray::empty();
        // SAFETY: the word of who called `import_stream`.
        unsafe {
            let answer = get_next(&mut self.stream, &mut array);
            if answer != 0 {
                return Err(last_error(&mut self.stream, answer));
            }
            if array.is_released() {
                return Ok(None);
            }
            import(array, &self.schema).map(Some)
        }
    }
}

impl Iterator for Imported {
    type Item = Result<Columns, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.advance().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}
