//! Pages of the feed: what some consecutive transactions changed, in few bytes.
//!
//! ```text
//! page  = first seq: u64, commit time of the first: i64, then an entry for each transaction
//! entry = nanoseconds since the commit before: varint (0 in the first)
//!         twice the number of changes, and one more where there are alarms: varint, then each change
//!         where there are alarms: their number, varint, above 0, then each
//! alarm = 0: u8, SID: varint (it is too old)
//!       | 1: u8, slot: varint, date, due by: zigzag varint (it is overdue)
//!       | 2: u8, producer: varint (it is lost)
//! date  = 0 for a day and 1 for an instant: u8, days or nanoseconds since 1970: zigzag varint
//! change = SID less the one before in this entry (the first: less 0), zigzag varint
//!          states: u8, before in the low half and after in the high half
//!          generation: varint
//! ```
//!
//! Numbers are little-endian; varints are LEB128.

use underbelly_storage::cursor::Cursor;
use underbelly_storage::error::Damage;
use underbelly_storage::{Date, Timestamp};

use crate::graph::{Alarm, CellId, Deadline, ProducerId, SlotDate, SlotId, State};

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

fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn zigzag(cursor: &mut Cursor<'_>) -> Result<i64, Damage> {
    let value = varint(cursor)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

fn put_alarm(out: &mut Vec<u8>, alarm: &Alarm) {
    match alarm {
        Alarm::Aged(cell) => {
            out.push(0);
            put_varint(out, u64::from(cell.0));
        }
        Alarm::Overdue(Deadline { due_by, slot, date }) => {
            out.push(1);
            put_varint(out, u64::from(slot.0));
            let (instant, value) = match date {
                SlotDate::Day(day) => (0, i64::from(day.0)),
                SlotDate::Instant(instant) => (1, instant.0),
            };
            out.push(instant);
            put_zigzag(out, value);
            put_zigzag(out, due_by.0);
        }
        Alarm::Lost(producer) => {
            out.push(2);
            put_varint(out, u64::from(producer.0));
        }
    }
}

fn alarm(cursor: &mut Cursor<'_>) -> Result<Alarm, Damage> {
    let number = |cursor: &mut Cursor<'_>| {
        u32::try_from(varint(cursor)?).map_err(|_| Damage("an alarm names what is none"))
    };
    Ok(match cursor.u8()? {
        0 => Alarm::Aged(CellId(number(cursor)?)),
        1 => {
            let slot = SlotId(number(cursor)?);
            let instant = cursor.u8()?;
            let value = zigzag(cursor)?;
            let date = match (instant, i32::try_from(value)) {
                (0, Ok(day)) => SlotDate::Day(Date(day)),
                (1, _) => SlotDate::Instant(Timestamp(value)),
                _ => return Err(Damage("a date is neither a day nor an instant")),
            };
            Alarm::Overdue(Deadline { due_by: Timestamp(zigzag(cursor)?), slot, date })
        }
        2 => Alarm::Lost(ProducerId(number(cursor)?)),
        _ => return Err(Damage("an alarm is of no kind")),
    })
}

/// Writes what a transaction changed.
pub(super) fn put_entry(out: &mut Vec<u8>, since: u64, transitions: &[Transition], alarms: &[Alarm]) {
    put_varint(out, since);
    put_varint(out, (transitions.len() as u64) << 1 | u64::from(!alarms.is_empty()));
    let mut before = 0;
    for Transition { cell, from, to, g } in transitions {
        let sid = i64::from(cell.0);
        put_zigzag(out, sid - before);
        out.push(code(*from) | code(*to) << 4);
        put_varint(out, *g);
        before = sid;
    }
    if !alarms.is_empty() {
        put_varint(out, alarms.len() as u64);
        alarms.iter().for_each(|alarm| put_alarm(out, alarm));
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
    pub alarms: Vec<Alarm>,
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
        let counts = varint(&mut cursor)?;
        for _ in 0..counts >> 1 {
            let step = zigzag(&mut cursor)?;
            sid = sid.checked_add(step).ok_or(Damage("a SID is none"))?;
            let cell = CellId(u32::try_from(sid).map_err(|_| Damage("a SID is none"))?);
            let states = cursor.u8()?;
            let (from, to) = (state(states & 0xf)?, state(states >> 4)?);
            let transition = Transition { cell, from, to, g: varint(&mut cursor)? };
            if wants(&transition) {
                transitions.push(transition);
            }
        }
        let mut alarms = Vec::new();
        if counts & 1 != 0 {
            for _ in 0..varint(&mut cursor)? {
                alarms.push(alarm(&mut cursor)?);
            }
            if alarms.is_empty() {
                return Err(Damage("there are to be alarms, and none is"));
            }
        }
        let seq = self.next;
        if seq == self.last {
            cursor.end()?;
        }
        self.at += cursor.position();
        self.next += 1;
        self.time = time;
        Ok(Some(Entry { seq, time, transitions, alarms }))
    }
}

/// Reads a page whose last transaction is `last` to its end, and writes the same anew.
#[doc(hidden)] // For the fuzz targets of this workspace alone.
pub fn rewrite_page(last: u64, bytes: &[u8]) -> Result<Vec<u8>, Damage> {
    let mut page = Page::stored(last, bytes.to_vec())?;
    let (mut before, mut out) = (page.time, head(page.next, page.time).to_vec());
    while let Some(Entry { time, transitions, alarms, .. }) = page.entry(last, |_| true)? {
        put_entry(&mut out, time.0.abs_diff(before.0), &transitions, &alarms);
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

    /// None, one or two, of any kind.
    fn alarms(seed: u64) -> Vec<Alarm> {
        let (id, time) = (seed as u32, Timestamp(seed as i64 * 7919));
        let date =
            if seed.is_multiple_of(2) { SlotDate::Day(Date(id as i32)) } else { SlotDate::Instant(time) };
        let overdue = Alarm::Overdue(Deadline { due_by: time, slot: SlotId(id), date });
        let all = [Alarm::Aged(CellId(id)), overdue, Alarm::Lost(ProducerId(id)), overdue];
        all.into_iter().skip(seed as usize % 4).take(seed as usize % 3).collect()
    }

    fn entries(mut page: Page) -> Result<Vec<Entry>, Damage> {
        std::iter::from_fn(|| page.entry(u64::MAX, |_| true).transpose()).collect()
    }

    #[test]
    fn the_bytes_of_a_page_are_fixed() {
        let change = |cell, from, to, g| Transition { cell: CellId(cell), from, to, g };
        let mut bytes = head(7, Timestamp(1000)).to_vec();
        put_entry(&mut bytes, 0, &[], &[]);
        put_entry(
            &mut bytes,
            300,
            &[
                change(2, State::Void, State::Updated, 1),
                change(1, State::Pending, State::Current, 128),
                change(200, State::Stale, State::Invalid, 3),
            ],
            &[],
        );
        let (due_by, slot, date) = (Timestamp(-2), SlotId(4), SlotDate::Day(Date(5)));
        let alarms = [
            Alarm::Aged(CellId(300)),
            Alarm::Overdue(Deadline { due_by, slot, date }),
            Alarm::Lost(ProducerId(6)),
        ];
        put_entry(&mut bytes, 1, &[], &alarms);
        let expected = [
            7, 0, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0, 0, 0, 0, 0, // head
            0, 0, // transaction 7
            0xac, 2, 6, 4, 0x10, 1, 1, 0x32, 0x80, 1, 0x8e, 3, 0x54, 3, // transaction 8
            1, 1, 3, 0, 0xac, 2, 1, 4, 0, 10, 3, 2, 6, // transaction 9
        ];
        assert_eq!(bytes, expected);
        let read = entries(Page::stored(9, bytes).unwrap()).unwrap();
        assert_eq!(read[2].alarms, alarms);
        assert_eq!((read[0].seq, read[0].time, read[0].transitions.len()), (7, Timestamp(1000), 0));
        assert_eq!((read[1].seq, read[1].time), (8, Timestamp(1300)));
        assert_eq!(read[1].transitions[1], change(1, State::Pending, State::Current, 128));
        assert_eq!(read.len(), 3);
    }

    #[test]
    fn pages_that_are_cut_or_have_bytes_left_are_refused() {
        let mut bytes = head(1, Timestamp(5)).to_vec();
        let change = Transition { cell: CellId(9), from: State::Void, to: State::Current, g: 300 };
        put_entry(&mut bytes, 0, &[change], &[Alarm::Lost(ProducerId(300))]);
        put_entry(&mut bytes, 7, &[change, change], &[Alarm::Aged(CellId(300))]);
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
                put_entry(&mut bytes, if i == 0 { 0 } else { *since }, transitions, &alarms(*since));
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
                prop_assert_eq!(&entry.alarms, &alarms(*since));
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
