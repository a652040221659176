//! `ubctl var`: one current value by scope and name.

mod watch;

pub(crate) use self::watch::sparkline;

use std::path::Path;

use clap::{Subcommand, ValueEnum};
use underbelly::{Batch, CURSOR_PREFIX, CommitError, Database, Scope, Variable, VariableType, VariableValue};

use crate::error::Failed;
use crate::output::{Facts, Field, Format, FormatArg, Listing};
use crate::write;

/// One current value by scope and name.
#[derive(Subcommand, Debug)]
pub(crate) enum Var {
    /// Shows the value of a variable, and when it was set
    Get {
        /// The variable
        name: String,
        #[command(flatten)]
        scope: ScopeArg,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Sets a variable
    ///
    /// Without --type, true and false are a bool, whole numbers an i64, other numbers a float, numbers within brackets
    /// ([1.5,2]) an array of floats, and everything else is text, kept as bytes. A variable that is there keeps its
    /// type: 3 sets a variable of floats to 3.0.
    Set {
        /// The variable
        name: String,
        /// The value
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// What the value is
        #[arg(long = "type", value_enum, value_name = "TYPE")]
        kind: Option<Kind>,
        /// Moves a cursor of `ubctl tail --cursor`, too: the last transaction that was consumed
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        scope: ScopeArg,
    },
    /// Lists the variables by scope and name
    Ls {
        /// Only variables of this scope: global, episode:NAME or asset:NAME
        #[arg(long, value_parser = parse_scope, value_name = "SCOPE")]
        scope: Option<Scope>,
        #[command(flatten)]
        format: FormatArg,
    },
    Watch(watch::Watch),
    /// Removes a variable
    Rm {
        /// The variable
        name: String,
        /// Removes a cursor of `ubctl tail --cursor`, too: what it consumed is told again
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        scope: ScopeArg,
    },
}

/// Whose a variable is.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ScopeArg {
    /// Whose the variable is: global, episode:NAME or asset:NAME
    #[arg(long, value_parser = parse_scope, default_value = "global", value_name = "SCOPE")]
    scope: Scope,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// true or false.
    Bool,
    /// A whole number.
    I64,
    /// A float; NaN and inf too.
    F64,
    /// Floats within brackets, joined by commas.
    Array,
    /// Text, as its bytes.
    Text,
    /// Bytes as hexadecimal digits.
    Hex,
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    match text.split_once(':') {
        None if text == "global" => Ok(Scope::Global),
        Some(("episode", name)) if !name.is_empty() => Ok(Scope::episode(name)),
        Some(("asset", name)) if !name.is_empty() => Ok(Scope::asset(name)),
        _ => Err("write global, episode:NAME or asset:NAME".to_string()),
    }
}

fn floats(text: &str) -> Option<Vec<f64>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    match inner {
        "" => Some(Vec::new()),
        inner => inner.split(',').map(|text| number(text.trim())).collect(),
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_hex = rest.is_empty() && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| pairs.iter().map(byte).collect())?
}

impl Kind {
    /// The value that a text is, if it can be one.
    fn value(self, text: &str) -> Option<VariableValue> {
        match self {
            Kind::Bool => text.parse::<bool>().ok().map(Into::into),
            Kind::I64 => text.parse::<i64>().ok().map(Into::into),
            Kind::F64 => number(text).map(Into::into),
            Kind::Array => floats(text).map(Into::into),
            Kind::Text => Some(text.as_bytes().into()),
            Kind::Hex => hex(text).map(Into::into),
        }
    }

    /// What values of a variable are to be written as.
    fn of(known: VariableType) -> Kind {
        match known {
            VariableType::Bool => Kind::Bool,
            VariableType::I64 => Kind::I64,
            VariableType::F64 => Kind::F64,
            VariableType::Array(_) => Kind::Array,
            _ => Kind::Text,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }
}

/// A number of eight bytes: not one that is another when it is rounded to whole numbers, or too large for it.
fn number(text: &str) -> Option<f64> {
    let value = text.parse::<f64>().ok()?;
    let is_digits = text.bytes().any(|byte| byte.is_ascii_digit());
    let whole = text.parse::<i128>().ok();
    let is_kept = whole.is_none_or(|whole| value as i128 == whole);
    (is_kept && !(is_digits && value.is_infinite())).then_some(value)
}

/// The value of a text: of the type that is asked for, else that of the variable where it fits, else the first that it
/// can be.
fn value(text: &str, asked: Option<Kind>, known: Option<VariableType>) -> Result<VariableValue, Failed> {
    if let Some(kind) = asked {
        let unfit = || Failed::Usage(format!("{text:?} is no {}; give another value or --type", kind.name()));
        return kind.value(text).ok_or_else(unfit);
    }
    let known = known.map(Kind::of).and_then(|kind| kind.value(text));
    let guessed =
        || [Kind::Bool, Kind::I64, Kind::F64, Kind::Array].into_iter().find_map(|kind| kind.value(text));
    Ok(known.or_else(guessed).unwrap_or_else(|| text.as_bytes().into()))
}

/// A value as text: bytes as they are where they are text, else as hexadecimal digits.
fn field(value: &VariableValue) -> Field<'static> {
    match value {
        VariableValue::Bool(value) => Field::Bool(*value),
        VariableValue::I64(value) => Field::I64(*value),
        VariableValue::F64(value) => Field::F64(*value),
        VariableValue::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
            Field::text(format!("[{}]", values.join(",")))
        }
        VariableValue::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(char::is_control) => Field::text(text),
            _ => Field::text(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        },
        _ => Field::Null,
    }
}

impl Var {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Failed> {
        match self {
            Var::Get { name, scope, format } => {
                let found = Database::open_read_only(dir)?.variable(&scope.scope, name)?;
                let Variable { value, seq, time, .. } = found.ok_or_else(|| not_found(&scope.scope, name))?;
                let mut facts = Facts::default();
                facts.add("value", field(&value)).add("type", value.variable_type().to_string());
                facts.add("seq", seq).add("time", Field::text(time));
                facts.print(format.format)
            }
            Var::Set { name, value: text, kind, force, scope } => {
                keep_cursor(name, &scope.scope, *force)?;
                let db = write(dir)?;
                let before = db.variable(&scope.scope, name)?;
                let value = value(text, *kind, before.map(|before| before.value.variable_type()))?;
                let mut facts = Facts::default();
                facts.add("type", value.variable_type().to_string());
                let mut batch = Batch::new();
                batch.set_variable(scope.scope.clone(), name, value);
                facts.add("seq", db.commit(batch)?.seq);
                facts.print(Format::Table)
            }
            Var::Watch(watch) => watch.run(dir),
            Var::Ls { scope, format } => list(dir, scope.as_ref(), format.format),
            Var::Rm { name, force, scope } => {
                keep_cursor(name, &scope.scope, *force)?;
                let db = write(dir)?;
                let commit = db.transact(|tx| {
                    if tx.variable(&scope.scope, name)?.is_none() {
                        let reason = not_found(&scope.scope, name).to_string();
                        return Err(CommitError::Abandoned { reason });
                    }
                    tx.remove_variable(scope.scope.clone(), name);
                    Ok(())
                });
                match commit {
                    Err(CommitError::Abandoned { .. }) => Err(not_found(&scope.scope, name)),
                    done => Ok(done?),
                }
            }
        }
    }
}

/// Refuses to change what consumers go by, unless that is meant.
fn keep_cursor(name: &str, scope: &Scope, force: bool) -> Result<(), Failed> {
    match name.strip_prefix(CURSOR_PREFIX).filter(|_| *scope == Scope::Global && !force) {
        Some(cursor) => Err(Failed::Usage(format!(
            "{name} is the cursor of `ubctl tail --cursor {cursor}`, and who consumes under that name goes by it; \
             say --force to move or remove it all the same"
        ))),
        None => Ok(()),
    }
}

fn not_found(scope: &Scope, name: &str) -> Failed {
    Failed::NotFound(format!("no variable of scope {scope} is named {name:?}; `ubctl var ls` lists them"))
}

fn list(dir: &Path, scope: Option<&Scope>, format: Format) -> Result<(), Failed> {
    let all = Database::open_read_only(dir)?.variables();
    let mut listing = Listing::begin(format, ["scope", "name", "type", "value", "seq", "time"])?;
    for variable in all.iter().filter(|variable| scope.is_none_or(|scope| *scope == variable.scope)) {
        listing.row([
            Field::text(&variable.scope),
            (*variable.name).into(),
            Field::text(variable.value.variable_type()),
            field(&variable.value),
            variable.seq.into(),
            Field::text(variable.time),
        ])?;
    }
    listing.end(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_what_they_look_like_or_what_the_variable_is() {
        let guessed = |text| value(text, None, None).unwrap();
        assert_eq!(guessed("true"), true.into());
        assert_eq!(guessed("-3"), (-3i64).into());
        assert_eq!(guessed("3.0"), 3.0.into());
        assert_eq!(guessed("[1, 2.5]"), vec![1.0, 2.5].into());
        assert_eq!(guessed("[]"), Vec::<f64>::new().into());
        assert_eq!(guessed("IBM"), "IBM".as_bytes().into());
        assert_eq!(value("3", None, Some(VariableType::F64)).unwrap(), 3.0.into());
        assert_eq!(value("3", None, Some(VariableType::Bytes)).unwrap(), "3".as_bytes().into());
        // What does not fit is told by the engine, which names both types.
        assert_eq!(value("x", None, Some(VariableType::F64)).unwrap(), "x".as_bytes().into());
        assert_eq!(value("3", Some(Kind::Text), Some(VariableType::F64)).unwrap(), "3".as_bytes().into());
        assert_eq!(value("0aFF", Some(Kind::Hex), None).unwrap(), vec![10u8, 255].into());
        for (text, kind) in
            [("1.5", Kind::I64), ("0a1", Kind::Hex), ("\u{e9}+", Kind::Hex), ("1", Kind::Array)]
        {
            assert!(value(text, Some(kind), None).is_err(), "{text}");
        }
    }
}
