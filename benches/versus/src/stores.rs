//! Underbelly and its peers, a file each: each commits records and says on what terms.

pub mod fjall;
pub mod redb;
pub mod sled;
pub mod sqlite;
pub mod underbelly;
