//! What one log record holds: a transaction.
//!
//! A payload is 16 bytes in front (`i64` commit time, `u32` record version, `u32` form) and then, by form, 0 the rkyv
//! archive of [`v1::Record`], 1 what `rows` writes where a transaction only appends rows, 2 logical types of columns (as `types`
//! writes them, behind a `u32` with the form and one with their length) and then either of the others. Log frames carry the seq and the checksum; a payload is looked at after its
//! checksum was compared, and through rkyv's checked access on an aligned copy.

mod rows;
pub(crate) mod types;
pub mod v1;

use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use underbelly_storage::{LogicalTypes, Timestamp};

use crate::operations::Operations;

/// Version of the records that are written.
const VERSION: u32 = 1;
const PREFIX_BYTES: usize = 16;
const ARCHIVE: u32 = 0;
const ROWS: u32 = 1;
const TYPES: u32 = 2;

/// The record of a transaction, with room for the time that sequencing fills in.
pub(crate) fn of(operations: &Operations) -> Result<Vec<u8>, String> {
    match rows::encode(operations) {
        Some(payload) => with_types(payload, &operations.types),
        None => encode(&operations.to_record()?),
    }
}

/// Puts logical types, where there are any, before what was encoded.
fn with_types<S: AsRef<str>>(payload: Vec<u8>, types: &[(S, LogicalTypes)]) -> Result<Vec<u8>, String> {
    if types.is_empty() {
        return Ok(payload);
    }
    let types = types::encode(types)?;
    let (head, body) = payload.split_first_chunk::<PREFIX_BYTES>().ok_or("shorter than its prefix")?;
    let mut payload = Vec::with_capacity(PREFIX_BYTES + 8 + types.len() + body.len());
    prefix(&mut payload, TYPES);
    payload.extend_from_slice(head.last_chunk::<4>().ok_or("shorter than its prefix")?);
    payload.extend_from_slice(&u32::try_from(types.len()).map_err(|_| "too many types")?.to_le_bytes());
    payload.extend_from_slice(&types);
    payload.extend_from_slice(body);
    Ok(payload)
}

fn prefix(payload: &mut Vec<u8>, form: u32) {
    payload.extend_from_slice(&0i64.to_le_bytes());
    payload.extend_from_slice(&VERSION.to_le_bytes());
    payload.extend_from_slice(&form.to_le_bytes());
}

/// The record as an archive, with room for the time that sequencing fills in.
pub(crate) fn encode(record: &v1::Record) -> Result<Vec<u8>, String> {
    let archive: AlignedVec = rkyv::to_bytes::<RkyvError>(record).map_err(|error| error.to_string())?;
    let mut payload = Vec::with_capacity(PREFIX_BYTES + archive.len());
    prefix(&mut payload, ARCHIVE);
    payload.extend_from_slice(&archive);
    with_types(payload, &record.types)
}

/// Writes the commit time into an encoded record.
pub(crate) fn stamp(payload: &mut [u8], time: Timestamp) {
    payload[..8].copy_from_slice(&time.0.to_le_bytes());
}

/// Reads a record; says what is wrong with any other bytes.
pub fn decode(payload: &[u8]) -> Result<(Timestamp, v1::Record), String> {
    let (prefix, body) = payload.split_first_chunk::<PREFIX_BYTES>().ok_or("shorter than its prefix")?;
    let (time, rest) = prefix.split_first_chunk::<8>().ok_or("shorter than its prefix")?;
    let version = rest.first_chunk::<4>().map_or(0, |word| u32::from_le_bytes(*word));
    if version != VERSION {
        return Err(format!("record version {version} is not {VERSION}; use a newer release"));
    }
    let form = rest.last_chunk::<4>().map_or(0, |word| u32::from_le_bytes(*word));
    let record = match form {
        TYPES => {
            let (form, rest) = body.split_first_chunk::<4>().ok_or("cut short")?;
            let (types, body) = types::split(rest)?;
            v1::Record { types, ..of_form(u32::from_le_bytes(*form), body)? }
        }
        form => of_form(form, body)?,
    };
    Ok((Timestamp(i64::from_le_bytes(*time)), record))
}

fn of_form(form: u32, body: &[u8]) -> Result<v1::Record, String> {
    match form {
        ARCHIVE => from_archive(body),
        ROWS => rows::decode(body),
        form => Err(format!("unknown form {form}; use a newer release")),
    }
}

/// Checked access on an aligned copy, then an owned value.
pub(crate) fn from_archive<T>(archive: &[u8]) -> Result<T, String>
where
    T: rkyv::Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, RkyvError>>
        + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<RkyvError>>,
{
    let mut aligned = AlignedVec::<16>::with_capacity(archive.len());
    aligned.extend_from_slice(archive);
    rkyv::from_bytes::<T, RkyvError>(&aligned).map_err(|error| error.to_string())
}

/// The rkyv archive of a value.
pub(crate) fn to_archive<T>(value: &T) -> Result<AlignedVec, String>
where
    T: for<'a> rkyv::Serialize<
            rkyv::api::high::HighSerializer<AlignedVec, rkyv::ser::allocator::ArenaHandle<'a>, RkyvError>,
        >,
{
    rkyv::to_bytes::<RkyvError>(value).map_err(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::time::Duration;

    use underbelly_query::Duplicates;
    use underbelly_storage::{Column, ColumnType, Date, Timestamp, Value};

    use super::v1::{
        Append, Delete, KeyValue, Mark, Model, NamedColumn, Object, Part, Predicate, Record, Removed, Rows,
        SchemaColumn, Scope, SegmentRef, SeriesDelete, SeriesRules, Variable, VariableValue,
    };
    use super::*;
    use crate::graph::{
        BundleId, CellId, Deadline, Event, EventV1, Filter, Given, Host, Input, Key, Outcome, OutputWrite,
        ProducerDefinition, ProducerId, Read, Retry, RunId, Setback, SlotDate, SlotDefinition, SlotId, Stamp,
        Submission, Used, When, Write,
    };
    use crate::series::Rules;

    fn delete(seq: u64) -> Delete {
        let keys = vec![
            ("a".to_string(), KeyValue::Null),
            ("b".to_string(), KeyValue::Bool(true)),
            ("c".to_string(), KeyValue::I64(-1)),
            ("d".to_string(), KeyValue::F64(1.5f64.to_bits())),
            ("e".to_string(), KeyValue::Utf8("IBM".to_string())),
            ("f".to_string(), KeyValue::Timestamp(3)),
            ("g".to_string(), KeyValue::Date(4)),
        ];
        let predicate = |kind, value| Predicate { column: "x".to_string(), kind, value };
        let predicates = vec![
            predicate(0, KeyValue::Bytes(vec![1])),
            predicate(1, KeyValue::I32(2)),
            predicate(2, KeyValue::F32(3)),
            predicate(7, KeyValue::Null),
        ];
        Delete { seq, first: -5, last: i64::MAX, keys, predicates }
    }

    fn rules(seq: u64) -> SeriesRules {
        let rules = Rules {
            duplicates: Duplicates::LastNonNull,
            skip_identical: true,
            history: Duration::from_nanos(5),
            retention: Some(Duration::from_nanos(6)),
        };
        let stored = SeriesRules::new("trade", seq, &rules);
        assert_eq!(stored.rules(), Ok(rules));
        stored
    }

    #[test]
    fn every_rule_and_predicate_comes_back() {
        use underbelly_query::{Predicate as Of, Tombstone};
        let rules = |duplicates| Rules { duplicates, ..Rules::default() };
        use Duplicates::{KeepAll, LastNonNull, LastWins, Reject};
        for rules in [KeepAll, LastWins, LastNonNull, Reject].map(rules) {
            assert_eq!(SeriesRules::new("s", 0, &rules).rules(), Ok(rules));
        }
        assert!(
            SeriesRules { duplicates: 4, ..SeriesRules::new("s", 0, &Rules::default()) }.rules().is_err()
        );
        let value = || Value::Utf8("a".into());
        let predicates = [
            Of::Equal(value()),
            Of::NotEqual(value()),
            Of::Below(value()),
            Of::AtMost(value()),
            Of::Above(value()),
            Of::AtLeast(Value::Bytes(vec![1].into())),
            Of::IsNull,
            Of::NotNull,
        ];
        let predicates = predicates.into_iter().map(|predicate| ("x".into(), predicate)).collect();
        let tombstone = Tombstone::restored(3, Timestamp(1), Timestamp(2), Vec::new());
        let tombstone = tombstone.with_predicates(predicates);
        let stored = Delete::try_from(&tombstone).unwrap();
        assert_eq!(Tombstone::try_from(&stored), Ok(tombstone));
        let mut unknown = stored;
        unknown.predicates[0].kind = 8;
        assert!(Tombstone::try_from(&unknown).is_err());
    }

    fn record() -> Record {
        let column = |name, key, values: Column| NamedColumn::new(name, key, values);
        let inline = Rows::Inline {
            timestamps: vec![-1, i64::MAX],
            columns: vec![
                column("symbol", true, ["IBM", "é"].iter().collect()),
                column("price", false, vec![0.5, f64::NAN].into()),
                column(
                    "size",
                    false,
                    Column::from_parts(underbelly_storage::Values::I64(vec![7, 0]), Some(vec![true, false]))
                        .unwrap(),
                ),
            ],
        };
        let schema = vec![SchemaColumn { name: "x".to_string(), column_type: 2, key: false }];
        let segment = SegmentRef {
            file: 3,
            bytes: 4_096,
            rows: 9,
            ts_min: -5,
            ts_max: 5,
            footer_hash: [7; 32],
            seq: 0,
            schema,
        };
        let write = Write {
            slot: SlotId(1),
            date: SlotDate::Instant(Timestamp(9)),
            key: Key::new(vec!["k".into(), 2.into()]).unwrap(),
            priority: 0,
            content: Some([9; 32]),
        };
        Record {
            objects: vec![
                Object::Inline { bytes: vec![1, 2, 3] },
                Object::Chunk { id: [8; 32], file: 2, bytes: 1 << 21 },
            ],
            appends: vec![
                Append { series: "trade".to_string(), rows: inline },
                Append { series: "large".to_string(), rows: Rows::Segment(segment) },
            ],
            deletes: vec![SeriesDelete { series: "trade".to_string(), delete: delete(0) }],
            deleted_models: vec![[6; 32]],
            models: vec![Model {
                metadata: vec![0xa0],
                object: [8; 32],
                bytes: 1 << 21,
                chunks: vec![Part { id: [5; 32], bytes: 1 << 21 }],
            }],
            marks: vec![Mark {
                id: [6; 32],
                kind: 1,
                version: 0,
                name: "a".to_string(),
                value: Some(vec![0xa1, 0x61, 0x76, 1]),
            }],
            removed: vec![Removed { id: [6; 32], number: 1 }],
            collects: true,
            variables: vec![Variable {
                scope: Scope::Asset("a".to_string()),
                name: "v".to_string(),
                value: Some(VariableValue::Array(vec![1, 2])),
            }],
            event: Some(EventV1::from(&Event::Commit(Submission {
                writes: vec![write],
                ends: vec![],
                ..Submission::default()
            }))),
            rules: vec![rules(0)],
            types: Vec::new(),
        }
    }

    /// A change of these bytes is a change of the format on disk: it needs a version of its own.
    #[test]
    fn the_bytes_of_a_record_are_fixed() {
        let mut payload = encode(&record()).unwrap();
        stamp(&mut payload, Timestamp(0x0102_0304));
        let (time, read) = decode(&payload).unwrap();
        assert_eq!(time, Timestamp(0x0102_0304));
        assert_eq!(encode(&read).unwrap()[PREFIX_BYTES..], payload[PREFIX_BYTES..]);
        let hash = blake3::hash(&payload).to_hex();
        assert_eq!(payload.len(), 1592);
        assert_eq!(hash.as_str(), "e7d34c4223c178e3be30588266a9f516b641e4ce08c5b4c2747ae9c433fbf484");
    }

    /// Logical types stand before either form, and a record without any is as it was.
    #[test]
    fn logical_types_stand_before_what_else_is_there() {
        use crate::operations::{Append as Given, Operations, Rows as GivenRows};
        use crate::series::Few;
        use underbelly_storage::LogicalType;
        let types = || LogicalTypes::new().with("x", LogicalType::Decimal(3));
        let archived = Record { types: vec![("s".to_string(), types())], ..record() };
        let mut payload = encode(&archived).unwrap();
        stamp(&mut payload, Timestamp(7));
        let (time, read) = decode(&payload).unwrap();
        assert_eq!((time, &read.types), (Timestamp(7), &archived.types));
        let without = Record { types: Vec::new(), ..read };
        assert_eq!(encode(&without).unwrap(), encode(&record()).unwrap());
        let few = Few { timestamps: vec![1], columns: vec![("x".into(), vec![2i64].into())], keys: 0 };
        let append = Given {
            series: "s".into(),
            rows: GivenRows::Few(few),
            inexact: vec![],
            checked: true,
            types: None,
        };
        let rows =
            Operations { appends: vec![append], types: vec![("s".into(), types())], ..Operations::default() };
        let payload = of(&rows).unwrap();
        let read = decode(&payload).unwrap().1;
        assert_eq!((read.types, read.appends.len()), (archived.types, 1));
        assert!((16..payload.len()).all(|len| decode(&payload[..len]).is_err()));
        // A form within the form is none.
        let mut nested = payload;
        nested[16] = 2;
        assert!(decode(&nested).is_err());
    }

    /// Every kind of event, and every type of column and of variable.
    #[test]
    fn the_bytes_of_every_variant_are_fixed() {
        let slot = SlotDefinition::new("Q").cell_key("k", ColumnType::Utf8).row_key("r", ColumnType::F64);
        let yesterday = Input::optional("Q").alias("yesterday").lag(2).rename("k", "key").accept_stale();
        let filtered = Input::exclusive("S")
            .filter(Filter::one_of("a", ["x", "y"]))
            .filter(Filter::differs("b", true))
            .filter(Filter::between("c", 1.5..=2.5))
            .filter(Filter::between("d", ..Date(4)))
            .fault_tolerant();
        let producer = ProducerDefinition::new("p").requires("Q").broadcast("S").provides_at("O", -3);
        let wide = producer.clone().input(yesterday).input(filtered).group_by(["key"], When::Any);
        let host = Some(Host { machine: "m".to_string(), process: 9 });
        let output = |given| OutputWrite::new(SlotId(2), Key::empty(), given);
        let uses = Some(vec![Used { input: 1, cell: CellId(3) }]);
        let outputs = vec![
            output(Given::Absent),
            output(Given::Error("e".to_string())),
            OutputWrite { uses, ..OutputWrite::data(SlotId(2), Key::empty(), [4; 32]) },
        ];
        let end = |outcome| Event::End { run: RunId(5), epoch: 6, outcome, reads: vec![] };
        let (slot_read, date, key) = (SlotId(1), SlotDate::Day(Date(2)), Key::new(vec![3.into()]).unwrap());
        let reads = vec![
            Read::Cell { slot: slot_read, date, key: key.clone(), g: Some(4) },
            Read::Scan { slot: slot_read, date, columns: vec![5], key },
        ];
        let outcome = Outcome::Declined("r".to_string());
        let again =
            |why| end(Outcome::Again { why, message: "busy".to_string(), wait: Duration::from_nanos(9) });
        let batched = producer.clone().independent(2, Duration::from_nanos(3)).max_batch(4).max_running(5);
        let batched = batched.cutoff(Duration::from_nanos(14)).retry(Retry::new(
            6,
            Duration::from_nanos(7),
            Duration::from_nanos(8),
        ));
        let events = [
            Event::DefineSlot(slot),
            Event::Register(producer.clone()),
            Event::Register(producer.clone().group_by_date()),
            Event::Register(wide),
            Event::Attach { producer: ProducerId(4), host: None },
            Event::Attach { producer: ProducerId(4), host },
            Event::Reopen,
            Event::Commit(Submission {
                writes: vec![],
                ends: vec![SlotDate::Day(Date(-1))],
                ..Submission::default()
            }),
            Event::Start { bundle: BundleId(7), run: RunId(8), batch: RunId(6) },
            end(Outcome::Data(outputs)),
            end(Outcome::Declined("d".to_string())),
            end(Outcome::Failed("f".to_string())),
            Event::End { run: RunId(5), epoch: 6, outcome, reads },
            Event::Retract { cell: CellId(1), priority: -2 },
            Event::Force(BundleId(3)),
            Event::Cancel { bundle: BundleId(4), reason: "c".to_string() },
            Event::Deregister(ProducerId(5)),
            Event::Commit(Submission {
                writes: vec![],
                ends: vec![],
                backfill: true,
                ..Submission::default()
            }),
            again(Setback::Failed),
            again(Setback::Rejected),
            again(Setback::Halved(3)),
            Event::Tick,
            Event::Register(batched),
            Event::Register(producer.dependent()),
            Event::Detach { producer: ProducerId(6), epoch: 7, lost: true },
            Event::DefineSlot(
                SlotDefinition::new("m")
                    .member_key("who")
                    .fresh_for(Duration::from_nanos(8))
                    .max_skew(Duration::from_nanos(9)),
            ),
            Event::Register(
                ProducerDefinition::daemon("d").provides_as("m", "x").lease(Duration::from_nanos(10)),
            ),
            Event::Register(
                ProducerDefinition::new("q").requires("m").group_by(["c"], When::Quorum).provides("n"),
            ),
            Event::Commit(Submission {
                as_of: Some(Timestamp(-11)),
                session: Some(Stamp { producer: ProducerId(1), epoch: 2, sequence: 3 }),
                deadlines: vec![Deadline {
                    due_by: Timestamp(12),
                    slot: SlotId(3),
                    date: SlotDate::Instant(Timestamp(13)),
                }],
                ..Submission::default()
            }),
        ];
        let columns = ColumnType::ALL
            .into_iter()
            .map(|column_type| NamedColumn::new(column_type.name(), false, Column::nulls(column_type, 1)));
        let rows = Rows::Inline { timestamps: vec![0], columns: columns.collect() };
        let mut hasher = blake3::Hasher::new();
        for event in &events {
            let stored = EventV1::from(event);
            assert_eq!(Event::try_from(stored.clone()).as_ref(), Ok(event));
            let event = Some(stored);
            hasher.update(&encode(&Record { event, ..Record::default() }).unwrap());
        }
        let appends = vec![Append { series: "s".to_string(), rows }];
        hasher.update(&encode(&Record { appends, ..Record::default() }).unwrap());
        let values = [
            Some(VariableValue::Bool(true)),
            Some(VariableValue::I64(-1)),
            Some(VariableValue::F64(f64::NAN.to_bits())),
            Some(VariableValue::Array(vec![])),
            Some(VariableValue::Bytes(vec![9])),
            None,
        ];
        for (i, value) in values.into_iter().enumerate() {
            let scope = [Scope::Global, Scope::Episode("e".to_string()), Scope::Asset("a".to_string())];
            let scope = scope.into_iter().nth(i % 3).unwrap();
            let variables = vec![Variable { scope, name: "v".to_string(), value }];
            hasher.update(&encode(&Record { variables, ..Record::default() }).unwrap());
        }
        let hash = hasher.finalize().to_hex();
        assert_eq!(hash.as_str(), "76170b604956b652881da54efb3ee5863dee40b2d9e9fa7d25e689ea614eb8ce");
    }

    #[test]
    fn the_bytes_of_several_starts_and_ends_are_fixed() {
        let start = |run| Event::Start { bundle: BundleId(7), run: RunId(run), batch: RunId(8) };
        let end =
            |outputs| Event::End { run: RunId(5), epoch: 6, outcome: Outcome::Data(outputs), reads: vec![] };
        let output = OutputWrite::data(SlotId(2), Key::empty(), [4; 32]);
        let mut hasher = blake3::Hasher::new();
        for event in [vec![start(8), start(9)], vec![end(vec![output]), end(vec![])]].map(Event::Several) {
            let stored = EventV1::from(&event);
            assert_eq!(Event::try_from(stored.clone()), Ok(event));
            hasher.update(&encode(&Record { event: Some(stored), ..Record::default() }).unwrap());
        }
        assert_eq!(
            hasher.finalize().to_hex().as_str(),
            "9fea947dde38c4dd6c0383e9f5c04eaccaebe9ed5a56c7171211a815f89ddd91"
        );
    }

    #[test]
    fn the_bytes_of_a_manifest_are_fixed() {
        let manifest = super::v1::Manifest {
            seq: 2,
            time: 2,
            next_file: 9,
            next_run: 1,
            log_file_bytes: 65_536,
            previous: 3,
            images: vec![super::v1::Image { file: 4, bytes: 300, records: 2, index_hash: [1; 32] }],
            series: vec![super::v1::Series {
                name: "trade".to_string(),
                columns: vec![SchemaColumn { name: "x".to_string(), column_type: 2, key: true }],
                segments: vec![],
                last_seq: 2,
                deletes: vec![delete(2)],
                inexact: vec!["x".to_string()],
                made: 1,
                added: vec![1],
                horizon: 2,
                rules: vec![rules(1)],
                types: LogicalTypes::new(),
                appended_bytes: 3,
                written_bytes: 4,
            }],
            packs: vec![5],
            chunks: vec![super::v1::Chunk { id: [8; 32], file: 6, bytes: 7 }],
            logged: vec![6],
            log: Some(super::v1::LogPlace { file: 1, salt: 10, offset: 8192, batch: 3, seq: 2, crc: 11 }),
            cleared: vec![super::v1::Cleared { file: 7, seq: 2 }],
            damaged: vec!["a segment".to_string()],
        };
        let hash = blake3::hash(&to_archive(&manifest).unwrap()).to_hex();
        assert_eq!(hash.as_str(), "2c891357857e02fb5982bbb7b64ae1b5d94cc317dcfa164cfb5c5308b45c4031");
    }

    #[test]
    fn other_versions_and_cut_records_are_refused() {
        let payload = encode(&record()).unwrap();
        for cut in 0..payload.len() {
            assert!(decode(&payload[..cut]).is_err(), "{cut}");
        }
        let mut newer = payload;
        newer[8] = 2;
        assert!(decode(&newer).unwrap_err().contains("version 2"));
    }
}
