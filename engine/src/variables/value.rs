//! What a variable is called and what it may hold.

use std::fmt;
use std::sync::Arc;

use underbelly_storage::Timestamp;

/// Whose a variable is. The same name in two scopes names two variables.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The database's.
    #[default]
    Global,
    /// That of an episode: a backtest, a training run, a session.
    Episode(Arc<str>),
    /// That of an asset.
    Asset(Arc<str>),
}

impl Scope {
    /// The scope of an episode.
    pub fn episode(name: impl Into<Arc<str>>) -> Scope {
        Scope::Episode(name.into())
    }

    /// The scope of an asset.
    pub fn asset(name: impl Into<Arc<str>>) -> Scope {
        Scope::Asset(name.into())
    }

    /// The name of the episode or asset.
    pub fn name(&self) -> Option<&str> {
        match self {
            Scope::Global => None,
            Scope::Episode(name) | Scope::Asset(name) => Some(name),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Global => f.write_str("global"),
            Scope::Episode(name) => write!(f, "episode:{name}"),
            Scope::Asset(name) => write!(f, "asset:{name}"),
        }
    }
}

/// The value of a variable. Floats keep their bits, those of NaN too.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum VariableValue {
    /// True or false.
    Bool(bool),
    /// An integer.
    I64(i64),
    /// A float.
    F64(f64),
    /// Floats; their number is fixed once it was set.
    Array(Arc<[f64]>),
    /// Bytes, at most [`VARIABLE_BYTES_MAX`](crate::limits::VARIABLE_BYTES_MAX).
    Bytes(Arc<[u8]>),
}

/// What a variable holds as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VariableType {
    /// True or false.
    Bool,
    /// An integer.
    I64,
    /// A float.
    F64,
    /// So many floats.
    Array(usize),
    /// Bytes, of any number.
    Bytes,
}

impl fmt::Display for VariableType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VariableType::Bool => f.write_str("bool"),
            VariableType::I64 => f.write_str("i64"),
            VariableType::F64 => f.write_str("f64"),
            VariableType::Array(length) => write!(f, "f64[{length}]"),
            VariableType::Bytes => f.write_str("bytes"),
        }
    }
}

impl VariableValue {
    /// What it is.
    pub fn variable_type(&self) -> VariableType {
        match self {
            VariableValue::Bool(_) => VariableType::Bool,
            VariableValue::I64(_) => VariableType::I64,
            VariableValue::F64(_) => VariableType::F64,
            VariableValue::Array(values) => VariableType::Array(values.len()),
            VariableValue::Bytes(_) => VariableType::Bytes,
        }
    }

    /// Bytes of the value.
    pub(crate) fn byte_size(&self) -> usize {
        match self {
            VariableValue::Bool(_) => 1,
            VariableValue::I64(_) | VariableValue::F64(_) => 8,
            VariableValue::Array(values) => values.len() * 8,
            VariableValue::Bytes(bytes) => bytes.len(),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for VariableValue {
            fn from(value: $from) -> VariableValue {
                VariableValue::$variant(value.into())
            }
        }
    )*};
}

value_from!(
    bool => Bool,
    i64 => I64,
    i32 => I64,
    f64 => F64,
    Vec<f64> => Array,
    &[f64] => Array,
    Vec<u8> => Bytes,
    &[u8] => Bytes,
);

/// A variable as a snapshot shows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Variable {
    /// Whose it is.
    pub scope: Scope,
    /// Its name in the scope.
    pub name: Arc<str>,
    /// Its value.
    pub value: VariableValue,
    /// The commit that set it last.
    pub seq: u64,
    /// The time of that commit.
    pub time: Timestamp,
}
