//! What the tables are made of: cells, edges, runs in flight and obligations, each found from the one before it, so
//! that a table can be read in pages while the graph moves between them.

use std::ops::Bound;

use underbelly_storage::Timestamp;

use super::Graph;
use super::bundle::Ending;
use super::definition::Mode;
use super::edges::EdgeKey;
use super::ids::{BundleId, CellId, ProducerId, RunId, SlotDate, SlotId};
use super::info::{CellRow, EdgeRow, Obligation, RunInfo};
use super::key::Key;
use super::state::PStatus;

impl Graph {
    /// The cells of a slot, or all, from the one at this place on, in the order of creation.
    pub fn cells_from(&self, slot: Option<SlotId>, place: usize) -> impl Iterator<Item = CellId> + '_ {
        let of_slot = slot.map(|slot| {
            let cells = self.slots.get(slot.at()).and_then(|slot| slot.cells.get(place..));
            cells.unwrap_or_default()
        });
        let all = if slot.is_none() { place..self.cells.len() } else { 0..0 };
        of_slot.into_iter().flatten().copied().chain(all.map(|at| CellId(at as u32)))
    }

    /// A cell without its causes, which takes the same time for each; `None` where nobody has made it.
    pub fn cell_row(&self, id: CellId) -> Option<CellRow<'_>> {
        let cell = self.cells.get(id.at()).filter(|cell| !cell.expected)?;
        let sheet = self.sheets.get(id.at())?;
        let effective = sheet.effective_candidate();
        Some(CellRow {
            slot: cell.slot,
            date: sheet.date,
            key: &sheet.key,
            state: cell.state,
            g: cell.g,
            changed_at: sheet.changed.time,
            content: effective.and_then(|candidate| candidate.content),
            producer: effective.map(|candidate| self.owner_name(candidate.owner)),
            priority: sheet.effective,
            error: effective.and_then(|candidate| candidate.error.as_deref()),
        })
    }

    /// The edges into a cell's candidate at this place among its candidates, behind `after`; `None`
    /// where it has fewer candidates. A client's has no edges.
    pub fn edges_into(
        &self,
        cell: CellId,
        candidate: usize,
        after: Option<Step>,
    ) -> Option<impl Iterator<Item = EdgeRow> + '_> {
        let candidate = self.sheets.get(cell.at())?.candidates.get(candidate)?;
        let owner = candidate.owner;
        let priority = candidate.priority;
        Some(owner.bundle().into_iter().flat_map(move |id| {
            let edges = self.edges_after(id, after.map(Step::edge));
            let edges = edges.filter(|(edge, _)| candidate.rests_on(*edge));
            edges.map(move |(edge, token)| EdgeRow {
                source: edge.source,
                target: cell,
                token,
                bundle: id,
                priority,
                input: edge.input,
            })
        }))
    }

    /// The runs in flight behind this one, in the order of their numbers.
    pub fn runs_after(&self, after: Option<RunId>) -> impl Iterator<Item = RunInfo<'_>> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.runs.range((from, Bound::Unbounded)).filter_map(|(run, id)| {
            let bundle = self.bundles.get(id.at())?;
            Some(RunInfo {
                run: *run,
                producer: bundle.producer,
                date: bundle.date,
                key: &bundle.key,
                started: bundle.running.as_ref().map_or(Timestamp(0), |claim| claim.started),
                outputs: self.tallies.get(id.at())?.outputs.iter().collect(),
            })
        })
    }

    /// How many bundles of a producer are in each status.
    pub fn status_counts(&self, producer: ProducerId) -> [(PStatus, u64); PStatus::ALL.len()] {
        let producer = self.producers.get(producer.at());
        PStatus::ALL.map(|status| (status, producer.map_or(0, |p| p.statuses[status.place()])))
    }

    /// The machine on which a producer's runs take place, where its attachment told.
    pub fn machine(&self, producer: ProducerId) -> Option<&str> {
        self.producers.get(producer.at())?.host.as_ref().map(|host| host.machine.as_str())
    }

    /// How many runs of a producer were started.
    pub fn run_count(&self, producer: ProducerId) -> u64 {
        self.producers.get(producer.at()).map_or(0, |producer| producer.runs)
    }

    /// The bundles from this one on, in the order of creation, each with its producer.
    pub fn bundles_from(&self, first: BundleId) -> impl Iterator<Item = (BundleId, ProducerId)> + '_ {
        let bundles = self.bundles.get(first.at()..).unwrap_or_default();
        let ids = (first.0..).map(BundleId);
        ids.zip(bundles.iter().map(|bundle| bundle.producer))
    }

    /// The run of a bundle that is in flight.
    pub fn run_of(&self, bundle: BundleId) -> Option<RunId> {
        self.bundles.get(bundle.at())?.running.as_ref().map(|claim| claim.run)
    }

    /// The producer of a bundle.
    pub fn bundle_producer(&self, bundle: BundleId) -> Option<ProducerId> {
        self.bundles.get(bundle.at()).map(|bundle| bundle.producer)
    }

    /// The transaction with which a bundle failed, where it has.
    pub fn failed_at(&self, bundle: BundleId) -> Option<u64> {
        let has_failed = self.tallies.get(bundle.at())?.status == PStatus::Failed;
        self.bundles.get(bundle.at()).filter(|_| has_failed).map(|bundle| bundle.ended.seq)
    }

    /// The date and key of a bundle.
    pub fn bundle_address(&self, bundle: BundleId) -> Option<(SlotDate, &Key)> {
        self.bundles.get(bundle.at()).map(|bundle| (bundle.date, &bundle.key))
    }

    /// What a bundle owes its members behind `after`; nothing where there is no such bundle.
    pub fn obligations(
        &self,
        bundle: BundleId,
        after: Option<Step>,
    ) -> impl Iterator<Item = Obligation> + '_ {
        let edges = self.edges_after(bundle, after.map(Step::edge));
        edges.filter_map(move |(edge, token)| self.obligation(bundle, edge, token))
    }

    fn obligation(&self, id: BundleId, edge: EdgeKey, token: Option<u64>) -> Option<Obligation> {
        let EdgeKey { source: cell, input } = edge;
        let (bundle, status) = (self.bundles.get(id.at())?, self.tallies.get(id.at())?.status);
        // It owes nothing to what forbids it, nor to what is not there.
        let need = self.producers.get(bundle.producer.at())?.need(input);
        let forbids = need.mode == Mode::Exclusive;
        if forbids || !self.is_made(cell) {
            return None;
        }
        let g = self.cells.get(cell.at())?.g;
        let reads = bundle.running.as_ref().map_or(&[][..], |claim| &claim.cells);
        let read = reads.binary_search_by_key(&edge, |(edge, _)| *edge).ok();
        let read = read.and_then(|at| reads.get(at)).map(|(_, read)| *read);
        if let Some(read) = read.filter(|read| *read < g) {
            return Some(Obligation { cell, input, g: read, status, superseded: true });
        }
        let status = match (status, &bundle.ending) {
            // Other members have news; what this one has was seen.
            (PStatus::Notified, Some(ending)) if token == Some(g) => match ending {
                Ending::Data => PStatus::Done,
                Ending::Declined(_) => PStatus::Declined,
                Ending::Failed(_) => PStatus::Failed,
                Ending::Cancelled(_) => PStatus::Cancelled,
            },
            _ => status,
        };
        Some(Obligation { cell, input, g, status, superseded: false })
    }
}

/// An edge of a bundle, behind which a page goes on.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The cell that is read.
    pub source: CellId,
    /// Its position among the producer's inputs.
    pub input: u16,
}

impl Step {
    fn edge(self) -> EdgeKey {
        EdgeKey { source: self.source, input: self.input }
    }
}
