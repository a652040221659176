//! Dense numbers for keys: the first key that is seen is 0, the next new one 1, and so on.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;
use underbelly_storage::{Column, Values};

use crate::QueryError;
use crate::key::encode;
use crate::lane::{Codes, Lane};

/// The keys seen so far. Null is a key too and equals null; NaN equals NaN, zero equals negative zero.
pub(crate) struct KeyIds {
    known: Known,
    null: Option<u32>,
    len: u32,
    /// The numbers of distinct texts that were looked up last; `u32::MAX` for one that was not met.
    texts: Option<(Arc<Column>, Vec<u32>)>,
}

/// What a key is looked up by.
enum Known {
    /// There are no key columns.
    One,
    /// One column of integers, times, dates or truths.
    Integers(HashMap<i64, u32>),
    /// One column of text or bytes: up to seven bytes stand in a number with their length.
    Texts { short: HashMap<u64, u32>, long: HashMap<Box<[u8]>, u32> },
    /// Anything else, as [`encode`] writes it.
    Encoded(HashMap<Box<[u8]>, u32>),
}

impl KeyIds {
    /// No key yet, for key columns of which these are examples.
    pub(crate) fn new(columns: &[&Column]) -> KeyIds {
        let known = match columns {
            [] => Known::One,
            [column] => match column.values() {
                Values::F64(_) | Values::F32(_) => Known::Encoded(HashMap::new()),
                Values::Utf8(_) | Values::Bytes(_) => {
                    Known::Texts { short: HashMap::new(), long: HashMap::new() }
                }
                _ => Known::Integers(HashMap::new()),
            },
            _ => Known::Encoded(HashMap::new()),
        };
        KeyIds { known, null: None, len: 0, texts: None }
    }

    /// How many keys are known.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The same of columns as they were read.
    pub(crate) fn number_lanes(
        &mut self,
        lanes: &[&Lane<'_>],
        rows: usize,
        to: &mut Vec<u32>,
    ) -> Result<Vec<u32>, QueryError> {
        if let [Lane::Codes(of)] = lanes {
            return Ok(self.number_codes(of, to));
        }
        let columns = lanes.iter().map(|lane| (*lane).clone().column("a key"));
        let columns: Vec<Cow<'_, Column>> = columns.collect::<Result<_, _>>()?;
        Ok(self.number(&columns.iter().map(|column| &**column).collect::<Vec<_>>(), rows, to))
    }

    fn number_codes(&mut self, of: &Codes, to: &mut Vec<u32>) -> Vec<u32> {
        let KeyIds { known, len, texts, .. } = self;
        let same = texts.take().filter(|(distinct, _)| Arc::ptr_eq(distinct, &of.distinct));
        let (distinct, mut ids) =
            same.unwrap_or_else(|| (of.distinct.clone(), vec![u32::MAX; of.distinct.len()]));
        let mut fresh = Fresh { len, rows: Vec::new() };
        let mut number_all = |ids: &[u32]| {
            to.clear();
            to.extend(of.codes.iter().map(|code| ids[*code as usize]));
            to.iter().fold(0, |greatest, id| *id.max(&greatest)) < u32::MAX
        };
        if !number_all(&ids) {
            for (row, code) in of.codes.iter().enumerate() {
                let id = &mut ids[*code as usize];
                if *id == u32::MAX {
                    *id = known.number_text(&distinct, *code as usize, row, &mut fresh);
                }
            }
            number_all(&ids);
        }
        *texts = Some((distinct, ids));
        fresh.rows
    }

    /// Numbers the keys of `rows` rows; gives back for each key that was not known the first row that has it.
    ///
    /// The columns have the types of those that [`KeyIds::new`] saw, or such as [`key_positions`](crate::timed::key_positions) lets stand beside them.
    pub(crate) fn number(&mut self, columns: &[&Column], rows: usize, to: &mut Vec<u32>) -> Vec<u32> {
        to.clear();
        let KeyIds { known, null, len, .. } = self;
        let mut fresh = Fresh { len, rows: Vec::new() };
        match (known, columns) {
            (Known::One, _) => {
                if rows > 0 && *fresh.len == 0 {
                    fresh.next(0);
                }
                to.resize(rows, 0);
            }
            (Known::Texts { short, long }, [column]) => {
                if let Values::Utf8(strings) | Values::Bytes(strings) = column.values() {
                    let number = |row, fresh: &mut Fresh<'_>| {
                        let text = strings.get(row);
                        match packed(text) {
                            Some(text) => *short.entry(text).or_insert_with(|| fresh.next(row)),
                            None => number_bytes(long, text, row, fresh),
                        }
                    };
                    number_rows(column, null, to, &mut fresh, number);
                }
            }
            (Known::Integers(known), [column]) => {
                let mut number = |key: i64, row, fresh: &mut Fresh<'_>| {
                    *known.entry(key).or_insert_with(|| fresh.next(row))
                };
                match column.values() {
                    Values::I64(v) | Values::Timestamp(v) => {
                        number_rows(column, null, to, &mut fresh, |row, fresh| number(v[row], row, fresh));
                    }
                    Values::I32(v) | Values::Date(v) => {
                        number_rows(column, null, to, &mut fresh, |row, fresh| {
                            number(v[row].into(), row, fresh)
                        });
                    }
                    Values::Bool(v) => {
                        number_rows(column, null, to, &mut fresh, |row, fresh| {
                            number(v[row].into(), row, fresh)
                        });
                    }
                    _ => {}
                }
            }
            (Known::Encoded(known), columns) => {
                let columns: Vec<Cow<'_, Column>> =
                    columns.iter().map(|column| Cow::Borrowed(*column)).collect();
                let mut key = Vec::new();
                for row in 0..rows {
                    key.clear();
                    columns.iter().for_each(|column| encode(Some(column), row, &mut key));
                    to.push(number_bytes(known, &key, row, &mut fresh));
                }
            }
            (Known::Texts { .. } | Known::Integers(_), _) => {}
        }
        debug_assert_eq!(to.len(), rows, "the columns are those that were announced");
        to.resize(rows, 0);
        fresh.rows
    }
}

impl Known {
    /// The number of a text, or of anything that is no null.
    fn number_text(&mut self, distinct: &Column, at: usize, row: usize, fresh: &mut Fresh<'_>) -> u32 {
        match (self, distinct.values()) {
            (Known::Texts { short, long }, Values::Utf8(texts) | Values::Bytes(texts)) => {
                let text = texts.get(at);
                match packed(text) {
                    Some(text) => *short.entry(text).or_insert_with(|| fresh.next(row)),
                    None => number_bytes(long, text, row, fresh),
                }
            }
            (Known::Encoded(known), _) => {
                let mut key = Vec::new();
                encode(Some(&Cow::Borrowed(distinct)), at, &mut key);
                number_bytes(known, &key, row, fresh)
            }
            // No other key is a text.
            _ => 0,
        }
    }
}

/// Numbers that are not taken, and the rows whose keys took some.
struct Fresh<'a> {
    len: &'a mut u32,
    rows: Vec<u32>,
}

impl Fresh<'_> {
    /// The next number, for the key of a row; rows of a batch are below 2^32.
    fn next(&mut self, row: usize) -> u32 {
        self.rows.push(row as u32);
        *self.len += 1;
        *self.len - 1
    }
}

/// Numbers the rows of one column, each that is not null by `number`.
fn number_rows(
    column: &Column,
    null: &mut Option<u32>,
    to: &mut Vec<u32>,
    fresh: &mut Fresh<'_>,
    mut number: impl FnMut(usize, &mut Fresh<'_>) -> u32,
) {
    match column.validity() {
        None => to.extend((0..column.len()).map(|row| number(row, fresh))),
        Some(validity) => to.extend(validity.iter().enumerate().map(|(row, valid)| match valid {
            true => number(row, fresh),
            false => *null.get_or_insert_with(|| fresh.next(row)),
        })),
    }
}

fn number_bytes(known: &mut HashMap<Box<[u8]>, u32>, key: &[u8], row: usize, fresh: &mut Fresh<'_>) -> u32 {
    match known.get(key) {
        Some(id) => *id,
        None => *known.entry(key.into()).or_insert_with(|| fresh.next(row)),
    }
}

/// Up to seven bytes and their number, in one number.
fn packed(text: &[u8]) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes.get_mut(..7)?.get_mut(..text.len())?.copy_from_slice(text);
    bytes[7] = text.len() as u8;
    Some(u64::from_le_bytes(bytes))
}
