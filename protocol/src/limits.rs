//! Every limit of the protocol in one place. All are checked before memory is taken.

/// Bytes of a frame's control part.
pub const CONTROL_BYTES_MAX: u32 = 16 << 20;
/// Bytes of a frame's data part.
pub const DATA_BYTES_MAX: u64 = 1 << 30;
/// Levels of nesting in a control part.
pub const DEPTH_MAX: usize = 16;
/// Columns of the rows of one cell.
pub const COLUMNS_MAX: usize = 4_096;
/// Rows of one cell.
pub const ROWS_MAX: usize = 1 << 28;
