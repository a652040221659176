//! What users declare: slots, and producers that turn slots into slots.

use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use underbelly_storage::{ColumnType, Value};

/// A named dataset definition. `cell_keys` address a cell; `row_keys` are the primary key of the rows inside one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotDefinition {
    /// The name, such as `MarketData.Vanilla.Totem`.
    pub name: String,
    /// Key columns that address a cell, in order.
    pub cell_keys: Vec<(String, ColumnType)>,
    /// Key columns of the rows inside a cell, in order.
    pub row_keys: Vec<(String, ColumnType)>,
    /// The other columns, in order.
    pub values: Vec<(String, ColumnType)>,
    /// The cell key that names who gives a cell, where several producers share the slot: see [`SlotDefinition::member_key`].
    pub members: Option<String>,
    /// How long what a client or a daemon committed counts as fresh: see [`SlotDefinition::fresh_for`].
    pub fresh_for: Option<Duration>,
    /// How far the stamp of a commit may be ahead of the engine's clock: see [`SlotDefinition::max_skew`].
    pub max_skew: Option<Duration>,
}

impl SlotDefinition {
    /// A slot without columns.
    pub fn new(name: impl Into<String>) -> SlotDefinition {
        SlotDefinition {
            name: name.into(),
            cell_keys: Vec::new(),
            row_keys: Vec::new(),
            values: Vec::new(),
            members: None,
            fresh_for: None,
            max_skew: None,
        }
    }

    /// Adds a key column that addresses cells. Bytes are refused when the slot is defined.
    pub fn cell_key(mut self, name: impl Into<String>, column_type: ColumnType) -> SlotDefinition {
        self.cell_keys.push((name.into(), column_type));
        self
    }

    /// Adds a key column of the rows inside a cell.
    pub fn row_key(mut self, name: impl Into<String>, column_type: ColumnType) -> SlotDefinition {
        self.row_keys.push((name.into(), column_type));
        self
    }

    /// Adds a column that is no key.
    pub fn value(mut self, name: impl Into<String>, column_type: ColumnType) -> SlotDefinition {
        self.values.push((name.into(), column_type));
        self
    }

    /// Adds a cell key of text that says who gives a cell: each producer that is registered with
    /// [`ProducerDefinition::provides_as`] is a member of the slot, and gives the cells that have its member's name here.
    /// [`When::Quorum`] waits for all members.
    pub fn member_key(mut self, name: impl Into<String>) -> SlotDefinition {
        let name = name.into();
        self.members = Some(name.clone());
        self.cell_key(name, ColumnType::Utf8)
    }

    /// What a client or a daemon committed is stale once it is so old, and its dependents are not made from it, until it is
    /// committed again, be it with equal contents. Counts from the commit's stamp
    /// ([`Batch::as_of`](crate::Batch::as_of)), else from the commit. Of each key only what has the newest date grows old:
    /// earlier dates are history.
    pub fn fresh_for(mut self, age: Duration) -> SlotDefinition {
        self.fresh_for = Some(age);
        self
    }

    /// Refuses commits whose stamp ([`Batch::as_of`](crate::Batch::as_of)) is further ahead of the engine's clock.
    pub fn max_skew(mut self, ahead: Duration) -> SlotDefinition {
        self.max_skew = Some(ahead);
        self
    }

    /// The position of the cell key that names members.
    pub(super) fn member_position(&self) -> Option<usize> {
        let members = self.members.as_ref()?;
        self.cell_keys.iter().position(|(name, _)| name == members)
    }

    /// All columns: cell keys, row keys, values.
    pub fn columns(&self) -> impl Iterator<Item = &(String, ColumnType)> {
        self.cell_keys.iter().chain(&self.row_keys).chain(&self.values)
    }

    /// The name of the slot's table: `.` becomes `_`.
    pub fn table_name(&self) -> String {
        self.name.replace('.', "_")
    }
}

/// What an input is to a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A run needs it: its cells make the bundles.
    #[default]
    Required,
    /// A run reads it where it is there; its coming, changing or going is a reason to run again.
    Optional,
    /// A run takes place only where it is not there.
    Exclusive,
}

/// An input of a producer. Inputs are joined on the date and on equal names of cell keys.
///
/// ```
/// use underbelly::{Filter, Input};
/// let quotes = Input::required("Quotes").filter(Filter::equals("kind", "call"));
/// let tenors = Input::required("Tenors").rename("expiry", "k");
/// let yesterday = Input::optional("Quotes").alias("yesterday").lag(1);
/// let overrides = Input::exclusive("Overrides");
/// # let _ = (quotes, tenors, yesterday, overrides);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The slot's name.
    pub slot: String,
    /// The name under which a run finds it; the slot's name unless given. Each input has another.
    pub alias: String,
    /// What it is to a run.
    pub mode: Mode,
    /// Whether the input may share no key column with the others: each of its cells is then joined with all.
    pub broadcast: bool,
    /// Cell keys of the slot that have another name in the join: the slot's name, the join's name.
    pub renames: Vec<(String, String)>,
    /// Cells that fail one of these are no input: they make no work. Columns have the slot's names.
    pub filters: Vec<Filter>,
    /// How many days before the bundle's date its cells are; 0 for the same date. An instant lags by as many
    /// times 24 hours.
    pub lag: u32,
    /// Whether a value whose production failed, but that is there, may be read.
    pub fault_tolerant: bool,
    /// Whether a value that does not agree with its inputs, and will not for now, may be read.
    pub accept_stale: bool,
}

impl Input {
    /// An input that a run needs.
    pub fn required(slot: impl Into<String>) -> Input {
        Input::of(slot.into(), Mode::Required)
    }

    /// An input that a run reads where it is there.
    pub fn optional(slot: impl Into<String>) -> Input {
        Input::of(slot.into(), Mode::Optional)
    }

    /// An input that forbids runs where it is there. On a slot that the producer itself provides it speaks of
    /// higher priorities alone: the producer fills in what nobody better gives.
    pub fn exclusive(slot: impl Into<String>) -> Input {
        Input::of(slot.into(), Mode::Exclusive)
    }

    fn of(slot: String, mode: Mode) -> Input {
        Input {
            alias: slot.clone(),
            slot,
            mode,
            broadcast: false,
            renames: Vec::new(),
            filters: Vec::new(),
            lag: 0,
            fault_tolerant: false,
            accept_stale: false,
        }
    }

    /// Gives the input another name, so that one slot may be an input twice.
    pub fn alias(mut self, name: impl Into<String>) -> Input {
        self.alias = name.into();
        self
    }

    /// Joins each cell with all tuples of the date where no column is shared.
    pub fn broadcast(mut self) -> Input {
        self.broadcast = true;
        self
    }

    /// Joins a cell key of the slot under another name.
    pub fn rename(mut self, column: impl Into<String>, name: impl Into<String>) -> Input {
        self.renames.push((column.into(), name.into()));
        self
    }

    /// Takes only cells that pass this filter, and each other one of the input.
    pub fn filter(mut self, filter: Filter) -> Input {
        self.filters.push(filter);
        self
    }

    /// Takes the cells of so many days before the bundle's date.
    pub fn lag(mut self, days: u32) -> Input {
        self.lag = days;
        self
    }

    /// Reads a value also where its production failed, as long as there is one.
    pub fn fault_tolerant(mut self) -> Input {
        self.fault_tolerant = true;
        self
    }

    /// Reads a value also where it does not agree with its inputs and nothing will mend that for now.
    pub fn accept_stale(mut self) -> Input {
        self.accept_stale = true;
        self
    }
}

impl From<&str> for Input {
    /// The required input of this slot.
    fn from(slot: &str) -> Input {
        Input::required(slot)
    }
}

impl From<String> for Input {
    /// The required input of this slot.
    fn from(slot: String) -> Input {
        Input::required(slot)
    }
}

/// What a cell key must be for a cell to be an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// The cell key, as the slot names it.
    pub column: String,
    /// What is asked of its value.
    pub test: FilterTest,
}

/// What a [`Filter`] asks of a value. Values have the column's type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FilterTest {
    /// It is one of these.
    OneOf(Vec<Value>),
    /// It is none of these.
    NoneOf(Vec<Value>),
    /// It lies between these.
    Between(Bound<Value>, Bound<Value>),
}

impl Filter {
    /// The column has this value.
    pub fn equals(column: impl Into<String>, value: impl Into<Value>) -> Filter {
        Filter::one_of(column, [value])
    }

    /// The column has another value.
    pub fn differs(column: impl Into<String>, value: impl Into<Value>) -> Filter {
        Filter::none_of(column, [value])
    }

    /// The column has one of these values.
    pub fn one_of<V: Into<Value>>(column: impl Into<String>, values: impl IntoIterator<Item = V>) -> Filter {
        let values = values.into_iter().map(Into::into).collect();
        Filter { column: column.into(), test: FilterTest::OneOf(values) }
    }

    /// The column has none of these values.
    pub fn none_of<V: Into<Value>>(column: impl Into<String>, values: impl IntoIterator<Item = V>) -> Filter {
        let values = values.into_iter().map(Into::into).collect();
        Filter { column: column.into(), test: FilterTest::NoneOf(values) }
    }

    /// The column's value lies in this range, such as `90.0..=110.0` or `100..`.
    pub fn between<V: Into<Value> + Clone>(column: impl Into<String>, range: impl RangeBounds<V>) -> Filter {
        let start = range.start_bound().cloned().map(Into::into);
        let end = range.end_bound().cloned().map(Into::into);
        Filter { column: column.into(), test: FilterTest::Between(start, end) }
    }
}

/// How cells make bundles.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// A bundle for each joined tuple of cells.
    Each,
    /// One bundle for each date and each value of these columns of the join, of all the tuples that have it.
    By {
        /// Columns of the join; none for one bundle for each date.
        columns: Vec<String>,
        /// When it may start.
        when: When,
    },
}

impl Group {
    /// One bundle for each date, which starts when its scope is closed.
    pub const BY_DATE: Group = Group::By { columns: Vec::new(), when: When::Complete };
}

/// When the bundle of a group may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum When {
    /// When nothing upstream of the producer is in work for the date and the group's columns, and
    /// [`Batch::end_of`](crate::Batch::end_of) declared the end of each required input's date. What changes later
    /// makes it run again, without another end.
    #[default]
    Complete,
    /// As soon as it has a tuple, and again with each that comes or goes.
    Any,
    /// When each member has given its cell: of each required input whose slot has members
    /// ([`SlotDefinition::member_key`]), the members that the input's filter lists, or else all that are registered at
    /// that time. A member whose run declined, or gave nothing, is not waited for, where the group's columns tell the rest of its
    /// key. Once the group has given a result it runs again as [`When::Any`] does, whoever registers later.
    Quorum,
}

/// A slot that a producer provides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The slot's name.
    pub slot: String,
    /// The priority of the producer's data; the highest that is sound is effective. One slot and priority
    /// has one owner, or one for each member. Clients write at 0 unless they say otherwise.
    pub priority: i32,
    /// The member as which it is provided; the producer then gives the cells that have this name in the slot's
    /// [`SlotDefinition::member_key`].
    pub member: Option<String>,
}

/// A process that turns bundles of input cells into output cells.
///
/// Each output slot has all key columns by which the producer's bundles are addressed (the union of the
/// required inputs' cell keys, or the columns of a group), and may have more.
///
/// ```
/// use underbelly::{Filter, Input, ProducerDefinition, When};
/// // A smile for each date and expiry, of all its volatilities, once the date is complete.
/// let smile = ProducerDefinition::new("smile")
///     .input(Input::required("Vol").filter(Filter::differs("right", "P")))
///     .group_by(["expiry"], When::Complete)
///     .provides("Smile");
/// // What it moved by since the eve; a date without an eve has a move too, and gets another when the eve comes.
/// let moves = ProducerDefinition::new("move")
///     .requires("Smile")
///     .input(Input::optional("Smile").alias("before").lag(1)) // read with `run.optional("before")?`
///     .provides("Move");
/// // The eve's smile instead of a missing one: below the fitter's priority, and only where nobody gives a better one.
/// let carried = ProducerDefinition::new("carried")
///     .requires("Expiry")
///     .input(Input::required("Smile").alias("before").lag(1))
///     .input(Input::exclusive("Smile"))
///     .provides_at("Smile", -1);
/// # let _ = (smile, moves, carried);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ProducerDefinition {
    /// The name.
    pub name: String,
    /// Inputs, at least one of them required, each alias once; none of a daemon.
    pub inputs: Vec<Input>,
    /// How cells make bundles.
    pub group: Group,
    /// Provided slots, at least one, each slot once.
    pub outputs: Vec<Output>,
    /// When ready bundles start, and how many at once.
    pub proxy: Proxy,
    /// How runs that failed and may succeed later are tried again.
    pub retry: Retry,
    /// Whether it has no inputs and commits when it likes: see [`ProducerDefinition::daemon`].
    pub daemon: bool,
    /// How long its session may give no sign of life: see [`ProducerDefinition::lease`].
    pub lease: Option<Duration>,
}

/// What a producer's bundles wait for before they start, and how many of them start together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proxy {
    /// When ready bundles start.
    pub trigger: Trigger,
    /// Most bundles of one batch; 1 to 1,024.
    pub max_batch: u32,
    /// Most batches that are in work at once; at least 1.
    pub max_running: u32,
    /// How long after its beginning a date counts as ended: see [`ProducerDefinition::cutoff`].
    pub cutoff: Option<Duration>,
}

/// When the ready bundles of a producer start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// As soon as there are so many, or the oldest has been ready for so long.
    Independent {
        /// The seed's MIN_BATCH, at least 1.
        min_batch: u32,
        /// The seed's MAX_WAIT_TIME, at most ten years; no wait where a single bundle is enough.
        max_wait_time: Duration,
    },
    /// When nothing upstream is in work for the date and the end of each required input's date was declared, as
    /// [`When::Complete`] says of groups. A batch is of one date.
    Dependent,
}

impl Default for Proxy {
    /// Each bundle by itself as soon as it is ready, as many at once as there are workers.
    fn default() -> Proxy {
        let trigger = Trigger::Independent { min_batch: 1, max_wait_time: Duration::ZERO };
        Proxy { trigger, max_batch: 1, max_running: u32::MAX, cutoff: None }
    }
}

/// How a run that failed, and may succeed later, is tried again: after [`Retry::backoff`], twice that, four times that, and
/// so on up to [`Retry::max_backoff`], each a random part of a quarter shorter, so that what failed together does not come
/// back together (AWS Architecture Blog, "Exponential backoff and jitter", 2015).
///
/// Attempts are failures in a row, whatever the inputs were. Once they are used up the failure stands as a fatal one; another
/// input still gets one start. A run that gives data or declines, and a force, count anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// Attempts in a row before the failure stands; at least 1.
    pub max_attempts: u32,
    /// The wait after the first failure; above 0.
    pub backoff: Duration,
    /// The longest wait; at most ten years.
    pub max_backoff: Duration,
}

/// Nanoseconds as they are stored.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Default for Retry {
    /// Five attempts, one second at first, at most five minutes.
    fn default() -> Retry {
        Retry { max_attempts: 5, backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(300) }
    }
}

impl Retry {
    /// So many attempts, the first wait, and the longest.
    pub fn new(max_attempts: u32, backoff: Duration, max_backoff: Duration) -> Retry {
        Retry { max_attempts, backoff, max_backoff }
    }

    /// The wait after so many failures in a row. `chance`: any number; a quarter of the wait is left to it.
    pub fn wait(&self, failures: u32, chance: u64) -> Duration {
        let doubled = 2u32.checked_pow(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let full = self.backoff.saturating_mul(doubled).min(self.max_backoff);
        // 2^16 steps are fine enough to tell thousands of bundles apart.
        full - full.mul_f64((chance % 65_536) as f64 / 65_536.0 / 4.0)
    }
}

impl ProducerDefinition {
    /// A producer without inputs and outputs.
    pub fn new(name: impl Into<String>) -> ProducerDefinition {
        ProducerDefinition {
            name: name.into(),
            inputs: Vec::new(),
            group: Group::Each,
            outputs: Vec::new(),
            proxy: Proxy::default(),
            retry: Retry::default(),
            daemon: false,
            lease: None,
        }
    }

    /// A *demoniac* producer: it has no inputs and no runs, and commits to the slots that it provides when it likes, in a
    /// session ([`Database::open_session`](crate::Database::open_session)).
    pub fn daemon(name: impl Into<String>) -> ProducerDefinition {
        ProducerDefinition { daemon: true, ..ProducerDefinition::new(name) }
    }

    /// Its session counts as lost once it has given no sign of life for so long: its runs are fenced, it stays a member, and
    /// an alarm names it. Without a lease a session ends when it is closed, or with the process.
    pub fn lease(mut self, silence: Duration) -> ProducerDefinition {
        self.lease = Some(silence);
        self
    }

    /// Adds an input; the name of a slot alone is a required one.
    pub fn input(mut self, input: impl Into<Input>) -> ProducerDefinition {
        self.inputs.push(input.into());
        self
    }

    /// Adds a required input, which shares a key column with the others.
    pub fn requires(self, slot: impl Into<String>) -> ProducerDefinition {
        self.input(Input::required(slot))
    }

    /// Adds a required input whose cells are joined with all tuples of the date, where no column is shared.
    pub fn broadcast(self, slot: impl Into<String>) -> ProducerDefinition {
        self.input(Input::required(slot).broadcast())
    }

    /// One bundle for each date instead of one for each joined tuple. It starts when the date is complete, as
    /// [`When::Complete`] says: declare its end with [`Batch::end_of`](crate::Batch::end_of).
    pub fn group_by_date(self) -> ProducerDefinition {
        self.group_by::<String>([], When::Complete)
    }

    /// One bundle for each date and each value of these columns, instead of one for each joined tuple.
    pub fn group_by<S: Into<String>>(
        mut self,
        columns: impl IntoIterator<Item = S>,
        when: When,
    ) -> ProducerDefinition {
        self.group = Group::By { columns: columns.into_iter().map(Into::into).collect(), when };
        self
    }

    /// Adds a provided slot at priority 0.
    pub fn provides(self, slot: impl Into<String>) -> ProducerDefinition {
        self.provides_at(slot, 0)
    }

    /// Adds a provided slot at this priority.
    pub fn provides_at(mut self, slot: impl Into<String>, priority: i32) -> ProducerDefinition {
        self.outputs.push(Output { slot: slot.into(), priority, member: None });
        self
    }

    /// Adds a slot that it provides at priority 0 as one of several members, under this name.
    pub fn provides_as(mut self, slot: impl Into<String>, member: impl Into<String>) -> ProducerDefinition {
        self.outputs.push(Output { slot: slot.into(), priority: 0, member: Some(member.into()) });
        self
    }

    /// Starts ready bundles once there are so many (the seed's MIN_BATCH), or once the oldest has been ready for
    /// `max_wait_time` (MAX_WAIT_TIME): an *independent* proxy. A batch has as many as there are, up to
    /// [`ProducerDefinition::max_batch`], which is raised to `min_batch`.
    pub fn independent(mut self, min_batch: u32, max_wait_time: Duration) -> ProducerDefinition {
        self.proxy.trigger = Trigger::Independent { min_batch, max_wait_time };
        self.proxy.max_batch = self.proxy.max_batch.max(min_batch);
        self
    }

    /// Starts the bundles of a date once all that is upstream of the producer has ended for it: a *dependent* proxy. See
    /// [`Trigger::Dependent`].
    pub fn dependent(mut self) -> ProducerDefinition {
        self.proxy.trigger = Trigger::Dependent;
        self
    }

    /// Waits for the end of a date ([`Batch::end_of`](crate::Batch::end_of)) until so long after the date's beginning at most:
    /// midnight UTC of a day, an instant itself. It concerns producers that wait for ends: [`When::Complete`] and
    /// [`ProducerDefinition::dependent`]. At most ten years.
    pub fn cutoff(mut self, after: Duration) -> ProducerDefinition {
        self.proxy.cutoff = Some(after);
        self
    }

    /// Starts up to so many bundles together (the seed's MAX_BATCH), the oldest first. A closure that
    /// [`Database::register_batch`](crate::Database::register_batch) took gets them in one call.
    pub fn max_batch(mut self, bundles: u32) -> ProducerDefinition {
        self.proxy.max_batch = bundles;
        self
    }

    /// Has at most so many batches in work at once.
    pub fn max_running(mut self, batches: u32) -> ProducerDefinition {
        self.proxy.max_running = batches;
        self
    }

    /// Tries failed runs again like this.
    pub fn retry(mut self, retry: Retry) -> ProducerDefinition {
        self.retry = retry;
        self
    }
}
