//! Whether a graph shows what the rules say.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::*;
use super::facts::{BundleName, CellName, Oracle};
use super::join::EdgeName;
use super::rules::{Class, Counts, Obligation};

/// What a graph has named, by the numbers that it gave.
pub(in super::super) fn cell_name(graph: &Graph, cell: CellId) -> CellName {
    let info = graph.cell_info(cell).unwrap();
    (info.slot, info.date, info.key)
}

pub(in super::super) fn bundle_name(graph: &Graph, bundle: BundleId) -> BundleName {
    let info = graph.bundle_info(bundle).unwrap();
    (info.producer, info.date, info.key)
}

/// The counters that the graph keeps of a bundle's edges.
fn counters(graph: &Graph, bundle: BundleId) -> Counts {
    let kept = graph.tallies[bundle.at()].counters;
    Counts {
        changed: kept.changed,
        maybe: kept.maybe,
        held: kept.held,
        blocked: kept.blocked,
        unsatisfiable: kept.unsatisfiable,
        gone: kept.gone,
    }
}

impl Oracle {
    pub fn compare(&self, graph: &Graph) {
        self.compare_cells(graph);
        self.compare_bundles(graph);
    }

    fn compare_cells(&self, graph: &Graph) {
        let obligations = self.obligations();
        let mut states: BTreeMap<(SlotId, State), u64> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for id in graph.cells() {
            let info = graph.cell_info(id).unwrap();
            let name = (info.slot, info.date, info.key.clone());
            let shown = &self.shown.cells[&name];
            let state = self.state(&name, &obligations);
            assert_eq!(info.g, shown.g, "g of {name:?}");
            assert_eq!(info.content, shown.standing.content, "content of {name:?}");
            assert_eq!(graph.view(id), Some(shown.standing.view), "view of {name:?}");
            assert_eq!(info.lagging, shown.lagging, "lagging of {name:?}");
            assert_eq!(info.state, state, "state of {name:?}");
            assert_eq!(graph.state(id), Some(state));
            let effective = shown.standing.effective;
            let effective = effective.map(|priority| &self.facts.cells[&name].candidates[&priority]);
            let producer = |id: ProducerId| self.facts.producers[id.at()].definition.name.as_str();
            let owner = effective.map(|candidate| match (&candidate.owner, candidate.daemon) {
                (Some(owner), _) => producer(owner.0),
                (None, Some(daemon)) => producer(daemon),
                (None, None) => "client",
            });
            assert_eq!(info.priority, shown.standing.effective, "effective priority of {name:?}");
            assert_eq!(info.producer.as_deref(), owner, "owner of {name:?}");
            assert_eq!(info.error.is_some(), effective.is_some_and(|c| c.error), "error of {name:?}");
            let failed = |row: &&Obligation| row.cell == name && row.status == PStatus::Failed;
            let failed: BTreeSet<&BundleName> =
                obligations.iter().filter(failed).map(|row| &row.listener).collect();
            assert_eq!(info.failed_listeners as usize, failed.len(), "failed listeners of {name:?}");
            if state == State::Stale {
                let told: BTreeSet<String> =
                    info.causes.iter().map(|cause| self.cause(graph, cause)).collect();
                assert_eq!(told, self.causes(&name), "causes of {name:?}");
            }
            assert_eq!(graph.cell(name.0, name.1, &name.2), Some(id));
            *states.entry((name.0, state)).or_default() += 1;
            names.insert(name);
        }
        assert!(names.iter().eq(self.shown.cells.keys()), "the cells are those that were given something");
        for slot in 0..self.facts.slots.len() as u32 {
            let counts = graph.state_counts(SlotId(slot));
            for state in State::ALL {
                let expected = states.get(&(SlotId(slot), state)).copied().unwrap_or(0);
                assert_eq!(counts.of(state), expected, "count of {state} in slot {slot}");
            }
        }
    }

    /// A cause by names.
    fn cause(&self, graph: &Graph, cause: &Cause) -> String {
        match cause {
            Cause::Changed(cell) => format!("changed {:?}", cell_name(graph, *cell)),
            Cause::Waiting(cell) => format!("waiting {:?}", cell_name(graph, *cell)),
            Cause::Unsatisfiable(cell) => format!("unsatisfiable {:?}", cell_name(graph, *cell)),
            Cause::Unusable(cell) => format!("unusable {:?}", cell_name(graph, *cell)),
            Cause::ScopeChanged(slot) => format!("scope changed {slot}"),
            Cause::ScopeOpen(slot) => format!("scope open {slot}"),
            Cause::ScopeEmpty(slot) => format!("scope empty {slot}"),
            Cause::Better(priority) => format!("better {priority}"),
            other => format!("{other:?}"),
        }
    }

    /// Why a cell is stale; of better candidates the best is told.
    fn causes(&self, name: &CellName) -> BTreeSet<String> {
        let shown = &self.shown.cells[name];
        let better = shown.standing.better.iter().max().map(|priority| format!("better {priority}"));
        let mut causes: BTreeSet<String> = better.into_iter().collect();
        let effective = shown.standing.effective;
        let effective = effective.map(|priority| &self.facts.cells[name].candidates[&priority]);
        let Some(candidate) = effective else { return causes };
        if candidate.aged {
            causes.insert("Aged".to_string());
        }
        let Some(owner) = &candidate.owner else { return causes };
        let Some(bundle) = self.shown.bundles.get(owner) else {
            causes.insert("Orphan".to_string());
            return causes;
        };
        if bundle.forced {
            causes.insert("Forced".to_string());
        }
        for ancestor in &bundle.held_by {
            let outputs = &self.facts.producers[ancestor.at()].definition.outputs;
            let slots = outputs.iter().map(|output| self.facts.slot_id(&output.slot));
            causes.insert(format!("scope open {}", slots.min().unwrap()));
        }
        let said = |class: Class, words: [&str; 3]| match class {
            Class { blocked: true, .. } => Some(words[0].to_string()),
            Class { unsatisfiable: true, .. } => Some("unsatisfiable".to_string()),
            Class { maybe: true, .. } => Some(words[1].to_string()),
            Class { changed: true, .. } => Some(words[2].to_string()),
            _ => None,
        };
        let rests_on =
            |(edge, _): &(&EdgeName, &Class)| bundle.exclusive.contains(*edge) || candidate.rests_on(edge);
        let cells = bundle.cells.iter().filter(rests_on).map(|((_, cell), class)| (cell, class));
        let above = bundle.above.iter().map(|((_, cell), class)| (cell, class));
        for (cell, class) in cells.chain(above) {
            let word = said(*class, ["unusable", "waiting", "changed"]);
            causes.extend(word.map(|word| format!("{word} {cell:?}")));
        }
        for (at, class) in bundle.scopes.iter().filter(|(at, _)| candidate.rests_on_input(**at)) {
            let slot = self.facts.producers[owner.0.at()].inputs[*at].slot;
            let word = said(*class, ["scope empty", "scope open", "scope changed"]);
            causes.extend(word.map(|word| format!("{word} {slot}")));
        }
        causes
    }

    fn compare_bundles(&self, graph: &Graph) {
        let mut names = BTreeSet::new();
        let mut runs = BTreeMap::new();
        for id in graph.bundles() {
            let info = graph.bundle_info(id).unwrap();
            let name = (info.producer, info.date, info.key.clone());
            if self.facts.producers[name.0.at()].deregistered {
                assert_eq!((info.run, info.status), (None, PStatus::Parked), "{name:?} is no more");
                assert!(info.members.is_empty() && info.outputs.is_empty(), "{name:?} is no more");
                continue;
            }
            let shown = self.shown.bundles.get(&name).unwrap_or_else(|| panic!("no tuple makes {name:?}"));
            let work = &self.facts.works[&name];
            let members = |cells: &[CellId]| -> BTreeSet<CellName> {
                cells.iter().map(|cell| cell_name(graph, *cell)).collect()
            };
            let producer = &self.facts.producers[name.0.at()];
            let read = shown.edges.iter().filter(|(at, _)| producer.port(*at).mode != Mode::Exclusive);
            let read: BTreeSet<CellName> = read.map(|(_, cell)| cell.clone()).collect();
            assert_eq!(members(&info.members), read, "members of {name:?}");
            assert_eq!(members(&info.outputs), work.outputs, "outputs of {name:?}");
            assert_eq!(counters(graph, id), shown.counts, "counters of {name:?}");
            assert_eq!(info.status, shown.status, "status of {name:?}");
            assert_eq!(info.interrupted, work.interrupted, "interruptions of {name:?}");
            assert_eq!(info.runs, work.runs, "runs of {name:?}");
            assert_eq!(info.ended_seq.is_some(), work.ending.is_some(), "result of {name:?}");
            assert_eq!(info.run, work.running.as_ref().map(|running| running.run), "run of {name:?}");
            assert_eq!(graph.open_work(id), shown.open_work, "open work of {name:?}");
            runs.extend(info.run.map(|run| (run, id)));
            let startable = info.status == PStatus::Ready && graph.is_attached(name.0);
            assert_eq!(graph.ready().any(|ready| ready == id), startable, "queue and {name:?}");
            assert!(names.insert(name), "a bundle is there once");
        }
        assert!(names.iter().eq(self.shown.bundles.keys()), "the bundles are the join");
        assert!(graph.runs().eq(runs), "runs in flight");
    }
}
