//! Variables: one current value by scope and name.

mod board;
mod catalogue;
mod cell;
mod handle;
mod record;
mod registry;
mod value;

pub(crate) use board::{BoardReader, VARIABLES};
pub(crate) use catalogue::{Change, Changed, Name, Stored, Variables, check_change};
pub use handle::{Changes, Reading, SharedVar, UnloggedVar, Var, VariableKind};
pub(crate) use record::{decode, encode};
pub(crate) use registry::{Changed as Shown, Registry};
pub use value::{Scope, Variable, VariableType, VariableValue};
