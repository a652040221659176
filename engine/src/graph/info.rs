//! What queries answer.

use underbelly_storage::Timestamp;

use super::ids::{BundleId, CellId, ContentId, ProducerId, RunId, SlotDate, SlotId};
use super::key::Key;
use super::state::{PStatus, State};

/// A cell and its state.
#[derive(Clone, Debug, PartialEq)]
pub struct CellInfo {
    /// The cell.
    pub cell: CellId,
    /// Its slot.
    pub slot: SlotId,
    /// Its date.
    pub date: SlotDate,
    /// Its key.
    pub key: Key,
    /// Its state.
    pub state: State,
    /// Its generation: how often the effective content or its presence changed.
    pub g: u64,
    /// Commit time of the last change of `g`.
    pub changed_at: Timestamp,
    /// Sequence number of the last change of `g`.
    pub changed_seq: u64,
    /// Commit time of the last accepted commit of the effective candidate, equal or not.
    pub verified_at: Timestamp,
    /// Sequence number of the last accepted commit of the effective candidate, equal or not.
    pub verified_seq: u64,
    /// The effective content; what readers get, whatever the state.
    pub content: Option<ContentId>,
    /// Who made the effective candidate: a producer's name or `client`; `None` where there is no candidate.
    pub producer: Option<String>,
    /// The effective candidate's priority.
    pub priority: Option<i32>,
    /// Why the effective candidate's last production failed.
    pub error: Option<String>,
    /// Whether it was committed while its own inputs moved: stale, but readable by runs.
    pub lagging: bool,
    /// Why it is stale, or cannot be made again.
    pub causes: Vec<Cause>,
    /// Listening bundles whose last run failed.
    pub failed_listeners: u32,
}

/// A cell as a row of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CellRow<'a> {
    /// Its slot.
    pub slot: SlotId,
    /// Its date.
    pub date: SlotDate,
    /// Its key.
    pub key: &'a Key,
    /// Its state.
    pub state: State,
    /// Its generation.
    pub g: u64,
    /// Commit time of the last change of `g`.
    pub changed_at: Timestamp,
    /// The effective content.
    pub content: Option<ContentId>,
    /// Who made the effective candidate: a producer's name or `client`; `None` where there is no candidate.
    pub producer: Option<&'a str>,
    /// The effective candidate's priority.
    pub priority: Option<i32>,
    /// Why the effective candidate's last production failed.
    pub error: Option<&'a str>,
}

/// An edge of the dependency tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeRow {
    /// The cell that is read.
    pub source: CellId,
    /// The cell that is made.
    pub target: CellId,
    /// The generation that was read; `None` where it was not read yet.
    pub token: Option<u64>,
    /// The bundle between them.
    pub bundle: BundleId,
    /// The priority at which it makes the target.
    pub priority: i32,
    /// The source's position among the producer's inputs.
    pub input: u16,
}

/// A run in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInfo<'a> {
    /// The run.
    pub run: RunId,
    /// Its producer.
    pub producer: ProducerId,
    /// Its bundle's date.
    pub date: SlotDate,
    /// Its bundle's key.
    pub key: &'a Key,
    /// When it was started.
    pub started: Timestamp,
    /// The cells that its bundle has ever given, which it makes again.
    pub outputs: Vec<CellId>,
}

/// What a bundle owes one of its members: the row of a producer's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obligation {
    /// The member.
    pub cell: CellId,
    /// Its position among the producer's inputs.
    pub input: u16,
    /// The generation that it is about: the one that the run in flight reads, else the member's.
    pub g: u64,
    /// The status of the work.
    pub status: PStatus,
    /// Whether the member has a newer generation than the run in flight reads.
    pub superseded: bool,
}

/// One reason why a cell does not agree with its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// This input has another generation than the one that was read.
    Changed(CellId),
    /// This input is being recomputed.
    Waiting(CellId),
    /// This input has no sound data.
    Unusable(CellId),
    /// Cells of this slot appeared or vanished for the date.
    ScopeChanged(SlotId),
    /// Work upstream of this slot is open for the date.
    ScopeOpen(SlotId),
    /// This slot has no cell with data for the date.
    ScopeEmpty(SlotId),
    /// Data of this higher priority is being made.
    Better(i32),
    /// This exclusive input is there.
    Unsatisfiable(CellId),
    /// It is older than its slot says that it is fresh.
    Aged,
    /// It is to be made again by command.
    Forced,
    /// Its producer was deregistered: nobody makes it again.
    Orphan,
}

/// A bundle and its status.
#[derive(Clone, Debug, PartialEq)]
pub struct BundleInfo {
    /// The bundle.
    pub bundle: BundleId,
    /// Its producer.
    pub producer: ProducerId,
    /// Its date.
    pub date: SlotDate,
    /// Values of the union of the inputs' key columns; empty for a group.
    pub key: Key,
    /// Its status.
    pub status: PStatus,
    /// Why it is parked, declined, failed or cancelled; empty otherwise.
    pub reason: String,
    /// Input cells.
    pub members: Vec<CellId>,
    /// Output cells that it has ever given.
    pub outputs: Vec<CellId>,
    /// The run in flight.
    pub run: Option<RunId>,
    /// Runs that were started.
    pub runs: u64,
    /// Runs that were cut off in a row since the last one that ended.
    pub interrupted: u32,
    /// Sequence number of the last result; `None` before the first.
    pub ended_seq: Option<u64>,
}

/// How much of a tree is built. What lies beyond is counted and told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Levels under the root.
    pub depth: usize,
    /// Children of each node.
    pub children: usize,
}

impl Default for Extent {
    /// 256 levels, 32 children of each node.
    fn default() -> Extent {
        Extent { depth: 256, children: 32 }
    }
}

/// What a node of a tree of reasons is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhyKind {
    /// A cell.
    Cell,
    /// A cell that was never made.
    Missing,
    /// What a client did.
    Client,
    /// The work of a producer on a bundle.
    Work,
    /// A producer as a whole.
    Producer,
    /// How a run ended.
    Ended,
    /// A run in flight.
    Running,
    /// The cells that a slot has for a date.
    Scope,
    /// Another root event, such as a declaration that is missing.
    #[default]
    Event,
    /// What was left out.
    More,
}

impl WhyKind {
    /// The lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            WhyKind::Cell => "cell",
            WhyKind::Missing => "missing",
            WhyKind::Client => "client",
            WhyKind::Work => "work",
            WhyKind::Producer => "producer",
            WhyKind::Ended => "ended",
            WhyKind::Running => "running",
            WhyKind::Scope => "scope",
            WhyKind::Event => "event",
            WhyKind::More => "more",
        }
    }
}

/// A tree of reasons, the thing itself at its root and root events at its leaves. Beside its sentence a node says
/// what it is about, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Why {
    /// One sentence.
    pub text: String,
    /// What it is about.
    pub kind: WhyKind,
    /// The slot of the cell or scope.
    pub slot: Option<String>,
    /// The producer of the work.
    pub producer: Option<String>,
    /// The date of the cell, scope or bundle.
    pub date: Option<SlotDate>,
    /// The key of the cell or bundle.
    pub key: Option<Key>,
    /// The cell.
    pub sid: Option<CellId>,
    /// The state of the cell.
    pub state: Option<State>,
    /// The status of the work.
    pub status: Option<PStatus>,
    /// The generation of the cell, or of the scope.
    pub generation: Option<u64>,
    /// The priority of the candidate.
    pub priority: Option<i32>,
    /// The transaction that did it.
    pub seq: Option<u64>,
    /// The run in flight.
    pub run: Option<RunId>,
    /// How many reasons were left out here.
    pub more: u64,
    /// What it rests on.
    pub children: Vec<Why>,
}

impl Why {
    pub(super) fn leaf(text: impl Into<String>) -> Why {
        Why { text: text.into(), ..Why::default() }
    }

    pub(super) fn of(kind: WhyKind, text: impl Into<String>) -> Why {
        Why { kind, ..Why::leaf(text) }
    }
}

impl std::fmt::Display for Why {
    /// One line for each node, indented by two spaces a level.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        fn line(why: &Why, depth: usize, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            writeln!(f, "{:1$}{2}", "", depth * 2, why.text)?;
            why.children.iter().try_for_each(|child| line(child, depth + 1, f))
        }
        line(self, 0, f)
    }
}

/// A cell, or the cells that a slot has for a date, and what is before or after it in the dependency tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The cell, or the scope.
    pub node: TreeNode,
    /// What leads here from the parent; `None` at the root.
    pub link: Option<Link>,
    /// What is next. Empty where the cell was expanded elsewhere in the tree; see `repeated`.
    pub children: Vec<Tree>,
    /// Whether the cell is expanded elsewhere in the tree, where it is no deeper.
    pub repeated: bool,
    /// How many children were left out.
    pub more: u64,
}

/// A node of the dependency tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeNode {
    /// A cell.
    Cell(CellId),
    /// The cells of a slot and date that a group reads, as a set, and how many they are.
    Scope(SlotId, SlotDate, u64),
}

/// The step between two nodes of the dependency tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The bundle that reads one and makes the other.
    pub bundle: BundleId,
    /// The position among its producer's inputs.
    pub input: u16,
    /// The generation that was read, or of a set how many cells it had; `None` where nothing was.
    pub token: Option<u64>,
}

/// How many cells of a slot are in each state, and the worst of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    pub(super) counts: [u64; State::ALL.len()],
}

impl FromIterator<(State, u64)> for StateCounts {
    /// Numbers of the same state add up.
    fn from_iter<T: IntoIterator<Item = (State, u64)>>(counted: T) -> StateCounts {
        let mut states = StateCounts::default();
        for (state, cells) in counted {
            let count = &mut states.counts[state as usize];
            *count = count.saturating_add(cells);
        }
        states
    }
}

impl StateCounts {
    /// Cells in this state.
    pub fn of(&self, state: State) -> u64 {
        self.counts[state as usize]
    }

    /// All cells.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |total: u64, count| total.saturating_add(*count))
    }

    /// The worst state of any cell: invalid, stale, void, updated, pending, current, in this order; `None`
    /// without cells.
    pub fn worst(&self) -> Option<State> {
        [State::Invalid, State::Stale, State::Void, State::Updated, State::Pending, State::Current]
            .into_iter()
            .find(|state| self.of(*state) > 0)
    }
}
