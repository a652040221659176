//! The definition of a producer that comes over a connection.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use underbelly_storage::Value;

use crate::field::Field;

/// What a producer is: its inputs, how they make bundles, and the slots that it provides.
///
/// ```
/// use std::time::Duration;
/// use underbelly_protocol::definition::{Definition, InputDefinition, When};
/// let generator = Definition::daemon("generator-1000").provides_as("Signal", "1000").lease(Duration::from_secs(30));
/// let strategy = Definition::new("strategy")
///     .input(InputDefinition::required("Signal").equals("generator", "1000"))
///     .group_by::<String>([], When::Quorum)
///     .provides_as("Decision", "strategy");
/// # let _ = (generator, strategy);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// It has no inputs and no runs, and commits when it likes.
    pub daemon: bool,
    /// How long it may give no sign of life, in milliseconds; for ever where it is left out.
    pub lease_ms: Option<u64>,
    /// Its inputs.
    pub inputs: Vec<InputDefinition>,
    /// How they make bundles; one for each joined tuple where it is left out.
    pub group: Option<GroupDefinition>,
    /// The slots that it provides.
    pub outputs: Vec<OutputDefinition>,
    /// Bundles that are enough to start; 0 counts as 1.
    pub min_batch: u32,
    /// How long the oldest waits for others, in milliseconds.
    pub max_wait_ms: u64,
    /// Most bundles of a batch; 0 counts as 1.
    pub max_batch: u32,
    /// Most batches at once; any number where it is left out.
    pub max_running: Option<u32>,
    /// It waits until all that is upstream has ended for the date.
    pub dependent: bool,
    /// How long after its beginning a date counts as ended, in milliseconds; for ever where it is left out.
    pub cutoff_ms: Option<u64>,
    /// How failed runs are tried again; as ever where it is left out.
    pub retry: Option<RetryDefinition>,
}

/// An input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InputDefinition {
    /// The slot.
    pub slot: String,
    /// Its name in runs; the slot's where it is empty.
    pub alias: String,
    /// What it is to a run.
    pub mode: Mode,
    /// Each of its cells is joined with all tuples.
    pub broadcast: bool,
    /// Cell keys that have another name in the join.
    pub renames: Vec<(String, String)>,
    /// What its cells must be.
    pub filters: Vec<FilterDefinition>,
    /// Days before the bundle's date.
    pub lag: u32,
    /// A value whose production failed may be read.
    pub fault_tolerant: bool,
    /// A stale value may be read.
    pub accept_stale: bool,
}

/// What an input is to a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A run needs it.
    #[default]
    Required,
    /// A run reads it where it is there.
    Optional,
    /// A run takes place only where it is not there.
    Exclusive,
}

/// What a cell key must be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilterDefinition {
    /// The cell key.
    pub column: String,
    /// It is one of these, unless this is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_of: Option<Vec<Field>>,
    /// It is none of these.
    pub none_of: Vec<Field>,
}

/// How cells make bundles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupDefinition {
    /// Columns of the join; none for one bundle for each date.
    pub columns: Vec<String>,
    /// When it may start.
    pub when: When,
}

/// When the bundle of a group may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// When all that is upstream has ended for the date.
    #[default]
    Complete,
    /// With each tuple.
    Any,
    /// When each member has given its cell.
    Quorum,
}

/// A slot that is provided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputDefinition {
    /// The slot.
    pub slot: String,
    /// The priority of its data.
    pub priority: i32,
    /// The member as which it is provided.
    pub member: Option<String>,
}

/// How failed runs are tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryDefinition {
    /// Attempts in a row.
    pub max_attempts: u32,
    /// The first wait, in milliseconds.
    pub backoff_ms: u64,
    /// The longest.
    pub max_backoff_ms: u64,
}

/// Milliseconds as they are told.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Definition {
    /// A producer without inputs and outputs.
    pub fn new(name: impl Into<String>) -> Definition {
        Definition { name: name.into(), ..Definition::default() }
    }

    /// A daemon without outputs.
    pub fn daemon(name: impl Into<String>) -> Definition {
        Definition { daemon: true, ..Definition::new(name) }
    }

    /// How long it may give no sign of life.
    pub fn lease(mut self, silence: Duration) -> Definition {
        self.lease_ms = Some(milliseconds(silence));
        self
    }

    /// Adds an input.
    pub fn input(mut self, input: InputDefinition) -> Definition {
        self.inputs.push(input);
        self
    }

    /// Adds a required input.
    pub fn requires(self, slot: impl Into<String>) -> Definition {
        self.input(InputDefinition::required(slot))
    }

    /// One bundle for each date and each value of these columns.
    pub fn group_by<S: Into<String>>(
        mut self,
        columns: impl IntoIterator<Item = S>,
        when: When,
    ) -> Definition {
        self.group = Some(GroupDefinition { columns: columns.into_iter().map(Into::into).collect(), when });
        self
    }

    /// Adds a provided slot.
    pub fn provides(mut self, slot: impl Into<String>) -> Definition {
        self.outputs.push(OutputDefinition { slot: slot.into(), ..OutputDefinition::default() });
        self
    }

    /// Adds a slot that it provides as a member.
    pub fn provides_as(mut self, slot: impl Into<String>, member: impl Into<String>) -> Definition {
        let (slot, member) = (slot.into(), Some(member.into()));
        self.outputs.push(OutputDefinition { slot, member, ..OutputDefinition::default() });
        self
    }

    /// Most bundles of a batch.
    pub fn max_batch(mut self, bundles: u32) -> Definition {
        self.max_batch = bundles;
        self
    }

    /// Waits until all that is upstream has ended for the date.
    pub fn dependent(mut self) -> Definition {
        self.dependent = true;
        self
    }

    /// How long after its beginning a date counts as ended.
    pub fn cutoff(mut self, after: Duration) -> Definition {
        self.cutoff_ms = Some(milliseconds(after));
        self
    }

    /// How failed runs are tried again.
    pub fn retry(mut self, max_attempts: u32, backoff: Duration, max_backoff: Duration) -> Definition {
        let (backoff_ms, max_backoff_ms) = (milliseconds(backoff), milliseconds(max_backoff));
        self.retry = Some(RetryDefinition { max_attempts, backoff_ms, max_backoff_ms });
        self
    }
}

impl InputDefinition {
    /// An input that a run needs.
    pub fn required(slot: impl Into<String>) -> InputDefinition {
        InputDefinition { slot: slot.into(), ..InputDefinition::default() }
    }

    /// An input that a run reads where it is there.
    pub fn optional(slot: impl Into<String>) -> InputDefinition {
        InputDefinition { mode: Mode::Optional, ..InputDefinition::required(slot) }
    }

    /// An input that forbids runs where it is there.
    pub fn exclusive(slot: impl Into<String>) -> InputDefinition {
        InputDefinition { mode: Mode::Exclusive, ..InputDefinition::required(slot) }
    }

    /// Gives it another name in runs.
    pub fn alias(mut self, name: impl Into<String>) -> InputDefinition {
        self.alias = name.into();
        self
    }

    /// Takes only cells that have this value in a key.
    pub fn equals(self, column: impl Into<String>, value: impl Into<Value>) -> InputDefinition {
        self.one_of(column, [value])
    }

    /// Takes only cells that have one of these values in a key.
    pub fn one_of<V: Into<Value>>(
        mut self,
        column: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> InputDefinition {
        let one_of = Some(values.into_iter().map(|value| Field(value.into())).collect());
        self.filters.push(FilterDefinition { column: column.into(), one_of, none_of: Vec::new() });
        self
    }

    /// Takes the cells of so many days before.
    pub fn lag(mut self, days: u32) -> InputDefinition {
        self.lag = days;
        self
    }
}
