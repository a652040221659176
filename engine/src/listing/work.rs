//! Producers with their bundles counted, and the table of each producer.

use underbelly_storage::{ColumnType, Timestamp};

use super::page::{PAGE, Rows};
use crate::error::ReadError;
use crate::graph::{
    BundleId, CellId, Graph, Key, Obligation, PStatus, ProducerDefinition, ProducerId, SlotDate, Step,
};
use crate::view::View;

/// A producer with its bundles counted by status.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProducerSummary {
    /// Its definition.
    pub definition: ProducerDefinition,
    /// Whether this process has its closure, or it has a session.
    pub attached: bool,
    /// Since when its session gives no sign of life; see [`ProducerDefinition::lease`].
    pub lost_at: Option<Timestamp>,
    /// Bundles in each status, in order of [`PStatus::ALL`].
    pub bundles: Vec<(PStatus, u64)>,
    /// Since when the first of its ready bundles is ready.
    pub waiting_since: Option<Timestamp>,
    /// Runs that were started.
    pub runs: u64,
}

/// A row of a producer's table: a cell that it was told of, and the status of its work with it. Capitals name the
/// columns.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WorkRow {
    /// SID of the input cell.
    pub sid: CellId,
    /// PSTATUS of the bundle that the cell belongs to, as far as this cell matters; see [`WorkRow::pstatus`].
    pub status: PStatus,
    /// Whether the run in flight reads an older generation than the cell has.
    pub superseded: bool,
    /// GENERATION that it is about: the one that the run in flight reads, else the cell's.
    pub generation: u64,
    /// DATE of the bundle.
    pub date: SlotDate,
    /// KEY of the bundle: key values joined by `/`.
    pub key: Key,
}

impl WorkRow {
    /// PSTATUS as the table shows it: `superseded`, or the status.
    pub fn pstatus(&self) -> &'static str {
        if self.superseded { "superseded" } else { self.status.name() }
    }
}

/// Where the next page begins: the bundle, and its member in the last row.
struct Next {
    bundle: BundleId,
    after: Option<Step>,
}

impl Next {
    fn fill(&mut self, graph: &Graph, producer: ProducerId, rows: &mut Vec<WorkRow>) -> bool {
        let mut looked_at = 0;
        for (bundle, owner) in graph.bundles_from(self.bundle) {
            if let Some((date, key)) = graph.bundle_address(bundle).filter(|_| owner == producer) {
                for Obligation { cell, input, g, status, superseded } in graph.obligations(bundle, self.after)
                {
                    self.after = Some(Step { source: cell, input });
                    let key = key.clone();
                    rows.push(WorkRow { sid: cell, status, superseded, generation: g, date, key });
                    if rows.len() >= PAGE {
                        return true;
                    }
                }
            }
            *self = Next { bundle: BundleId(bundle.0 + 1), after: None };
            looked_at += 1;
            if looked_at >= 8 * PAGE {
                return true;
            }
        }
        false
    }
}

impl View {
    /// All producers in order of their registration.
    pub fn producers(&self) -> Vec<ProducerSummary> {
        let state = self.base().state();
        let graph = &state.graph;
        graph
            .producers()
            .map(|(id, definition)| ProducerSummary {
                definition: definition.clone(),
                attached: graph.is_attached(id),
                lost_at: graph.lost_at(id),
                bundles: graph.status_counts(id).to_vec(),
                waiting_since: graph.waiting_since(id),
                runs: graph.run_count(id),
            })
            .collect()
    }

    /// Names and types of the key values of a producer's bundles, in order.
    ///
    /// # Errors
    /// [`ReadError::UnknownProducer`] where it names none.
    pub fn bundle_columns(&self, producer: &str) -> Result<Vec<(String, ColumnType)>, ReadError> {
        let id = self.producer_id(producer)?;
        Ok(self.base().state().graph.bundle_columns(id).to_vec())
    }

    /// The table of a producer: what it owes each cell that it was told of, in order of its bundles.
    ///
    /// # Errors
    /// [`ReadError::UnknownProducer`] where it names none.
    pub fn producer_table(&self, producer: &str) -> Result<Rows<WorkRow>, ReadError> {
        let id = self.producer_id(producer)?;
        let mut next = Next { bundle: BundleId(0), after: None };
        Ok(Rows::new(self, move |graph, rows| next.fill(graph, id, rows)))
    }

    pub(super) fn producer_id(&self, name: &str) -> Result<ProducerId, ReadError> {
        let found = self.base().state().graph.producer_by_name(name);
        found.ok_or_else(|| ReadError::UnknownProducer { producer: name.to_string() })
    }
}
