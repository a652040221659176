//! The [C Data Interface](https://arrow.apache.org/docs/format/CDataInterface.html) and its
//! [streams](https://arrow.apache.org/docs/format/CStreamInterface.html): rows for, and of, other libraries in this process.
//!
//! One of the modules that may use unsafe code. Contract:
//! - *Export.* A pointer that is handed out points into an owner that is held by the structure it stands in, children included, or
//!   into memory of that structure; both are let go by `release` alone. An owner is read through shared references
//!   ([`Lend`](crate::Lend)), so what it lends neither moves nor changes while it is held; slices are cut to the rows before their
//!   pointers are taken.
//! - *Import.* [`import`] is unsafe: nobody can see whether a pointer of somebody else points where it says. Everything else is
//!   checked: structures that were released, null pointers, numbers below zero, counts of buffers and children, offsets in order, UTF-8,
//!   places within dictionaries. Numbers are copied byte by byte, so that no alignment is asked for.
//! - A panic of what is behind a stream is an error of that stream, and never crosses to the other side.

#![allow(unsafe_code)]

mod export;
mod import;
mod stream;

use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

pub use export::export;
pub use import::{import, types};
pub use stream::{Imported, export_stream, import_stream};

/// An array, as the C Data Interface lays it out. Dropping it releases it.
///
/// It is handed over by writing it to where the other side wants it, `unsafe { place.cast::<ArrowArray>().write(array) }`, and
/// received with [`ArrowArray::empty`] and a pointer to that.
#[repr(C)]
#[derive(Debug)]
pub struct ArrowArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut ArrowArray,
    dictionary: *mut ArrowArray,
    release: Option<unsafe extern "C" fn(*mut ArrowArray)>,
    private_data: *mut c_void,
}

/// The name and type of an array, as the C Data Interface lays them out. Dropping it releases it.
#[repr(C)]
#[derive(Debug)]
pub struct ArrowSchema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *mut *mut ArrowSchema,
    dictionary: *mut ArrowSchema,
    release: Option<unsafe extern "C" fn(*mut ArrowSchema)>,
    private_data: *mut c_void,
}

/// Arrays of one type, one after another, as the C stream interface lays them out. Dropping it releases it.
#[repr(C)]
#[derive(Debug)]
pub struct ArrowArrayStream {
    get_schema: Option<unsafe extern "C" fn(*mut ArrowArrayStream, *mut ArrowSchema) -> c_int>,
    get_next: Option<unsafe extern "C" fn(*mut ArrowArrayStream, *mut ArrowArray) -> c_int>,
    get_last_error: Option<unsafe extern "C" fn(*mut ArrowArrayStream) -> *const c_char>,
    release: Option<unsafe extern "C" fn(*mut ArrowArrayStream)>,
    private_data: *mut c_void,
}

// SAFETY: the interface lets a structure be moved to, and released on, any thread; what ours hold is `Send`.
unsafe impl Send for ArrowArray {}
// SAFETY: as above.
unsafe impl Send for ArrowSchema {}
// SAFETY: as above; its functions are called through `&mut` alone.
unsafe impl Send for ArrowArrayStream {}

impl ArrowArray {
    /// A place to receive an array in.
    pub fn empty() -> ArrowArray {
        ArrowArray {
            length: 0,
            null_count: 0,
            offset: 0,
            n_buffers: 0,
            n_children: 0,
            buffers: null_mut(),
            children: null_mut(),
            dictionary: null_mut(),
            release: None,
            private_data: null_mut(),
        }
    }

    /// Whether it was released, or nothing was received.
    pub fn is_released(&self) -> bool {
        self.release.is_none()
    }
}

impl ArrowSchema {
    /// A place to receive a schema in.
    pub fn empty() -> ArrowSchema {
        ArrowSchema {
            format: std::ptr::null(),
            name: std::ptr::null(),
            metadata: std::ptr::null(),
            flags: 0,
            n_children: 0,
            children: null_mut(),
            dictionary: null_mut(),
            release: None,
            private_data: null_mut(),
        }
    }
}

impl ArrowArrayStream {
    /// A place to receive a stream in.
    pub fn empty() -> ArrowArrayStream {
        ArrowArrayStream {
            get_schema: None,
            get_next: None,
            get_last_error: None,
            release: None,
            private_data: null_mut(),
        }
    }
}

impl Drop for ArrowArray {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: it was not released, and whoever made it set `release` for this.
            unsafe { release(self) }
        }
    }
}

impl Drop for ArrowSchema {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: it was not released, and whoever made it set `release` for this.
            unsafe { release(self) }
        }
    }
}

impl Drop for ArrowArrayStream {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: it was not released, and whoever made it set `release` for this.
            unsafe { release(self) }
        }
    }
}

#[cfg(test)]
mod tests;
