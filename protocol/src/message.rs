//! Messages. In CBOR each is a map with one entry: its name, and a map of its fields.
//!
//! A field that is not known is ignored, one that is left out has the value that its type begins with: so both sides may
//! learn more without another version.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use underbelly_storage::Timestamp;

use crate::definition::Definition;
use crate::error::ProtocolError;
use crate::field::Field;
use crate::limits::DEPTH_MAX;

/// A part of the frame's data: one Arrow IPC stream, or the blob of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Where it begins.
    pub at: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// Refuses parts of the data that are longer together than it is: each is read by itself, and bytes that several share would be read
/// as often.
///
/// # Errors
/// [`ProtocolError::Rows`].
pub fn check_spans(spans: impl IntoIterator<Item = Span>, data: &[u8]) -> Result<(), ProtocolError> {
    let all = spans.into_iter().fold(0u64, |all, span| all.saturating_add(span.bytes));
    match all > data.len() as u64 {
        false => Ok(()),
        true => {
            let what = format!("its parts have {all} bytes in all, of a data part of {} bytes", data.len());
            Err(ProtocolError::rows(what))
        }
    }
}

impl Results {
    /// Where its rows and blobs are.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.results.iter().flat_map(|result| {
            let rows = result.outputs.iter().filter_map(|output| output.rows);
            rows.chain(result.models.iter().map(|model| model.blob))
        })
    }
}

impl Commit {
    /// Where its rows and blobs are.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        let rows = self.cells.iter().filter_map(|cell| cell.rows);
        rows.chain(self.models.iter().map(|model| model.blob))
    }
}

/// The dict of a model: a JSON object, and beside it what of its own entries is instants, which JSON does not have.
///
/// ```
/// use underbelly_protocol::message::Metadata;
/// use underbelly_storage::Timestamp;
/// let metadata = Metadata::json(r#"{"type": "scaler", "symbol": "IBM"}"#).instant("timestamp", Timestamp(5));
/// assert_eq!(metadata.instants["timestamp"], 5);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// A JSON object.
    pub json: String,
    /// Entries that are instants, in nanoseconds since 1970 UTC. None of them is in the JSON too.
    pub instants: BTreeMap<String, i64>,
}

impl Metadata {
    /// The dict that a JSON object is.
    pub fn json(text: impl Into<String>) -> Metadata {
        Metadata { json: text.into(), instants: BTreeMap::new() }
    }

    /// Adds an entry that is an instant.
    pub fn instant(mut self, name: impl Into<String>, at: Timestamp) -> Metadata {
        self.instants.insert(name.into(), at.0);
        self
    }
}

/// A version of a model that is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelVersion {
    /// The model's identity, in hexadecimal digits.
    pub id: String,
    /// The version's number.
    pub version: u64,
    /// The hash of the blob, in hexadecimal digits: the same for the same bytes, cut into the same chunks.
    pub content: String,
    /// The whole dict that was put with it.
    pub metadata: Metadata,
    /// Its blob.
    pub blob: Span,
}

/// A version of a model that is put.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PutModel {
    /// Its dict.
    pub metadata: Metadata,
    /// Its blob.
    pub blob: Span,
}

/// Until when there is to be something in a slot for a date.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Due {
    /// The slot.
    pub slot: String,
    /// The date.
    pub date: Field,
    /// A timestamp.
    pub by: Field,
}

impl Span {
    /// These bytes of the data.
    pub fn of(self, data: &[u8]) -> Result<&[u8], ProtocolError> {
        let start = usize::try_from(self.at).ok();
        let end = self.at.checked_add(self.bytes).and_then(|end| usize::try_from(end).ok());
        let found = start.zip(end).and_then(|(start, end)| data.get(start..end));
        found.ok_or_else(|| {
            let Span { at, bytes } = self;
            ProtocolError::rows(format!("{bytes} bytes at {at} of a data part of {} bytes", data.len()))
        })
    }
}

/// The values of a key by column.
pub type KeyFields = BTreeMap<String, Field>;

/// The first message of whoever connects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// The version of the protocol.
    pub protocol: u32,
    /// What it is: `worker`, a child that works for its producer; `client`; or `producer`, which opens a session, of a daemon
    /// or of a producer with runs.
    pub role: String,
    /// The producer for which it works; empty where the other side knows.
    pub producer: String,
    /// Its process.
    pub process: u32,
    /// The language in which it is written, for people.
    pub language: String,
    /// What it can do beside what every one of its role can.
    pub capabilities: Vec<String>,
    /// What the producer is, of a `producer`; where it is left out, one of this name is registered.
    pub definition: Option<Definition>,
    /// The last epoch that it had, 0 before the first: one that had a session does not register anew what was taken out.
    pub epoch: u64,
}

/// The answer to a hello.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Welcome {
    /// The version of the protocol that is spoken from here on.
    pub protocol: u32,
    /// The producer.
    pub producer: String,
    /// The epoch of its session.
    pub epoch: u64,
    /// The number of the last commit of a daemon that was accepted, if one was.
    pub last: Option<u64>,
    /// How often the other side tells that it lives, in milliseconds: a worker while it has work, a session all the time.
    pub heartbeat_ms: u64,
    /// Its inputs.
    pub inputs: Vec<InputSlot>,
    /// The slots that it provides.
    pub outputs: Vec<SlotColumns>,
}

/// An input of a producer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InputSlot {
    /// Its name in runs.
    pub input: String,
    /// The slot.
    pub slot: SlotColumns,
}

/// A slot, and its columns by name and type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotColumns {
    /// Its name.
    pub slot: String,
    /// What a cell is addressed by, beside its date.
    pub cell_keys: Vec<(String, String)>,
    /// What a row of a cell is addressed by.
    pub row_keys: Vec<(String, String)>,
    /// The other columns of a row.
    pub values: Vec<(String, String)>,
}

/// Work: the runs of a batch. All read one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// The batch: the number of its first run.
    pub batch: u64,
    /// The epoch of the session.
    pub epoch: u64,
    /// The snapshot: the last transaction that it shows.
    pub seq: u64,
    /// The runs.
    pub runs: Vec<BundleRun>,
}

/// A run over one bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BundleRun {
    /// Its unique number.
    pub pid: u64,
    /// Failures in a row before it.
    #[serde(default)]
    pub attempts: u32,
    /// The bundle's date.
    pub date: Field,
    /// The bundle's key.
    #[serde(default)]
    pub key: KeyFields,
    /// Its inputs, in the order of the producer's definition.
    #[serde(default)]
    pub inputs: Vec<InputCells>,
}

/// The cells of an input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InputCells {
    /// The input's name.
    pub input: String,
    /// One cell, or those of a group in order of their keys; none of an optional input that is not there.
    pub cells: Vec<CellRows>,
}

/// A cell that a run reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CellRows {
    /// Its key.
    pub key: KeyFields,
    /// The generation that is read.
    pub generation: u64,
    /// Its rows.
    pub rows: Span,
    /// The version that it says, of a slot of models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelVersion>,
}

/// What runs came to. One message may answer a whole batch, or some of its runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Results {
    /// The batch.
    pub batch: u64,
    /// The epoch that the run said.
    pub epoch: u64,
    /// The answers.
    pub results: Vec<RunResult>,
}

/// What one run came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunResult {
    /// The run.
    pub pid: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it gave nothing.
    pub message: String,
    /// What it gave.
    pub outputs: Vec<OutputCell>,
    /// Versions of models that it gave, whose types are slots of models that its producer provides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<PutModel>,
    /// What it read beside its inputs.
    pub reads: Vec<CellRead>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// With its outputs. What the bundle gave before and that is not among them becomes absent.
    Completed,
    /// There is nothing to give, and that is fine.
    Declined,
    /// It failed, and may succeed later.
    Retry,
    /// It was not taken up, since something that it needs is too busy.
    Rejected,
    /// It failed for good.
    #[default]
    Fatal,
}

/// An output of a run: rows, an error, or that there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputCell {
    /// The slot.
    pub slot: String,
    /// Key columns; those left out are the bundle's.
    pub key: KeyFields,
    /// Its rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<Span>,
    /// Why it could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The inputs on which it rests; all where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<Vec<String>>,
}

/// A cell that a run read beside its inputs: it runs again where that changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellRead {
    /// The slot.
    pub slot: String,
    /// The date.
    pub date: Field,
    /// The key.
    #[serde(default)]
    pub key: KeyFields,
    /// The generation that was read; left out where there was no data.
    #[serde(default)]
    pub generation: Option<u64>,
}

/// Whoever has work lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// The batch that it works on.
    pub batch: u64,
}

/// What runs give is not wanted any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cancel {
    /// The batch.
    pub batch: u64,
    /// Its runs that are cancelled.
    pub pids: Vec<u64>,
    /// Why.
    pub reason: String,
}

/// A line for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// The line.
    pub line: String,
}

/// What a daemon commits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Commit {
    /// The epoch of its session.
    pub epoch: u64,
    /// Its own number of what it commits: greater than those before, whatever the epoch. That of a client says nothing.
    pub source: u64,
    /// Cells with rows, or that are taken back.
    pub cells: Vec<CommitCell>,
    /// Versions of models, whose types are slots of models.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<PutModel>,
    /// Dates for which it announces no further keys.
    pub end_of: Vec<Field>,
    /// Until when there is to be something for a date.
    pub due: Vec<Due>,
    /// When it was made; now where it is left out.
    pub as_of: Option<Field>,
}

/// A cell that is committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommitCell {
    /// The slot.
    pub slot: String,
    /// The date.
    pub date: Field,
    /// The key.
    #[serde(default)]
    pub key: KeyFields,
    /// Its rows; left out to take them back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Span>,
}

/// The answer to a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// The commit's source number.
    pub source: u64,
    /// What became of it.
    pub verdict: Verdict,
    /// The transaction; 0 of a duplicate.
    pub seq: u64,
    /// Why it was refused.
    pub message: String,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is durable.
    Accepted,
    /// It was durable before.
    Duplicate,
    /// Another session has taken over; nothing was changed.
    Fenced,
    /// It cannot be committed; nothing was changed.
    #[default]
    Refused,
}

/// A producer is to be taken out. The answer has the number 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deregister {
    /// The producer.
    pub producer: String,
}

/// What the other side sent cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Complaint {
    /// The message that it is about.
    pub about: String,
    /// What is wrong with it.
    pub message: String,
    /// What it means for who sent it.
    pub code: Code,
}

/// What a complaint means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Code {
    /// It was wrong, and will be again.
    #[default]
    Refused,
    /// Somebody else has the session.
    Taken,
    /// The session is over, or its producer was taken out.
    Over,
}

/// The last message of either side: no more work, or no more answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Goodbye {
    /// Why, for people.
    pub reason: String,
    /// The producer of the session is to be taken out.
    pub leave: bool,
}

macro_rules! messages {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// A message.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Message {
            $($(#[$doc])* $variant($variant),)*
            /// One that this version does not know, by its name.
            Unknown(String),
        }

        impl Message {
            /// Its name.
            pub fn name(&self) -> &str {
                match self {
                    $(Message::$variant(_) => $name,)*
                    Message::Unknown(name) => name,
                }
            }
        }

        impl Serialize for Message {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(1))?;
                match self {
                    $(Message::$variant(fields) => map.serialize_entry($name, fields)?,)*
                    Message::Unknown(name) => map.serialize_entry(name, &BTreeMap::<String, Field>::new())?,
                }
                map.end()
            }
        }

        impl<'de> Visitor<'de> for MessageVisitor {
            type Value = Message;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map with one entry, a message's name and its fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message, A::Error> {
                let name: Option<String> = map.next_key()?;
                let name = name.unwrap_or_default();
                let message = match name.as_str() {
                    $($name => Message::$variant(map.next_value()?),)*
                    _ => {
                        map.next_value::<IgnoredAny>()?;
                        Message::Unknown(name)
                    }
                };
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(message)
            }
        }
    };
}

messages! {
    /// The first of whoever connects.
    Hello = "hello",
    /// The answer to it.
    Welcome = "welcome",
    /// Work.
    Run = "run",
    /// What it came to.
    Results = "results",
    /// Whoever has work lives.
    Heartbeat = "heartbeat",
    /// Work that is not wanted any more.
    Cancel = "cancel",
    /// A line for the log.
    Log = "log",
    /// What a daemon commits.
    Commit = "commit",
    /// What became of it.
    Answer = "answer",
    /// A producer is to be taken out.
    Deregister = "deregister",
    /// What was sent cannot be used.
    Complaint = "complaint",
    /// The last.
    Goodbye = "goodbye",
}

struct MessageVisitor;

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Message, D::Error> {
        deserializer.deserialize_map(MessageVisitor)
    }
}

impl Message {
    /// Its bytes.
    ///
    /// # Errors
    /// [`ProtocolError::Message`].
    pub fn encode(&self) -> Result<Vec<u8>, ProtocolError> {
        let mut bytes = Vec::with_capacity(256);
        ciborium::ser::into_writer(self, &mut bytes)
            .map_err(|error| ProtocolError::Message { what: format!("{:?}: {error}", self.name()) })?;
        Ok(bytes)
    }

    /// The message of these bytes.
    ///
    /// # Errors
    /// [`ProtocolError::Message`], which names it as far as it could be read.
    pub fn decode(bytes: &[u8]) -> Result<Message, ProtocolError> {
        use ciborium::de::Error::{RecursionLimitExceeded, Semantic, Syntax};
        let mut rest = bytes;
        let read = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX);
        let what = match read {
            Ok(_) if !rest.is_empty() => format!("{} bytes are behind it", rest.len()),
            Ok(message) => return Ok(message),
            Err(Semantic(_, what)) => match name_of(bytes) {
                Some(name) => format!("{name:?}: {what}"),
                None => what,
            },
            Err(Syntax(at)) => format!("no CBOR at byte {at}"),
            Err(RecursionLimitExceeded) => format!("it is nested deeper than {DEPTH_MAX} levels"),
            Err(ciborium::de::Error::Io(_)) => "it is cut short".to_string(),
        };
        Err(ProtocolError::Message { what })
    }
}

/// The name of a message of which more cannot be read.
fn name_of(bytes: &[u8]) -> Option<String> {
    let read = ciborium::de::from_reader_with_recursion_limit(bytes, DEPTH_MAX);
    let entries: BTreeMap<String, IgnoredAny> = read.ok()?;
    entries.into_keys().next()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ciborium::Value as Cbor;
    use ciborium::cbor;
    use underbelly_storage::{Date, Value};

    fn of(value: Cbor) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::ser::into_writer(&value, &mut bytes).unwrap();
        bytes
    }

    fn run() -> Message {
        let key = |value: Value| KeyFields::from([("expiry".to_string(), Field(value))]);
        let rows = Span { at: 8, bytes: 16 };
        let metadata = Metadata::json("{\"type\": \"Vol\"}").instant("timestamp", Timestamp(-1));
        let (id, content) = ("0f".repeat(32), "f0".repeat(32));
        let model = ModelVersion { id, version: 2, content, metadata, blob: Span { at: 24, bytes: 3 } };
        let cells = vec![CellRows { key: key("x".into()), generation: 3, rows, model: Some(model) }];
        Message::Run(Run {
            batch: 7,
            epoch: 2,
            seq: 9,
            runs: vec![BundleRun {
                pid: 7,
                attempts: 1,
                date: Field(Value::Date(Date(19_000))),
                key: key(Value::Timestamp(Timestamp(-5))),
                inputs: vec![InputCells { input: "Vol".to_string(), cells }],
            }],
        })
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let put = PutModel { metadata: Metadata::json("{}"), blob: Span { at: 0, bytes: 9 } };
        let models = vec![put];
        let results = RunResult { pid: 7, message: "no".to_string(), models, ..RunResult::default() };
        for message in [
            run(),
            Message::Hello(Hello { protocol: 1, role: "worker".to_string(), ..Hello::default() }),
            Message::Results(Results { batch: 7, epoch: 2, results: vec![results] }),
            Message::Heartbeat(Heartbeat { batch: 7 }),
            Message::Answer(Answer { source: 4, verdict: Verdict::Duplicate, seq: 1, ..Answer::default() }),
            Message::Unknown("dance".to_string()),
        ] {
            assert_eq!(Message::decode(&message.encode().unwrap()).unwrap(), message);
        }
    }

    #[test]
    fn more_and_less_than_is_known_is_read() {
        let more = of(cbor!({ "heartbeat" => { "batch" => 3, "mood" => { "good" => [1, 2] } } }).unwrap());
        assert_eq!(Message::decode(&more).unwrap(), Message::Heartbeat(Heartbeat { batch: 3 }));
        let less = of(cbor!({ "heartbeat" => {} }).unwrap());
        assert_eq!(Message::decode(&less).unwrap(), Message::Heartbeat(Heartbeat::default()));
        let unknown = of(cbor!({ "dance" => [1, { "a" => null }] }).unwrap());
        assert_eq!(Message::decode(&unknown).unwrap(), Message::Unknown("dance".to_string()));
    }

    #[test]
    fn what_is_no_message_is_told() {
        let told = |bytes: &[u8]| Message::decode(bytes).unwrap_err().to_string();
        let wrong = told(&of(cbor!({ "results" => { "batch" => "three" } }).unwrap()));
        assert!(wrong.contains("\"results\"") && wrong.contains("expected integer"), "{wrong}");
        let verdict = told(&of(cbor!({ "results" => { "results" => [{ "outcome" => "shrug" }] } }).unwrap()));
        assert!(verdict.contains("shrug") && verdict.contains("completed"), "{verdict}");
        let nested = (0..40).fold(Cbor::Null, |inner, _| Cbor::Array(vec![inner]));
        let deep = told(&of(Cbor::Map(vec![("dance".into(), nested)])));
        assert!(deep.contains("deeper than 16"), "{deep}");
        assert!(told(&[0xa1]).contains("cut short"));
        assert!(told(&[run().encode().unwrap(), vec![0]].concat()).contains("1 bytes are behind"));
        // A text that says that it has 2^62 bytes.
        assert!(told(&[0xa1, 0x7b, 0x40, 0, 0, 0, 0, 0, 0, 0, b'r']).contains("cut short"));
    }
}
