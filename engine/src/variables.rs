//! Variables: one current value by scope and name.

mod catalogue;
mod record;
mod value;

pub(crate) use catalogue::{Change, Changed, Name, Stored, Variables, check_change};
pub(crate) use record::{decode, encode};
pub use value::{Scope, Variable, VariableType, VariableValue};
