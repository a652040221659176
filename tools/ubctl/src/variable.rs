//! `ubctl var`: one current value by scope and name.

mod watch;

pub(crate) use self::watch::sparkline;

use std::path::Path;

use clap::{Subcommand, ValueEnum};
use underbelly::{Batch, CURSOR_PREFIX, Database, Reader, Scope, Timestamp, VariableType, VariableValue};

use crate::error::Failed;
use crate::output::{Facts, Field, Format, FormatArg, Listing};
use crate::{stderr, write};

/// One current value by scope and name.
#[derive(Subcommand, Debug)]
pub(crate) enum Var {
    /// Shows the value of a variable, and when it was set
    ///
    /// One that is in no log is shown where none of the log has the name, as the process that writes shows it now.
    Get {
        /// The variable
        name: String,
        /// The one that is in no log, also where one of the log has the same name
        #[arg(long)]
        unlogged: bool,
        #[command(flatten)]
        scope: ScopeArg,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Sets a variable
    ///
    /// Without --type, true and false are a bool, whole numbers an i64, other numbers a float, numbers within brackets
    /// ([1.5,2]) an array of floats, and everything else is text, kept as bytes; but what looks like one of those and is
    /// none, such as `[1,x]`, True or 1e400, is refused unless --type says text. A variable that is there keeps its type: 3
    /// sets a variable of floats to 3.0.
    Set {
        /// The variable
        name: String,
        /// The value
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// What the value is
        #[arg(long = "type", value_enum, value_name = "TYPE")]
        kind: Option<Kind>,
        /// Only where the variable has this value until then
        #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
        expect: Option<String>,
        /// Only where there is no such variable until then
        #[arg(long, conflicts_with = "expect")]
        absent: bool,
        /// Moves a cursor of `ubctl tail --cursor`, too: the last transaction that was consumed
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        scope: ScopeArg,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Lists the variables by scope and name
    ///
    /// Those in no log, which the process that writes shows now, are among them. Bytes are shown as text where they are
    /// text, else as hexadecimal digits: their encoding is what `var set --type` takes.
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
        #[command(flatten)]
        format: FormatArg,
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

/// What a text looks like to people, be it one or not: an array, a boolean or a number.
fn looks_like(text: &str) -> Option<&'static str> {
    let text = text.trim();
    if text.starts_with('[') || text.ends_with(']') {
        return Some("an array of floats");
    }
    if ["true", "false"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Some("a boolean");
    }
    let digits = text.trim_start_matches(['+', '-']);
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    if hex.is_some_and(|hex| !hex.is_empty() && hex.bytes().all(|digit| digit.is_ascii_hexdigit())) {
        return Some("a number");
    }
    let (digits, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let is_whole = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // Of several points none is one of decimals: 10.0.0.1 is text.
    let is_number = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b',' | b'_'))
        && digits.bytes().filter(|byte| *byte == b'.').count() <= 1;
    (is_number && is_whole(exponent)).then_some("a number")
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
    match (known.or_else(guessed), looks_like(text)) {
        (Some(value), _) => Ok(value),
        (None, Some(what)) => Err(Failed::Usage(format!(
            "{text:?} looks like {what} and cannot be kept as one; correct it, or say --type text if it is text"
        ))),
        (None, None) => Ok(text.as_bytes().into()),
    }
}

/// Whether two values are the same to the bit: what is no number is itself.
fn is_same(a: &VariableValue, b: &VariableValue) -> bool {
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    match (a, b) {
        (VariableValue::F64(a), VariableValue::F64(b)) => a.to_bits() == b.to_bits(),
        (VariableValue::Array(a), VariableValue::Array(b)) => bits(a) == bits(b),
        _ => a == b,
    }
}

/// Whether a value is what a text says that was shown of it.
fn is_shown_as(value: &VariableValue, text: &str) -> bool {
    let kind = match value {
        VariableValue::Bytes(bytes) if as_text(bytes).is_none() => Kind::Hex,
        value => Kind::of(value.variable_type()),
    };
    kind.value(text).is_some_and(|said| is_same(value, &said))
}

/// Bytes as text, where they are such.
fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

/// A value as text: bytes as they are where they are text, else as hexadecimal digits.
fn field(value: &VariableValue) -> Field<'static> {
    match value {
        VariableValue::Bool(value) => Field::Bool(*value),
        VariableValue::I64(value) => Field::I64(*value),
        VariableValue::F64(value) => Field::F64(*value),
        VariableValue::Array(values) => Field::Array(values.to_vec()),
        VariableValue::Bytes(bytes) => match as_text(bytes) {
            Some(text) => Field::text(text),
            None => Field::text(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        },
        _ => Field::Null,
    }
}

/// How bytes are shown, as `var set --type` names it.
fn encoding(value: &VariableValue) -> Field<'static> {
    match value {
        VariableValue::Bytes(bytes) => {
            Field::Text((if as_text(bytes).is_some() { Kind::Text } else { Kind::Hex }).name().into())
        }
        _ => Field::Null,
    }
}

/// A variable of the log, or one that is in none.
struct Shown {
    scope: Scope,
    name: String,
    value: VariableValue,
    /// The transaction that set it and when, where it is in the log.
    set: Option<(u64, Timestamp)>,
}

/// Says so where nobody sets any more what is in no log.
fn note_writer(reader: &Reader, dir: &Path) -> Result<(), Failed> {
    if reader.status()?.writer.is_none() {
        let dir = dir.display();
        stderr::line(&format!("no process writes {dir} now: values in no log are what was shown there last"));
    }
    Ok(())
}

/// All variables by scope and name; of two of the same name the one of the log is first.
fn shown(reader: &Reader) -> Vec<Shown> {
    let mut all: Vec<Shown> = reader
        .variables()
        .into_iter()
        .map(|variable| Shown {
            name: variable.name.to_string(),
            set: Some((variable.seq, variable.time)),
            scope: variable.scope,
            value: variable.value,
        })
        .collect();
    let unlogged = reader.unlogged_variables().into_iter();
    all.extend(unlogged.map(|(scope, name, value)| Shown {
        scope,
        name: name.to_string(),
        value,
        set: None,
    }));
    all.sort_by(|a, b| (&a.scope, &a.name, a.set.is_none()).cmp(&(&b.scope, &b.name, b.set.is_none())));
    all
}

impl Var {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Failed> {
        match self {
            Var::Get { name, unlogged, scope, format } => {
                let reader = Database::open_read_only(dir)?;
                if get(&reader, &scope.scope, name, *unlogged, format.format)? {
                    note_writer(&reader, dir)?;
                }
                Ok(())
            }
            Var::Set { name, value: text, kind, expect, absent, force, scope, format } => {
                keep_cursor(name, &scope.scope, *force)?;
                // Nobody else writes.
                let db = write(dir)?;
                let before = db.variable(&scope.scope, name)?.map(|before| before.value);
                let known = before.as_ref().map(VariableValue::variable_type);
                let is_as_expected = match expect {
                    Some(text) => before.as_ref().is_some_and(|before| is_shown_as(before, text)),
                    None => !absent || before.is_none(),
                };
                if !is_as_expected {
                    return Err(Failed::Moved(format!(
                        "variable {name:?} of scope {} is {}, not {}; nothing was set: read it again and decide anew",
                        scope.scope,
                        before
                            .as_ref()
                            .map_or("not there".to_string(), |before| field(before).plain().into_owned()),
                        expect.as_deref().unwrap_or("absent")
                    )));
                }
                let value = value(text, *kind, known)?;
                let mut facts = Facts::default();
                facts.add("type", value.variable_type().to_string());
                let mut batch = Batch::new();
                batch.set_variable(scope.scope.clone(), name, value);
                facts.add("seq", db.commit(batch)?.seq);
                facts.print(format.format)
            }
            Var::Watch(watch) => watch.run(dir),
            Var::Ls { scope, format } => list(dir, scope.as_ref(), format.format),
            Var::Rm { name, force, scope, format } => {
                keep_cursor(name, &scope.scope, *force)?;
                // Nobody else writes.
                let db = write(dir)?;
                db.variable(&scope.scope, name)?.ok_or_else(|| not_found(&scope.scope, name))?;
                let mut batch = Batch::new();
                batch.remove_variable(scope.scope.clone(), name);
                let mut facts = Facts::default();
                facts.add("seq", db.commit(batch)?.seq);
                facts.print(format.format)
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

/// Shows a variable; answers whether it is in no log.
fn get(reader: &Reader, scope: &Scope, name: &str, unlogged: bool, format: Format) -> Result<bool, Failed> {
    // Also says what is wrong with a name that no variable may have.
    let logged = reader.variable(scope, name)?.filter(|_| !unlogged);
    let (value, set) = match logged {
        Some(variable) => (variable.value, Some((variable.seq, variable.time))),
        None => {
            let all = reader.unlogged_variables().into_iter();
            let found = all.into_iter().find(|(of, there, _)| of == scope && **there == *name);
            (found.ok_or_else(|| not_found(scope, name))?.2, None)
        }
    };
    let mut facts = Facts::default();
    facts.add("value", field(&value)).add("type", value.variable_type().to_string());
    facts.add("encoding", encoding(&value)).add("logged", set.is_some());
    facts.add("seq", set.map(|(seq, _)| seq)).add("time", set.map(|(_, time)| Field::text(time)));
    facts.print(format)?;
    Ok(set.is_none())
}

fn list(dir: &Path, scope: Option<&Scope>, format: Format) -> Result<(), Failed> {
    let reader = Database::open_read_only(dir)?;
    let all = shown(&reader);
    let columns = ["scope", "name", "type", "value", "encoding", "logged", "seq", "time"];
    let mut listing = Listing::begin(format, columns)?;
    for variable in all.iter().filter(|variable| scope.is_none_or(|scope| *scope == variable.scope)) {
        listing.row([
            Field::text(&variable.scope),
            (*variable.name).into(),
            Field::text(variable.value.variable_type()),
            field(&variable.value),
            encoding(&variable.value),
            variable.set.is_some().into(),
            variable.set.map(|(seq, _)| seq).into(),
            variable.set.map(|(_, time)| Field::text(time)).into(),
        ])?;
    }
    listing.end(None)?;
    match all.iter().any(|variable| variable.set.is_none()) {
        true => note_writer(&reader, dir),
        false => Ok(()),
    }
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

    #[test]
    fn what_looks_like_another_value_is_text_only_where_that_is_said() {
        for (text, what) in [
            ("[1,2,x]", "an array"),
            ("[1,2", "an array"),
            ("1,2]", "an array"),
            ("[1,1e400]", "an array"),
            ("True", "a boolean"),
            (" false", "a boolean"),
            ("1e400", "a number"),
            ("-1e+400", "a number"),
            ("99999999999999999999", "a number"),
            ("1,5", "a number"),
            ("1_000.5", "a number"),
            ("0x1F", "a number"),
            (" 3", "a number"),
            ("--3", "a number"),
        ] {
            let told = value(text, None, None).unwrap_err().to_string();
            assert!(told.contains(what) && told.contains("--type text"), "{text}: {told}");
            assert_eq!(value(text, Some(Kind::Text), None).unwrap(), text.as_bytes().into());
            assert_eq!(value(text, None, Some(VariableType::Bytes)).unwrap(), text.as_bytes().into());
        }
        for text in
            ["", "-", ".", "e5", "1.2.3", "10.0.0.1", "2014-06-02", "5GB", "0x", "truely", "e", "1e", "a[0"]
        {
            assert_eq!(value(text, None, None).unwrap(), text.as_bytes().into(), "{text}");
        }
    }
}
