//! Which models a query wants: conditions on attributes at any depth.
//!
//! A path names an attribute: steps into nested dicts, joined by dots (`training.window`). A list stands for each of
//! its elements as well as for itself. `\.` is a dot and `\\` a backslash within a step.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use super::metadata::OUTSIDE;
use super::{MetaValue, Metadata, MetadataError};
use crate::limits::METADATA_DEPTH_MAX;

/// Why a query on attributes was refused.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum WhereError {
    /// A path that names nothing.
    #[error(
        "path {path:?} of a condition cannot be used: {what}; write steps joined by dots, as training.window"
    )]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A value that no model has.
    #[error(transparent)]
    Value(#[from] MetadataError),
    /// A range without an end.
    #[error("the range for {path:?} has neither a start nor an end; give one, or ask whether it exists")]
    Unbounded {
        /// The path.
        path: String,
    },
    /// A range of what has no order.
    #[error("the range for {path:?} goes by {kind}; give numbers, text or timestamps")]
    Unordered {
        /// The path.
        path: String,
        /// The kind of value.
        kind: &'static str,
    },
    /// Too many alternatives.
    #[error("the conditions come to more than {ALTERNATIVES_MAX} alternatives; ask in several queries")]
    Alternatives,
    /// A range from one kind of value to another.
    #[error("the range for {path:?} goes from {from} to {to}; give both ends of one kind")]
    Mixed {
        /// The path.
        path: String,
        /// The kind of its start.
        from: &'static str,
        /// The kind of its end.
        to: &'static str,
    },
}

/// Alternatives of one query, at most.
const ALTERNATIVES_MAX: usize = 64;

/// Conditions on the metadata of models, all of which must hold, or one of several such sets. Without one, every model is
/// wanted.
///
/// Values are compared with their types, as in [`Metadata::id`]: `true`, `1`, `1.0` and `"1"` are four different
/// values. In ranges, integers and floats are numbers alike. The entry `timestamp` is found as an instant, too, where a number
/// of seconds was given.
///
/// ```
/// use underbelly::Where;
/// let wanted = Where::equals("type", "smile")
///     .and(Where::equals("training.desk", "fx"))
///     .and(Where::between("training.rate", 0.001..0.1))
///     .and(Where::exists("approved"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Where {
    tests: Vec<(String, Test)>,
    /// Sets of conditions one of which may hold instead.
    others: Vec<Vec<(String, Test)>>,
}

/// What is asked of the values at a path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    Equals(MetaValue),
    Between(Bound<MetaValue>, Bound<MetaValue>),
    Exists,
}

impl Where {
    /// No condition: every model.
    pub fn any() -> Where {
        Where::default()
    }

    /// Models with this value at the path.
    pub fn equals(path: &str, value: impl Into<MetaValue>) -> Where {
        Where::of(path, Test::Equals(value.into()))
    }

    /// Models with a value in this range at the path: numbers, text by its bytes, or timestamps.
    pub fn between<V: Into<MetaValue> + Clone>(path: &str, range: impl RangeBounds<V>) -> Where {
        let bound = |bound: Bound<&V>| bound.map(|value| value.clone().into());
        let test = Test::Between(bound(range.start_bound()), bound(range.end_bound()));
        Where::of(path, test)
    }

    /// Models with anything at the path, be it null.
    pub fn exists(path: &str) -> Where {
        Where::of(path, Test::Exists)
    }

    /// Models with text at the path that begins with this.
    pub fn prefix(path: &str, text: &str) -> Where {
        let from = Bound::Included(MetaValue::from(text));
        let to = after_all(text).map_or(Bound::Unbounded, |next| Bound::Excluded(MetaValue::from(next)));
        Where::of(path, Test::Between(from, to))
    }

    fn of(path: &str, test: Test) -> Where {
        Where { tests: vec![(path.to_string(), test)], others: Vec::new() }
    }

    fn sets(self) -> Vec<Vec<(String, Test)>> {
        [self.tests].into_iter().chain(self.others).collect()
    }

    fn of_sets(mut sets: Vec<Vec<(String, Test)>>) -> Where {
        let others = if sets.is_empty() { Vec::new() } else { sets.split_off(1) };
        Where { tests: sets.pop().unwrap_or_default(), others }
    }

    /// These conditions and those.
    pub fn and(self, other: Where) -> Where {
        let (ours, theirs) = (self.sets(), other.sets());
        let both = ours.iter().flat_map(|ours| theirs.iter().map(move |theirs| [&ours[..], theirs].concat()));
        // What is too much is refused when it is asked for.
        Where::of_sets(both.take(ALTERNATIVES_MAX + 1).collect())
    }

    /// These conditions or those. [`Where::and`] behind it adds to both.
    pub fn or(self, other: Where) -> Where {
        Where::of_sets(self.sets().into_iter().chain(other.sets()).take(ALTERNATIVES_MAX + 1).collect())
    }

    /// The sets of conditions, checked.
    pub(crate) fn alternatives(&self) -> Result<Vec<Vec<Condition>>, WhereError> {
        if self.others.len() >= ALTERNATIVES_MAX {
            return Err(WhereError::Alternatives);
        }
        let condition = |(path, test): &(String, Test)| {
            check(path, test)?;
            Ok(Condition { steps: steps(path)?, test: test.clone() })
        };
        let all = [&self.tests].into_iter().chain(&self.others);
        all.map(|set| set.iter().map(condition).collect()).collect()
    }

    /// The conditions of a query without alternatives.
    #[cfg(test)]
    pub(crate) fn conditions(&self) -> Result<Vec<Condition>, WhereError> {
        self.alternatives().map(|mut all| all.swap_remove(0))
    }
}

/// The first text behind all that begin with this one; `None` where there is none.
fn after_all(text: &str) -> Option<String> {
    let mut letters: Vec<char> = text.chars().collect();
    while let Some(last) = letters.pop() {
        // Between the two ranges of letters are numbers that are none.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            letters.push(next);
            return Some(letters.into_iter().collect());
        }
    }
    None
}

/// A condition whose path and values were checked.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub steps: Vec<String>,
    pub test: Test,
}

impl Condition {
    /// Whether it is about what every model has.
    pub(crate) fn is_about_type(&self) -> bool {
        matches!(&*self.steps, [step] if step == "type")
    }

    /// Whether it is about what all versions of a model have.
    pub(crate) fn is_about_identity(&self) -> bool {
        self.steps.first().is_some_and(|step| !OUTSIDE.contains(&step.as_str()))
    }

    /// Whether a value at the path passes.
    pub(crate) fn holds(&self, metadata: &Metadata) -> bool {
        let Some((first, rest)) = self.steps.split_first() else { return false };
        let is_found = metadata.entries().get(first).is_some_and(|value| self.reaches(value, rest));
        let instant = metadata.timestamp_of_number().filter(|_| first == "timestamp");
        is_found || instant.is_some_and(|at| self.reaches(&MetaValue::Timestamp(at), rest))
    }

    /// Metadata is nested at most [`METADATA_DEPTH_MAX`] deep, so this ends.
    fn reaches(&self, value: &MetaValue, steps: &[String]) -> bool {
        if let MetaValue::List(items) = value
            && items.iter().any(|item| self.reaches(item, steps))
        {
            return true;
        }
        match (steps.split_first(), value) {
            (None, value) => self.test.passes(value),
            (Some((step, rest)), MetaValue::Map(entries)) => {
                entries.get(step).is_some_and(|value| self.reaches(value, rest))
            }
            _ => false,
        }
    }
}

impl Test {
    fn passes(&self, value: &MetaValue) -> bool {
        match self {
            Test::Equals(wanted) => value == wanted,
            Test::Exists => true,
            Test::Between(from, to) => {
                let compared = |bound: &Bound<MetaValue>| match bound {
                    Bound::Unbounded => None,
                    Bound::Included(bound) | Bound::Excluded(bound) => Some(order(value, bound)),
                };
                let after = match (compared(from), from) {
                    (None, _) => true,
                    (Some(order), Bound::Excluded(_)) => order == Some(Ordering::Greater),
                    (Some(order), _) => order.is_some_and(Ordering::is_ge),
                };
                let before = match (compared(to), to) {
                    (None, _) => true,
                    (Some(order), Bound::Excluded(_)) => order == Some(Ordering::Less),
                    (Some(order), _) => order.is_some_and(Ordering::is_le),
                };
                after && before
            }
        }
    }
}

/// The order of two values; `None` where they have none.
fn order(a: &MetaValue, b: &MetaValue) -> Option<Ordering> {
    match (a, b) {
        (MetaValue::I64(a), MetaValue::I64(b)) => Some(a.cmp(b)),
        (MetaValue::F64(a), MetaValue::F64(b)) => a.partial_cmp(b),
        (MetaValue::I64(a), MetaValue::F64(b)) => Some(order_numbers(*a, *b)),
        (MetaValue::F64(a), MetaValue::I64(b)) => Some(order_numbers(*b, *a).reverse()),
        (MetaValue::Text(a), MetaValue::Text(b)) => Some(a.cmp(b)),
        (MetaValue::Timestamp(a), MetaValue::Timestamp(b)) => Some(a.0.cmp(&b.0)),
        _ => None,
    }
}

/// An integer against a finite float, without rounding either.
fn order_numbers(a: i64, b: f64) -> Ordering {
    // 2^63 is the first float beyond i64; -2^63 is the first within.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if b >= BEYOND {
        return Ordering::Less;
    }
    if b < -BEYOND {
        return Ordering::Greater;
    }
    let fraction = b.fract().partial_cmp(&0.0).unwrap_or(Ordering::Equal);
    a.cmp(&(b.trunc() as i64)).then(fraction.reverse())
}

fn kind(value: &MetaValue) -> &'static str {
    match value {
        MetaValue::Null => "null",
        MetaValue::Bool(_) => "bool",
        MetaValue::I64(_) | MetaValue::F64(_) => "numbers",
        MetaValue::Text(_) => "text",
        MetaValue::Bytes(_) => "bytes",
        MetaValue::Timestamp(_) => "timestamps",
        MetaValue::List(_) => "lists",
        MetaValue::Map(_) => "dicts",
    }
}

fn check(path: &str, test: &Test) -> Result<(), WhereError> {
    let path = || path.to_string();
    let storable = |value: &MetaValue| {
        let entries = BTreeMap::from([(path(), value.clone())]);
        Metadata::from_entries(entries).to_cbor().map(|_| ())
    };
    let ends = match test {
        Test::Exists => return Ok(()),
        Test::Equals(value) => return Ok(storable(value)?),
        Test::Between(from, to) => [from, to].map(|bound| match bound {
            Bound::Unbounded => None,
            Bound::Included(value) | Bound::Excluded(value) => Some(value),
        }),
    };
    for end in ends.into_iter().flatten() {
        storable(end)?;
        if !matches!(kind(end), "numbers" | "text" | "timestamps") {
            return Err(WhereError::Unordered { path: path(), kind: kind(end) });
        }
    }
    match ends.map(|end| end.map(kind)) {
        [None, None] => Err(WhereError::Unbounded { path: path() }),
        [Some(from), Some(to)] if from != to => Err(WhereError::Mixed { path: path(), from, to }),
        _ => Ok(()),
    }
}

/// The steps of a path.
fn steps(path: &str) -> Result<Vec<String>, WhereError> {
    let refused = |what| Err(WhereError::Path { path: path.to_string(), what });
    let mut steps = vec![String::new()];
    let mut letters = path.chars();
    while let Some(letter) = letters.next() {
        match (letter, steps.last_mut()) {
            ('.', _) => steps.push(String::new()),
            ('\\', Some(step)) => match letters.next() {
                Some(escaped @ ('.' | '\\')) => step.push(escaped),
                _ => return refused("a backslash stands before a dot or a backslash alone"),
            },
            (letter, Some(step)) => step.push(letter),
            (_, None) => {}
        }
    }
    if steps.iter().any(String::is_empty) {
        return refused("a step is empty");
    }
    if steps.len() > METADATA_DEPTH_MAX + 1 {
        return refused("it has more steps than metadata has levels");
    }
    Ok(steps)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use underbelly_storage::Timestamp;

    fn finds(json: &str, wanted: &Where) -> bool {
        let metadata = Metadata::from_json(json).unwrap();
        wanted.conditions().unwrap().iter().all(|condition| condition.holds(&metadata))
    }

    #[test]
    fn values_are_equal_with_their_types() {
        let written = ["true", "1", "1.0", "\"1\"", "null", "[1,2]", "{\"1\":1}"];
        let values = written.map(|text| {
            let json = format!(r#"{{"v":{text}}}"#);
            (Metadata::from_json(&json).unwrap().entries()["v"].clone(), json)
        });
        for (i, (value, _)) in values.iter().enumerate() {
            for (j, (_, json)) in values.iter().enumerate() {
                // A list stands for its elements too.
                let expected = i == j || (i == 1 && j == 5);
                assert_eq!(finds(json, &Where::equals("v", value.clone())), expected, "{value:?} in {json}");
            }
        }
        assert!(finds(r#"{"v":-0.0}"#, &Where::equals("v", 0.0)));
    }

    #[test]
    fn prefixes_and_alternatives() {
        let finds = |json: &str, wanted: &Where| {
            let metadata = Metadata::from_json(json).unwrap();
            let all = wanted.alternatives().unwrap();
            all.iter().any(|set| set.iter().all(|condition| condition.holds(&metadata)))
        };
        for (text, prefix, expected) in [
            ("fx-spot", "fx", true),
            ("fx", "fx", true),
            ("f", "fx", false),
            ("fy", "fx", false),
            ("", "", true),
            ("a\u{d7ff}b", "a\u{d7ff}", true),
            ("a\u{e000}", "a\u{d7ff}", false),
            ("\u{10ffff}x", "\u{10ffff}", true),
        ] {
            let json = Metadata::new("m").with("v", text).to_json();
            assert_eq!(finds(&json, &Where::prefix("v", prefix)), expected, "{text:?} {prefix:?}");
        }
        let either = Where::equals("a", 1i64).or(Where::equals("a", 2i64)).and(Where::exists("b"));
        for (json, expected) in [
            (r#"{"a":1,"b":0}"#, true),
            (r#"{"a":2,"b":0}"#, true),
            (r#"{"a":2}"#, false),
            (r#"{"a":3,"b":0}"#, false),
        ] {
            assert_eq!(finds(json, &either), expected, "{json}");
        }
        let many = (0..80i64).fold(Where::equals("a", -1i64), |all, n| all.or(Where::equals("a", n)));
        assert_eq!(many.alternatives().map(drop), Err(WhereError::Alternatives));
    }

    #[test]
    fn paths_lead_into_dicts_and_through_lists() {
        let json = r#"{"a":{"b":[{"c":1},[{"c":2}],3]},"d.e":4,"f\\":5,"g":[]}"#;
        for (path, value) in [("a.b.c", 1), ("a.b.c", 2), ("a.b", 3), (r"d\.e", 4), (r"f\\", 5)] {
            assert!(finds(json, &Where::equals(path, value)), "{path}");
        }
        for (path, value) in [("a.b.c", 3), ("a", 1), ("d.e", 4), ("a.b.0", 3), ("a.b.c.d", 1)] {
            assert!(!finds(json, &Where::equals(path, value)), "{path}");
        }
        for (path, exists) in [("a", true), ("a.b.c", true), ("g", true), ("g.h", false), ("h", false)] {
            assert_eq!(finds(json, &Where::exists(path)), exists, "{path}");
        }
        assert!(finds(json, &Where::any()));
        assert!(!finds(json, &Where::exists("a").and(Where::exists("h"))));
    }

    #[test]
    fn ranges_compare_numbers_exactly_and_text_by_bytes() {
        let max = i64::MAX;
        for (json, wanted, expected) in [
            (r#"{"v":2}"#, Where::between("v", 1.5..2.5), true),
            (r#"{"v":2}"#, Where::between("v", 1.5..2.0), false),
            (r#"{"v":2.0}"#, Where::between("v", 2i64..=2), true),
            (r#"{"v":9223372036854775807}"#, Where::between("v", ..9_223_372_036_854_775_808.0), true),
            (r#"{"v":9223372036854775808.0}"#, Where::between("v", ..=max), false),
            (r#"{"v":-3}"#, Where::between("v", -3.5..-2.5), true),
            (r#"{"v":-3}"#, Where::between("v", ..-3.5), false),
            (r#"{"v":"1"}"#, Where::between("v", 0i64..9), false),
            (r#"{"v":"ba"}"#, Where::between("v", "b".."c"), true),
            (
                r#"{"v":"b"}"#,
                Where::between("v", (Bound::Excluded("b".to_string()), Bound::Unbounded)),
                false,
            ),
            (r#"{"v":[1,7]}"#, Where::between("v", 5i64..), true),
            (r#"{"v":5}"#, Where::between("v", (Bound::Included(9i64), Bound::Excluded(1))), false),
            (r#"{"v":5}"#, Where::between("v", Timestamp(0)..Timestamp(9)), false),
        ] {
            assert_eq!(finds(json, &wanted), expected, "{json} {wanted:?}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let refusal = |wanted: Where| wanted.conditions().unwrap_err();
        for path in ["", "a..b", ".a", "a.", r"a\b", "a\\"] {
            assert!(matches!(refusal(Where::exists(path)), WhereError::Path { .. }), "{path}");
        }
        assert!(matches!(refusal(Where::exists(&vec!["a"; 99].join("."))), WhereError::Path { .. }));
        assert!(matches!(refusal(Where::equals("a", f64::NAN)), WhereError::Value(_)));
        assert!(matches!(refusal(Where::between("a", f64::INFINITY..)), WhereError::Value(_)));
        assert!(matches!(refusal(Where::between::<i64>("a", ..)), WhereError::Unbounded { .. }));
        assert!(matches!(refusal(Where::between("a", true..)), WhereError::Unordered { kind: "bool", .. }));
        let mixed = (Bound::Included(MetaValue::from(1i64)), Bound::Included(MetaValue::from("x")));
        assert!(matches!(refusal(Where::between("a", mixed)), WhereError::Mixed { .. }));
    }
}
