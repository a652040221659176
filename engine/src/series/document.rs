//! Documents: values under names, some of which are documents again, as columns of a row and back.
//!
//! A value stands in the column of its path: `bid.price` is `price` in the document `bid`. A null, a name that is not there and a
//! document of nothing but nulls are one, as rows have it: what is given back has none of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use underbelly_storage::{Columns, Decimal, LogicalType, LogicalTypes, Value};

use crate::batch::Row;
use crate::limits::DOCUMENT_DEPTH_MAX;

/// Why a document is no row.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DocumentError {
    /// A name that is empty or has a dot, which parts the names of a path.
    #[error(
        "document: the name {name:?} at {path:?} is empty or has a dot, and would not come back as it is; rename it"
    )]
    Name {
        /// The name.
        name: String,
        /// The document that it stands in; empty for the outermost.
        path: String,
    },
    /// A document without values, which no column would tell of.
    #[error("document: {path:?} is empty, and no column would tell of it; leave it out, or give it a value")]
    Empty {
        /// Where it stands.
        path: String,
    },
    /// Documents in too many others.
    #[error("document: {path:?} is nested more than {DOCUMENT_DEPTH_MAX} levels deep; flatten it")]
    Depth {
        /// Where it stands.
        path: String,
    },
}

/// Values by name, some of them documents again.
///
/// ```
/// use underbelly::{Document, Row, Timestamp};
/// let quote = Document::new().value("venue", "N").document("bid", Document::new().value("price", 184.5).value("size", 3));
/// let row = Row::new("quote", Timestamp(0)).key("symbol", "IBM").document(&quote)?; // columns venue, bid.price and bid.size
/// # let _ = row;
/// # Ok::<(), underbelly::DocumentError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document(BTreeMap<Arc<str>, Member>);

/// What stands under a name of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Member {
    /// A value.
    Value(Value),
    /// A decimal.
    Decimal(Decimal),
    /// A document.
    Document(Document),
}

impl Document {
    /// A document without values.
    pub fn new() -> Document {
        Document::default()
    }

    /// The same with a value, in place of what stood there.
    pub fn value(self, name: impl Into<Arc<str>>, value: impl Into<Value>) -> Document {
        self.with(name.into(), Member::Value(value.into()))
    }

    /// The same with a decimal, in place of what stood there.
    pub fn decimal(self, name: impl Into<Arc<str>>, value: Decimal) -> Document {
        self.with(name.into(), Member::Decimal(value))
    }

    /// The same with a document, in place of what stood there.
    pub fn document(self, name: impl Into<Arc<str>>, document: Document) -> Document {
        self.with(name.into(), Member::Document(document))
    }

    fn with(mut self, name: Arc<str>, member: Member) -> Document {
        self.0.insert(name, member);
        self
    }

    /// What stands at a path, such as `["bid", "price"]`.
    pub fn get(&self, path: &[&str]) -> Option<&Member> {
        let (name, rest) = path.split_first()?;
        match (self.0.get(*name)?, rest) {
            (member, []) => Some(member),
            (Member::Document(inner), rest) => inner.get(rest),
            _ => None,
        }
    }

    /// Names and what stands under them.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Member)> {
        self.0.iter()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A row of columns as a document: without nulls, and decimals as such where `types` says so.
    pub fn of_row(rows: &Columns, types: &LogicalTypes, row: usize) -> Document {
        let names: Vec<&str> = rows.names().iter().map(|name| &**name).collect();
        Document::of_places(&nested(&names), rows, types, row)
    }

    fn of_places(
        places: &[(Arc<str>, Nested)],
        rows: &Columns,
        types: &LogicalTypes,
        row: usize,
    ) -> Document {
        let mut document = Document::new();
        for (name, place) in places {
            match place {
                Nested::Object(inner) => {
                    let inner = Document::of_places(inner, rows, types, row);
                    if !inner.is_empty() {
                        document = document.document(name.clone(), inner);
                    }
                }
                Nested::Column(at) => {
                    let Some((column, values)) = rows.iter().nth(*at) else { continue };
                    let scale = types.get(column).and_then(LogicalType::scale);
                    document = match (values.get(row), scale) {
                        (Value::Null, _) => document,
                        (Value::I64(unscaled), Some(scale)) => match Decimal::new(unscaled, scale) {
                            Ok(decimal) => document.decimal(name.clone(), decimal),
                            Err(_) => document.value(name.clone(), unscaled),
                        },
                        (value, _) => document.value(name.clone(), value),
                    };
                }
            }
        }
        document
    }

    fn flatten(&self, path: &str, depth: usize, mut row: Row) -> Result<Row, DocumentError> {
        if depth > DOCUMENT_DEPTH_MAX {
            return Err(DocumentError::Depth { path: path.to_string() });
        }
        if self.is_empty() && depth > 0 {
            return Err(DocumentError::Empty { path: path.to_string() });
        }
        for (name, member) in self.iter() {
            if name.is_empty() || name.contains('.') {
                return Err(DocumentError::Name { name: name.to_string(), path: path.to_string() });
            }
            let here: Arc<str> = if path.is_empty() { name.clone() } else { format!("{path}.{name}").into() };
            row = match member {
                Member::Value(value) => row.field(here, value.clone()),
                Member::Decimal(decimal) => row.decimal(here, *decimal),
                Member::Document(inner) => inner.flatten(&here, depth + 1, row)?,
            };
        }
        Ok(row)
    }
}

impl Row {
    /// The values of a document as fields, each in the column of its path: [`Document::of_row`] gives the document back.
    ///
    /// # Errors
    /// [`DocumentError`] where a name is empty or has a dot, a document in it is empty, or it is nested too deep.
    pub fn document(self, document: &Document) -> Result<Row, DocumentError> {
        document.flatten("", 0, self)
    }
}

/// Where a column stands in nested rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nested {
    /// The column at this place.
    Column(usize),
    /// Columns and objects by their names in it, in order of their first column.
    Object(Vec<(Arc<str>, Nested)>),
}

/// How columns stand in nested rows: one with dots in its name stands in an object for each name before the last. A name that is no path,
/// since a part of it is empty or a column itself, stays one name.
pub fn nested(names: &[&str]) -> Vec<(Arc<str>, Nested)> {
    let known: HashSet<&str> = names.iter().copied().collect();
    let mut places = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let is_path = name.split('.').all(|part| !part.is_empty())
            && parents(name).all(|parent| !known.contains(parent));
        let parts: Vec<&str> = if is_path { name.split('.').collect() } else { vec![name] };
        place(&mut places, &parts, at);
    }
    places
}

fn place(places: &mut Vec<(Arc<str>, Nested)>, parts: &[&str], at: usize) {
    let Some((name, rest)) = parts.split_first() else { return };
    if rest.is_empty() {
        places.push(((*name).into(), Nested::Column(at)));
        return;
    }
    let found = places.iter_mut().find_map(|(known, place)| match place {
        Nested::Object(inner) if **known == **name => Some(inner),
        _ => None,
    });
    match found {
        Some(inner) => place(inner, rest, at),
        None => {
            let mut inner = Vec::new();
            place(&mut inner, rest, at);
            places.push(((*name).into(), Nested::Object(inner)));
        }
    }
}

/// The paths of the objects that a column stands in: of `a.b.c` first `a`, then `a.b`.
pub(crate) fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').filter_map(|(at, _)| name.get(..at))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shown(names: &[&str]) -> String {
        fn show(places: &[(Arc<str>, Nested)]) -> String {
            let member = |(name, place): &(Arc<str>, Nested)| match place {
                Nested::Column(at) => format!("{name}={at}"),
                Nested::Object(inner) => format!("{name}{{{}}}", show(inner)),
            };
            places.iter().map(member).collect::<Vec<_>>().join(" ")
        }
        show(&nested(names))
    }

    #[test]
    fn columns_stand_in_the_objects_of_their_paths() {
        assert_eq!(shown(&["t", "a.x", "b", "a.y.z", "a.y.w"]), "t=0 a{x=1 y{z=3 w=4}} b=2");
        assert_eq!(shown(&["a.b", "a", "a.b.c"]), "a.b=0 a=1 a.b.c=2", "what is a column is no object");
        assert_eq!(shown(&[".x", "x.", "a..b", "."]), ".x=0 x.=1 a..b=2 .=3");
    }

    #[test]
    fn names_that_would_not_come_back_are_refused() {
        let row = || Row::new("s", underbelly_storage::Timestamp(0));
        let inner = |name: &str| Document::new().document("a", Document::new().value(name, 1));
        for name in ["", "x.y", "."] {
            let refused = row().document(&inner(name)).unwrap_err();
            assert_eq!(refused, DocumentError::Name { name: name.to_string(), path: "a".to_string() });
        }
        let empty = Document::new().document("a", Document::new().document("b", Document::new()));
        assert_eq!(row().document(&empty).unwrap_err(), DocumentError::Empty { path: "a.b".to_string() });
        let deep = (0..=DOCUMENT_DEPTH_MAX)
            .fold(Document::new().value("x", 1), |inner, _| Document::new().document("d", inner));
        assert!(matches!(row().document(&deep), Err(DocumentError::Depth { .. })));
    }
}
