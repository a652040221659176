//! Rows of series as Arrow: for other libraries in this process by the C Data Interface, for files and pipes as Arrow IPC.
//!
//! A [`Folder`] of Arrow files is read as a series is, without being imported.
//!
//! [`Series::lent_rows`](crate::Series::lent_rows) gives batches that lie where they lie in the database, as far as they are young;
//! [`export`] and [`export_stream`] hand batches over, [`import`] and [`import_stream`] take what others made. Any [`Columns`]
//! are a [`Batch`]. Decimals come as their scaled integers; [`types`], `Reader::types` and `Imported::types` tell their scale, for
//! [`Batch::append_typed`](crate::Batch::append_typed).
//!
//! ```
//! use underbelly::{Column, Columns, arrow};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rows = Columns::new().with("price", Column::from(vec![184.0, 184.5]))?;
//! let (array, schema) = arrow::export(&rows.clone().into())?;
//! // Here another library would take both. SAFETY: they are what `export` made.
//! let again = unsafe { arrow::import(array, &schema)? };
//! assert_eq!(again, rows);
//!
//! let mut file = arrow::Writer::file(Vec::new(), &rows)?;
//! file.write(rows.clone())?;
//! let file = file.finish()?;
//! for batch in arrow::Reader::new(&file[..], arrow::Limits::default())? {
//!     assert_eq!(batch?, rows);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Columns`]: crate::Columns

mod folder;

pub use folder::{Folder, FolderError, FolderOptions};
#[cfg(feature = "parquet")]
pub use underbelly_arrow::{Parquet, Stretches};

pub use crate::series::{LentBatches, LentRows};
pub use underbelly_arrow::c::{
    ArrowArray, ArrowArrayStream, ArrowSchema, Imported, export, export_stream, import, import_stream, types,
};
pub use underbelly_arrow::{ArrowError, Batch, Lend, Lent, Limits, Reader, Writer};
