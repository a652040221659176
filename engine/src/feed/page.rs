//! Pages of the feed: what some consecutive transactions changed, in few bytes.
//!
//! ```text
//! page  = first seq: u64, commit time of the first: i64, then an entry for each transaction
//! entry = nanoseconds since the commit before: varint (0 in the first), changes: varint, then each change
//! change = SID less the one before in this entry (the first: less 0), zigzag varint
//!          states: u8, before in the low half and after in the high half
//!          generation: varint
//! ```
//!
//! Numbers are little-endian; varints are LEB128.

use underbelly_storage::Timestamp;
use underbelly_storage::cursor::Cursor;
use underbelly_storage::error::Damage;

use crate::graph::{CellId, State};

pub(super) use crate::graph::Transition;

/// Bytes before the first entry.
const HEAD_BYTES: usize = 16;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint(cursor: &mut Cursor<'_>) -> Result<u64, Damage> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = cursor.u8()?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Damage("a number is too long"))
}

const fn code(state: State) -> u8 {
    match state {
        State::Void => 0,
        State::Updated => 1,
        State::Pending => 2,
        State::Current => 3,
        State::Stale => 4,
        State::Invalid => 5,
    }
}

fn state(code: u8) -> Result<State, Damage> {
    State::ALL.into_iter().find(|state| self::code(*state) == code).ok_or(Damage("a state is none"))
}

/// Writes what a transaction changed.
pub(super) fn put_entry(out: &mut Vec<u8>, since: u64, transitions: &[Transition]) {
    put_varint(out, since);
    put_varint(out, transitions.len() as u64);
    let mut before = 0;
    for Transition { cell, from, to, g } in transitions {
        let sid = i64::from(cell.0);
        let step = sid - before;
        put_varint(out, ((step << 1) ^ (step >> 63)) as u64);
        out.push(code(*from) | code(*to) << 4);
        put_varint(out, *g);
        before = sid;
    }
}

/// The head of a page.
pub(super) fn head(first: u64, time: Timestamp) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&first.to_le_bytes());
    head[8..].copy_from_slice(&time.0.to_le_bytes());
    head
}

/// Entries of consecutive transactions that are read one by one.
#[derive(Debug)]
pub(super) struct Page {
    /// The transaction whose entry comes next.
    pub next: u64,
    /// The last transaction.
    pub last: u64,
    /// The commit time before that of the next.
    time: Timestamp,
    bytes: Vec<u8>,
    at: usize,
}

/// What a transaction changed.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub seq: u64,
    pub time: Timestamp,
    pub transitions: Vec<Transition>,
}

impl Page {
    /// Entries up to that of `last`, of which the first is that of `next`.
    pub(super) fn new(next: u64, last: u64, time: Timestamp, bytes: Vec<u8>) -> Page {
        Page { next, last, time, bytes, at: 0 }
    }

    /// A page with its head; `last` is its last transaction.
    pub(super) fn stored(last: u64, bytes: Vec<u8>) -> Result<Page, Damage> {
        let mut cursor = Cursor::new(&bytes);
        let (next, time) = (cursor.u64()?, Timestamp(cursor.i64()?));
        if next > last || last == u64::MAX {
            return Err(Damage("a page ends before it begins"));
        }
        Ok(Page { next, last, time, bytes, at: HEAD_BYTES })
    }

    /// The next entry, where it is of a transaction up to `until`. Its changes are read where `wants` says so.
    pub(super) fn entry(
        &mut self,
        until: u64,
        wants: impl Fn(&Transition) -> bool,
    ) -> Result<Option<Entry>, Damage> {
        if self.next > self.last.min(until) {
            return Ok(None);
        }
        let mut cursor = Cursor::new(self.bytes.get(self.at..).unwrap_or_default());
        let since = i64::try_from(varint(&mut cursor)?).ok();
        let time = since.and_then(|since| self.time.0.checked_add(since)).map(Timestamp);
        let time = time.ok_or(Damage("a commit time is none"))?;
        let mut transitions = Vec::new();
        let mut sid = 0i64;
        for _ in 0..varint(&mut cursor)? {
            let step = varint(&mut cursor)?;
            let step = (step >> 1) as i64 ^ -((step & 1) as i64);
            sid = sid.checked_add(step).ok_or(Damage("a SID is none"))?;
            let cell = CellId(u32::try_from(sid).map_err(|_| Damage("a SID is none"))?);
            let states = cursor.u8()?;
            let (from, to) = (state(states & 0xf)?, state(states >> 4)?);
            let transition = Transition { cell, from, to, g: varint(&mut cursor)? };
            if wants(&transition) {
                transitions.push(transition);
            }
        }
        let seq = self.next;
        if seq == self.last {
            cursor.end()?;
        }
        self.at += cursor.position();
        self.next += 1;
        self.time = time;
        Ok(Some(Entry { seq, time, transitions }))
    }
}

/// Reads a page whose last transaction is `last` to its end, and writes the same anew.
#[doc(hidden)] // For the fuzz targets of this workspace alone.
pub fn rewrite_page(last: u64, bytes: &[u8]) -> Result<Vec<u8>, Damage> {
    let mut page = Page::stored(last, bytes.to_vec())?;
    let (mut before, mut out) = (page.time, head(page.next, page.time).to_vec());
    while let Some(Entry { time, transitions, .. }) = page.entry(last, |_| true)? {
        put_entry(&mut out, time.0.abs_diff(before.0), &transitions);
        before = time;
    }
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn transition() -> impl Strategy<Value = Transition> {
        let state = || proptest::sample::select(State::ALL.to_vec());
        (any::<u32>(), state(), state(), any::<u64>()).prop_map(|(cell, from, to, g)| Transition {
            cell: CellId(cell),
            from,
            to,
            g,
        })
    }

    fn entries(mut page: Page) -> Result<Vec<Entry>, Damage> {
        std::iter::from_fn(|| page.entry(u64::MAX, |_| true).transpose()).collect()
    }

    #[test]
    fn the_bytes_of_a_page_are_fixed() {
        let change = |cell, from, to, g| Transition { cell: CellId(cell), from, to, g };
        let mut bytes = head(7, Timestamp(1000)).to_vec();
        put_entry(&mut bytes, 0, &[]);
        put_entry(
            &mut bytes,
            300,
            &[
                change(2, State::Void, State::Updated, 1),
                change(1, State::Pending, State::Current, 128),
                change(200, State::Stale, State::Invalid, 3),
            ],
        );
        let expected = [
            7, 0, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0, 0, 0, 0, 0, // head
            0, 0, // transaction 7
            0xac, 2, 3, 4, 0x10, 1, 1, 0x32, 0x80, 1, 0x8e, 3, 0x54, 3, // transaction 8
        ];
        assert_eq!(bytes, expected);
        let read = entries(Page::stored(8, bytes).unwrap()).unwrap();
        assert_eq!((read[0].seq, read[0].time, read[0].transitions.len()), (7, Timestamp(1000), 0));
        assert_eq!((read[1].seq, read[1].time), (8, Timestamp(1300)));
        assert_eq!(read[1].transitions[1], change(1, State::Pending, State::Current, 128));
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn pages_that_are_cut_or_have_bytes_left_are_refused() {
        let mut bytes = head(1, Timestamp(5)).to_vec();
        let change = Transition { cell: CellId(9), from: State::Void, to: State::Current, g: 300 };
        put_entry(&mut bytes, 0, &[change]);
        put_entry(&mut bytes, 7, &[change, change]);
        for length in 0..bytes.len() {
            let page = Page::stored(2, bytes[..length].to_vec());
            assert!(page.and_then(entries).is_err(), "{length} bytes");
        }
        let more: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        assert!(entries(Page::stored(2, more).unwrap()).is_err());
        assert!(Page::stored(0, bytes).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            first in 1u64..1 << 60,
            time in -1_000i64..1_000,
            changes in proptest::collection::vec(
                (0u64..1 << 40, proptest::collection::vec(transition(), 0..5)), 1..8,
            ),
        ) {
            let mut bytes = head(first, Timestamp(time)).to_vec();
            for (i, (since, transitions)) in changes.iter().enumerate() {
                put_entry(&mut bytes, if i == 0 { 0 } else { *since }, transitions);
            }
            let last = first + changes.len() as u64 - 1;
            prop_assert_eq!(&rewrite_page(last, &bytes).unwrap(), &bytes);
            let read = entries(Page::stored(last, bytes).unwrap()).unwrap();
            prop_assert_eq!(read.len(), changes.len());
            let mut expected_time = time;
            for (i, (entry, (since, transitions))) in read.iter().zip(&changes).enumerate() {
                expected_time += if i == 0 { 0 } else { *since as i64 };
                prop_assert_eq!(entry.seq, first + i as u64);
                prop_assert_eq!(entry.time, Timestamp(expected_time));
                prop_assert_eq!(&entry.transitions, transitions);
            }
        }

        #[test]
        fn any_bytes_are_entries_or_damage(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            last in any::<u64>(),
        ) {
            if let Ok(page) = Page::stored(last, bytes) {
                let _ = entries(page);
            }
        }
    }
}
