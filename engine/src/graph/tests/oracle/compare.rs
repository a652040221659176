//! Whether a graph shows what the rules say.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::reads::REPORTED;
use super::super::super::*;
use super::facts::{BundleName, CellName, Ending, Oracle};
use super::join::EdgeName;
use super::reads::BESIDE;
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

    /// What a parked bundle may say truly: each of the things that forbid its start.
    fn reasons(&self, name: &BundleName, obligations: &[Obligation]) -> BTreeSet<String> {
        let (shown, producer) = (&self.shown.bundles[name], &self.facts.producers[name.0.at()]);
        let work = &self.facts.works[name];
        let named = |id: &ProducerId| &self.facts.producers[id.at()].definition.name;
        let mut reasons = BTreeSet::new();
        for ((_, cell), class) in &shown.cells {
            let label = self.label(cell);
            if class.blocked {
                for root in self.roots(cell) {
                    let state = self.state(&root, obligations);
                    reasons.insert(match root == *cell {
                        true => format!("input {label} is {state}"),
                        false => format!("input {label} is not usable: {} is {state}", self.label(&root)),
                    });
                }
            }
            reasons.extend(class.unsatisfiable.then(|| format!("exclusive input {label} is there")));
            reasons.extend(class.held.then(|| format!("waiting for {label}")));
        }
        for ((_, cell), class) in &shown.above {
            let label = self.label(cell);
            reasons.extend(class.unsatisfiable.then(|| format!("exclusive input {label} is there")));
            reasons.extend(class.held.then(|| format!("waiting for better data of {label}")));
        }
        for (at, class) in &shown.scopes {
            let port = producer.port(*at);
            let (slot, date) = (&self.facts.slots[port.slot.at()].name, port.date(name.1));
            let own = producer.columns.iter().zip(name.2.values());
            let own = own.filter(|(column, _)| port.columns.contains(column)).map(|(_, value)| value.clone());
            let key = Key::new(own.collect()).unwrap();
            let gap = if key.values().is_empty() { "" } else { " " };
            reasons.extend(class.blocked.then(|| format!("no cell of {slot}{gap}{key} has data for {date}")));
            if class.held {
                let dates: BTreeSet<SlotDate> = shown.open.iter().map(|(_, date, _)| *date).collect();
                let (first, last) = (dates.first().unwrap(), dates.last().unwrap());
                let dates = if first == last { first.to_string() } else { format!("{first} to {last}") };
                let open = shown.open_work;
                reasons.insert(format!("scope open: {open} upstream bundles are in work for {dates}"));
            }
        }
        for (ancestor, date, count) in shown.open.iter().filter(|_| producer.is_dependent()) {
            let of = named(ancestor);
            reasons
                .insert(format!("waiting for producer {of}, which has {count} bundles in work for {date}"));
        }
        for ancestor in &shown.held_by {
            reasons.insert(format!("waiting for producer {}, which may make an input yet", named(ancestor)));
        }
        if let Some((given, missing)) = &shown.quorum {
            let of = given + missing.len();
            reasons.insert(format!("quorum {given}/{of}: {} missing", missing.join(", ")));
        }
        for date in producer.required().map(|(_, port)| port.date(name.1)) {
            let awaited = producer.awaits_all() && !work.is_cut && !self.facts.ends.contains(&date);
            reasons.extend(awaited.then(|| format!("scope open: end_of({date}) not declared")));
        }
        reasons
    }

    fn label(&self, (slot, date, key): &CellName) -> String {
        let gap = if key.values().is_empty() { "" } else { " " };
        format!("{} {date}{gap}{key}", self.facts.slots[slot.at()].name)
    }

    /// The cells on which it rests, through any number of steps, that a cell is not usable.
    fn roots(&self, cell: &CellName) -> BTreeSet<CellName> {
        let effective = self.shown.cells[cell].standing.effective;
        let lost = self.shown.lost_inputs(&self.facts.cells[cell].candidates, effective);
        match lost.is_empty() {
            true => BTreeSet::from([cell.clone()]),
            false => lost.iter().flat_map(|input| self.roots(input)).collect(),
        }
    }

    /// What a bundle owes its members: each as of the generation that its run reads, else the one that it has.
    fn compare_obligations(&self, graph: &Graph, id: BundleId, name: &BundleName) {
        let (shown, work) = (&self.shown.bundles[name], &self.facts.works[name]);
        let producer = &self.facts.producers[name.0.at()];
        let read = shown.edges.iter().filter(|(at, _)| producer.port(*at).mode != Mode::Exclusive);
        let owed = read.map(|edge| {
            let g = self.shown.cells[&edge.1].g;
            let of_run = work.running.as_ref().and_then(|running| running.read.cells.get(edge));
            let is_seen = work.read.cells.get(edge) == Some(&g);
            let status = match (shown.status, work.ending) {
                (PStatus::Notified, Some(ending)) if is_seen => match ending {
                    Ending::Data => PStatus::Done,
                    Ending::Declined => PStatus::Declined,
                    Ending::Failed => PStatus::Failed,
                    Ending::Cancelled => PStatus::Cancelled,
                },
                (status, _) => status,
            };
            let old = of_run.copied().filter(|read| *read < g);
            (edge.0, edge.1.clone(), old.unwrap_or(g), status, old.is_some())
        });
        let at = |input: u16| if input == REPORTED { BESIDE } else { usize::from(input) };
        let told = graph
            .obligations(id, None)
            .map(|row| (at(row.input), cell_name(graph, row.cell), row.g, row.status, row.superseded));
        let (mut owed, mut told): (Vec<_>, Vec<_>) = (owed.collect(), told.collect());
        let order = |a: &(usize, CellName, u64, PStatus, bool), b: &(usize, CellName, u64, PStatus, bool)| {
            (a.0, &a.1).cmp(&(b.0, &b.1))
        };
        owed.sort_by(order);
        told.sort_by(order);
        assert_eq!(told, owed, "what {name:?} owes");
    }

    fn compare_bundles(&self, graph: &Graph) {
        let obligations = self.obligations();
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
            if info.status == PStatus::Parked {
                let true_ones = self.reasons(&name, &obligations);
                assert!(
                    true_ones.contains(&info.reason),
                    "{name:?}: {:?} is none of {true_ones:?}",
                    info.reason
                );
            }
            self.compare_obligations(graph, id, &name);
            runs.extend(info.run.map(|run| (run, id)));
            let startable = info.status == PStatus::Ready && graph.is_attached(name.0);
            assert_eq!(graph.ready().any(|ready| ready == id), startable, "queue and {name:?}");
            assert!(names.insert(name), "a bundle is there once");
        }
        assert!(names.iter().eq(self.shown.bundles.keys()), "the bundles are the join");
        assert!(graph.runs().eq(runs), "runs in flight");
    }
}
