//! Producers with their bundles counted.

use crate::graph::{PStatus, ProducerDefinition};
use crate::view::View;

/// A producer with its bundles counted by status.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProducerSummary {
    /// Its definition.
    pub definition: ProducerDefinition,
    /// Whether this process has its closure.
    pub attached: bool,
    /// Bundles in each status, in order of [`PStatus::ALL`].
    pub bundles: Vec<(PStatus, u64)>,
    /// Runs that ended.
    pub runs: u64,
}

impl View {
    /// All producers in order of their registration.
    pub fn producers(&self) -> Vec<ProducerSummary> {
        let state = self.base().state();
        let graph = &state.graph;
        let mut summaries: Vec<ProducerSummary> = graph
            .producers()
            .map(|(id, definition)| ProducerSummary {
                definition: definition.clone(),
                attached: graph.is_attached(id),
                bundles: PStatus::ALL.into_iter().map(|status| (status, 0)).collect(),
                runs: 0,
            })
            .collect();
        for info in graph.bundles().filter_map(|bundle| graph.bundle_info(bundle)) {
            let Some(summary) = summaries.get_mut(info.producer.0 as usize) else { continue };
            summary.runs += info.runs;
            if let Some((_, count)) = summary.bundles.iter_mut().find(|(status, _)| *status == info.status) {
                *count += 1;
            }
        }
        summaries
    }
}
