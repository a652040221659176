//! Slots: named datasets of cells with a state.

pub(crate) mod content;

pub use content::decode as decode_content;
