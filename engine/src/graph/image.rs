//! The graph's facts in a flat form: fixed-width integers, no maps, no recursion. What follows from the facts
//! (classes, counters, views, statuses, states, indexes) is left out.

use rkyv::{Archive, Deserialize, Serialize};

use super::Graph;
use super::bundle::{Bundle, Claim, Ending};
use super::cell::{Candidate, Cell, Moment};
use super::error::GraphError;
use super::record::{DateV1, ProducerV1, SlotV1, ValueV1, values_of};

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub(super) struct MomentV1 {
    pub seq: u64,
    /// Nanoseconds since 1970 UTC.
    pub time: i64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct RegisteredV1 {
    pub definition: ProducerV1,
    pub attached: bool,
    pub epoch: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct CandidateV1 {
    pub priority: i32,
    /// The bundle; `None` for clients.
    pub owner: Option<u32>,
    pub content: Option<[u8; 32]>,
    pub error: Option<String>,
    pub ended: MomentV1,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct CellV1 {
    pub slot: u32,
    pub date: DateV1,
    pub key: Vec<ValueV1>,
    pub candidates: Vec<CandidateV1>,
    pub effective: Option<i32>,
    pub content: Option<[u8; 32]>,
    pub g: u64,
    pub changed: MomentV1,
    pub verified: MomentV1,
    pub lagging: bool,
    pub member: bool,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) enum EndingV1 {
    Data,
    Declined(String),
    Failed(String),
}

/// A generation that was read of a cell.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub(super) struct TokenV1 {
    pub cell: u32,
    pub g: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct ClaimV1 {
    pub run: u64,
    pub epoch: u64,
    pub cells: Vec<TokenV1>,
    pub scopes: Vec<u64>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct BundleV1 {
    pub producer: u32,
    pub date: DateV1,
    pub key: Vec<ValueV1>,
    /// Tokens of the edges that have one.
    pub tokens: Vec<TokenV1>,
    /// Token of each input's scope; empty unless grouped.
    pub scopes: Vec<Option<u64>>,
    pub ending: Option<EndingV1>,
    pub ended: MomentV1,
    pub running: Option<ClaimV1>,
    pub acknowledged: bool,
    pub interrupted: u32,
    pub runs: u64,
    pub order: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub(super) struct ScopeV1 {
    pub slot: u32,
    pub date: DateV1,
    pub g: u64,
}

/// The facts of a [`Graph`]. Equal images mean equal graphs.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct GraphImageV1 {
    pub(super) slots: Vec<SlotV1>,
    pub(super) producers: Vec<RegisteredV1>,
    pub(super) cells: Vec<CellV1>,
    pub(super) bundles: Vec<BundleV1>,
    pub(super) scopes: Vec<ScopeV1>,
    pub(super) ends: Vec<DateV1>,
    pub(super) next_order: u64,
}

impl GraphImageV1 {
    /// The bytes for a file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GraphError> {
        match rkyv::to_bytes::<rkyv::rancor::Error>(self) {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(error) => Err(GraphError::Image { what: error.to_string() }),
        }
    }

    /// Reads the bytes of a file, from any alignment, checking every offset and length in them.
    pub fn from_bytes(bytes: &[u8]) -> Result<GraphImageV1, GraphError> {
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<GraphImageV1, rkyv::rancor::Error>(&aligned)
            .map_err(|error| GraphError::Image { what: error.to_string() })
    }
}

impl Graph {
    /// The facts, from which [`Graph::from_image`] makes an equal graph.
    pub fn to_image(&self) -> GraphImageV1 {
        let session = |producer: &super::producer::Producer| RegisteredV1 {
            definition: (&producer.definition).into(),
            attached: producer.attached,
            epoch: producer.epoch,
        };
        let mut scopes = Vec::new();
        for (at, slot) in self.slots.iter().enumerate() {
            let scope = |(date, scope): (&super::SlotDate, &super::cell::Scope)| ScopeV1 {
                slot: at as u32,
                date: (*date).into(),
                g: scope.g,
            };
            scopes.extend(slot.scopes.iter().map(scope));
        }
        GraphImageV1 {
            slots: self.slots.iter().map(|slot| (&slot.definition).into()).collect(),
            producers: self.producers.iter().map(session).collect(),
            cells: self.cells.iter().map(CellV1::from).collect(),
            bundles: self.bundles.iter().map(|bundle| self.bundle_image(bundle)).collect(),
            scopes,
            ends: self.ends.iter().map(|date| (*date).into()).collect(),
            next_order: self.next_order,
        }
    }
}

impl From<Moment> for MomentV1 {
    fn from(moment: Moment) -> MomentV1 {
        MomentV1 { seq: moment.seq, time: moment.time.0 }
    }
}

impl From<&Cell> for CellV1 {
    fn from(cell: &Cell) -> CellV1 {
        let candidate = |candidate: &Candidate| CandidateV1 {
            priority: candidate.priority,
            owner: candidate.owner.map(|bundle| bundle.0),
            content: candidate.content,
            error: candidate.error.as_ref().map(|error| error.to_string()),
            ended: candidate.ended.into(),
        };
        CellV1 {
            slot: cell.slot.0,
            date: cell.date.into(),
            key: values_of(&cell.key),
            candidates: cell.candidates.iter().map(candidate).collect(),
            effective: cell.effective,
            content: cell.content,
            g: cell.g,
            changed: cell.changed.into(),
            verified: cell.verified.into(),
            lagging: cell.lagging,
            member: cell.member,
        }
    }
}

impl Graph {
    fn bundle_image(&self, bundle: &Bundle) -> BundleV1 {
        let read = bundle.edges.iter().filter_map(|(cell, edge)| Some((cell.0, edge.token?)));
        BundleV1 {
            producer: bundle.producer.0,
            date: bundle.date.into(),
            key: values_of(&bundle.key),
            tokens: read.map(|(cell, g)| TokenV1 { cell, g }).collect(),
            scopes: bundle.scopes.iter().map(|scope| scope.token).collect(),
            ending: bundle.ending.as_ref().map(|ending| match ending {
                Ending::Data => EndingV1::Data,
                Ending::Declined(reason) => EndingV1::Declined(reason.to_string()),
                Ending::Failed(message) => EndingV1::Failed(message.to_string()),
            }),
            ended: bundle.ended.into(),
            running: bundle.running.as_ref().map(ClaimV1::from),
            acknowledged: self.producers[bundle.producer.at()].acknowledges(bundle),
            interrupted: bundle.interrupted,
            runs: bundle.runs,
            order: bundle.order,
        }
    }
}

impl From<&Claim> for ClaimV1 {
    fn from(claim: &Claim) -> ClaimV1 {
        ClaimV1 {
            run: claim.run.0,
            epoch: claim.epoch,
            cells: claim.cells.iter().map(|(cell, g)| TokenV1 { cell: cell.0, g: *g }).collect(),
            scopes: claim.scopes.clone(),
        }
    }
}
