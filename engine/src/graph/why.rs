//! Why a thing is as it is: a tree from the thing down to root events, such as a client's commit, a failure, or
//! a declaration that is missing.

use std::collections::BTreeSet;

use super::Graph;
use super::bundle::Ending;
use super::candidate::Candidate;
use super::cell::Cell;
use super::ids::{BundleId, CellId, ProducerId, SlotDate, SlotId};
use super::info::Why;
use super::key::Key;
use super::query::DEPTH_MAX;
use super::state::PStatus;

/// Most inputs that are explained for one bundle; the rest is counted.
const CHILDREN_MAX: usize = 32;

/// What was explained already; each cell is explained once.
#[derive(Default)]
struct Seen {
    cells: BTreeSet<CellId>,
    depth: usize,
}

impl Graph {
    /// Why a cell is as it is; `None` where there is no such cell.
    pub fn why(&self, cell: CellId) -> Option<Why> {
        self.cells.get(cell.at())?;
        Some(self.why_cell(cell, &mut Seen::default()))
    }

    /// Why the cell of a slot, date and key is as it is, or why there is none: what would give it, and what
    /// that lacks. `None` where there is no such slot.
    pub fn why_at(&self, slot: SlotId, date: SlotDate, key: &Key) -> Option<Why> {
        self.slots.get(slot.at())?;
        Some(self.why_name(slot, date, key, &mut Seen::default()))
    }

    /// Why a bundle is as it is; `None` where there is no such bundle.
    pub fn why_bundle(&self, bundle: BundleId) -> Option<Why> {
        self.bundles.get(bundle.at())?;
        Some(self.why_work(bundle, &mut Seen::default()))
    }

    fn why_cell(&self, id: CellId, seen: &mut Seen) -> Why {
        let cell = &self.cells[id.at()];
        let lagging = if cell.lagging { ", lagging behind its inputs" } else { "" };
        let text = format!("{} is {}{lagging}", self.label(id), cell.state);
        if !seen.cells.insert(id) {
            return Why::leaf(format!("{text}, as explained above"));
        }
        if seen.depth >= DEPTH_MAX {
            return Why::leaf(format!("{text}; deeper reasons are left out"));
        }
        seen.depth += 1;
        let mut children = Vec::new();
        let better = cell.standing(&self.bundles).better_coming;
        for candidate in &cell.candidates {
            let shown = cell.effective.is_none() || Some(candidate.priority) >= cell.effective;
            if shown {
                children.push(self.why_candidate(cell, candidate, better, seen));
            }
        }
        seen.depth -= 1;
        Why { text, children }
    }

    fn why_candidate(&self, cell: &Cell, candidate: &Candidate, better: Option<i32>, seen: &mut Seen) -> Why {
        let (seq, priority) = (candidate.ended.seq, candidate.priority);
        let Some(owner) = candidate.owner else {
            let done = if candidate.content.is_some() { "committed" } else { "retracted" };
            return Why::leaf(format!("client {done} at seq {seq} with priority {priority}"));
        };
        let mut why = self.why_work(owner, seen);
        let failed = |ending: &Ending| matches!(ending, Ending::Failed(_) | Ending::Cancelled(_));
        if let Some(error) = &candidate.error
            && !self.bundles[owner.at()].ending.as_ref().is_some_and(failed)
        {
            why.children.push(Why::leaf(format!("this output failed at seq {seq}: {error}")));
        }
        let is_given = candidate.content.is_some() || candidate.error.is_some();
        if !is_given && candidate.ended.seq > self.bundles[owner.at()].ended.seq {
            why.children.push(Why::leaf(format!("its data was retracted at seq {seq}")));
        }
        if cell.effective != Some(priority) {
            let role = if better == Some(priority) { "better data is being made" } else { "not effective" };
            why.text = format!("priority {priority}, {role}: {}", why.text);
        }
        why
    }

    fn why_work(&self, id: BundleId, seen: &mut Seen) -> Why {
        let bundle = &self.bundles[id.at()];
        let producer = self.producer_name(bundle.producer);
        let reason = self.reason(id);
        let gap = if reason.is_empty() { "" } else { ": " };
        let keyed = if bundle.key.values().is_empty() { "" } else { " " };
        let (date, key, status) = (bundle.date, &bundle.key, bundle.status);
        let text = format!("producer {producer} for {date}{keyed}{key} is {status}{gap}{reason}");
        let seq = bundle.ended.seq;
        let mut children = Vec::new();
        match &bundle.ending {
            Some(Ending::Failed(message)) => {
                children.push(Why::leaf(format!("producer {producer} failed at seq {seq}: {message}")));
            }
            Some(Ending::Cancelled(reason)) => {
                children.push(Why::leaf(format!("producer {producer} was cancelled at seq {seq}: {reason}")));
            }
            Some(Ending::Declined(reason)) => {
                children.push(Why::leaf(format!("producer {producer} declined at seq {seq}: {reason}")));
            }
            _ => {}
        }
        if self.producers[bundle.producer.at()].deregistered {
            children.push(Why::leaf(format!("producer {producer} was deregistered")));
            return Why { text, children };
        }
        if bundle.forced {
            children.push(Why::leaf(format!("producer {producer} was told to run again")));
        }
        let attached = self.producers[bundle.producer.at()].attached;
        if status == PStatus::Notified || (status == PStatus::Ready && !attached) {
            children.push(Why::leaf(format!("producer {producer} is detached; attach it")));
        }
        if let Some(claim) = &bundle.running {
            children.push(Why::leaf(format!("run {} is in flight", claim.run)));
        }
        if !bundle.scopes.is_empty() && !self.ends.contains(&date) {
            children.push(Why::leaf(format!("scope open: end_of({date}) not declared")));
        }
        for (scope, slot) in bundle.scopes.iter().zip(&self.producers[bundle.producer.at()].inputs) {
            let slot = &self.slots[slot.at()].definition.name;
            if scope.class.held {
                children.push(self.why_open(bundle.producer, date, slot));
            } else if scope.class.blocked {
                children.push(Why::leaf(format!("no cell of {slot} has data for {date}")));
            } else if scope.class.changed && bundle.ending.is_some() {
                children.push(Why::leaf(format!("cells of {slot} appeared or vanished for {date}")));
            }
        }
        let all = self.classes(id).all(|(_, class)| class.is_clean()) && children.is_empty();
        let shown = self.classes(id).filter(|(_, class)| all || !class.is_clean());
        let mut inputs: Vec<(bool, CellId)> =
            shown.map(|(edge, c)| (!c.is_obstacle(), edge.source)).collect();
        inputs.sort_unstable();
        inputs.dedup();
        let more = inputs.len().saturating_sub(CHILDREN_MAX);
        children.extend(inputs.into_iter().take(CHILDREN_MAX).map(|(_, cell)| self.why_cell(cell, seen)));
        if more > 0 {
            children.push(Why::leaf(format!("and {more} inputs more")));
        }
        Why { text, children }
    }

    fn why_open(&self, group: ProducerId, date: SlotDate, slot: &str) -> Why {
        let open = self.producers[group.at()].upstream.iter().filter_map(|upstream| {
            let producer = &self.producers[upstream.at()];
            let count = producer.open.get(&date)?;
            let attached = if producer.attached { "" } else { ", and it is detached" };
            let name = &producer.definition.name;
            Some(Why::leaf(format!("producer {name} has {count} bundles in work for {date}{attached}")))
        });
        Why { text: format!("scope open: work upstream of {slot}"), children: open.collect() }
    }

    fn why_name(&self, slot: SlotId, date: SlotDate, key: &Key, seen: &mut Seen) -> Why {
        if let Some(cell) = self.cell(slot, date, key) {
            return self.why_cell(cell, seen);
        }
        let text = format!("{} was never made", self.label_of(slot, date, key));
        if let Err(error) = self.check_key(slot, key) {
            return Why { text, children: vec![Why::leaf(error.to_string())] };
        }
        if seen.depth >= DEPTH_MAX {
            return Why::leaf(format!("{text}; deeper reasons are left out"));
        }
        seen.depth += 1;
        let providers = &self.slots[slot.at()].providers;
        let mut children: Vec<Why> =
            providers.values().rev().map(|p| self.why_not_given(*p, slot, date, key, seen)).collect();
        seen.depth -= 1;
        if children.is_empty() {
            children.push(Why::leaf("no producer provides it, and no client committed it"));
        }
        Why { text, children }
    }

    /// Why a producer has not given a cell that it might give.
    fn why_not_given(&self, id: ProducerId, slot: SlotId, date: SlotDate, key: &Key, seen: &mut Seen) -> Why {
        let producer = &self.producers[id.at()];
        let name = &producer.definition.name;
        let positions = producer.output_positions.get(&slot).map_or(&[][..], |positions| positions);
        let bundle_key = key.project(positions);
        if let Some(bundle) = producer.bundles.get(&(date, bundle_key.clone())) {
            return self.why_work(*bundle, seen);
        }
        let mut children = Vec::new();
        for (input, source) in producer.inputs.iter().enumerate() {
            match producer.input_columns.get(input) {
                Some(columns) => {
                    let needed = bundle_key.project(columns);
                    if self.cell(*source, date, &needed).is_none() {
                        children.push(self.why_name(*source, date, &needed, seen));
                    }
                }
                None => {
                    let source = &self.slots[source.at()].definition.name;
                    children.push(Why::leaf(format!("no cell of {source} has data for {date}")));
                }
            }
        }
        Why { text: format!("producer {name} has no bundle for it: inputs are missing"), children }
    }
}
