//! Why a thing is as it is: a tree from the thing down to root events, such as a client's commit, a failure, or
//! a declaration that is missing.

use std::collections::{BTreeMap, BTreeSet};

use super::Graph;
use super::bundle::Ending;
use super::candidate::{Candidate, Owner};
use super::class::Class;
use super::ids::{BundleId, CellId, ProducerId, SlotDate, SlotId};
use super::info::{Extent, Why, WhyKind};
use super::key::Key;
use super::query::DEPTH_MAX;
use super::state::PStatus;

/// Most nodes of a tree; what would go beyond is counted.
const NODES_MAX: usize = 10_000;

/// What was explained already. Each cell is explained once, and again where it is met nearer to the root and something behind
/// it was too deep.
#[derive(Default)]
struct Seen {
    cells: BTreeMap<CellId, Explained>,
    depth: usize,
    extent: Extent,
    /// How many cells and bundles the tree has.
    nodes: usize,
    /// How often something was too deep.
    cuts: usize,
}

#[derive(Clone, Copy)]
struct Explained {
    depth: usize,
    is_cut: bool,
}

impl Seen {
    fn new(extent: Extent) -> Seen {
        Seen { extent, ..Seen::default() }
    }

    /// Whether deeper reasons are left out; trees are walked by recursion, so there is an end to what may be asked for.
    fn is_deep(&self) -> bool {
        self.depth >= self.extent.depth.min(DEPTH_MAX)
    }

    fn is_full(&self) -> bool {
        self.nodes >= NODES_MAX
    }
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
        self.why_within(slot, date, key, Extent::default())
    }

    /// The same, so far.
    pub fn why_within(&self, slot: SlotId, date: SlotDate, key: &Key, extent: Extent) -> Option<Why> {
        self.slots.get(slot.at())?;
        Some(self.why_name(slot, date, key, &mut Seen::new(extent)))
    }

    /// Why the bundle of a producer, date and key is as it is, or why there is none. `None` where there is no such
    /// producer.
    pub fn why_work_at(&self, id: ProducerId, date: SlotDate, key: &Key, extent: Extent) -> Option<Why> {
        self.producers.get(id.at())?;
        let mut seen = Seen::new(extent);
        Some(match self.bundle(id, date, key) {
            Some(bundle) => self.why_work(bundle, &mut seen),
            None => self.why_no_work(id, date, key, &mut seen),
        })
    }

    /// What a producer has to do: its bundles by status, and why those that are not done are as they are. `None` where
    /// there is no such producer. Takes time in proportion to its bundles.
    pub fn why_producer(&self, id: ProducerId, extent: Extent) -> Option<Why> {
        let producer = self.producers.get(id.at())?;
        let counts = self.status_counts(id).into_iter().filter(|(_, count)| *count > 0);
        let counts: Vec<String> = counts.map(|(status, count)| format!("{count} {status}")).collect();
        let counts = if counts.is_empty() { "it has no bundles".to_string() } else { counts.join(", ") };
        let attached = if producer.attached { "attached" } else { "detached" };
        let name = &producer.definition.name;
        let mut why = Why::of(WhyKind::Producer, format!("producer {name} is {attached}: {counts}"));
        why.producer = Some(name.clone());
        let is_quiet = |status| matches!(status, PStatus::Done | PStatus::Declined);
        let all = producer.all_bundles();
        let mut open: Vec<(bool, BundleId)> = all
            .filter_map(|id| Some((id, self.tallies.get(id.at())?.status)))
            .filter(|(_, status)| !is_quiet(*status))
            .map(|(id, status)| (status != PStatus::Failed, id))
            .collect();
        open.sort_unstable();
        let mut seen = Seen { depth: 1, ..Seen::new(extent) };
        let shown = if extent.depth == 0 { 0 } else { extent.children };
        for (_, bundle) in open.iter().take(shown) {
            if seen.is_full() {
                break;
            }
            why.children.push(self.why_work(*bundle, &mut seen));
        }
        let left = open.len() - why.children.len();
        if left > 0 {
            why.children.push(more(left, "bundles"));
        }
        Some(why)
    }

    /// Why a bundle is as it is; `None` where there is no such bundle.
    pub fn why_bundle(&self, bundle: BundleId) -> Option<Why> {
        self.bundles.get(bundle.at())?;
        Some(self.why_work(bundle, &mut Seen::default()))
    }

    fn why_cell(&self, id: CellId, seen: &mut Seen) -> Why {
        let (cell, sheet) = (&self.cells[id.at()], &self.sheets[id.at()]);
        let lagging = if cell.lagging { ", lagging behind its inputs" } else { "" };
        let text = format!("{} is {}{lagging}", self.label(id), cell.state);
        let mut why = Why {
            sid: Some(id),
            state: Some(cell.state),
            generation: Some(cell.g),
            seq: Some(sheet.changed.seq),
            priority: sheet.effective,
            ..self.about_cell(WhyKind::Cell, text, cell.slot, sheet.date, &sheet.key)
        };
        seen.nodes += 1;
        let before = seen.cells.get(&id).copied();
        if let Some(before) = before.filter(|before| !before.is_cut || before.depth <= seen.depth) {
            seen.cuts += usize::from(before.is_cut);
            why.text += ", as explained above";
            return why;
        }
        if seen.is_deep() || seen.is_full() {
            seen.cuts += 1;
            why.text += "; deeper reasons are left out";
            why.more = sheet.candidates.len() as u64;
            return why;
        }
        let (depth, cuts) = (seen.depth, seen.cuts);
        seen.cells.insert(id, Explained { depth, is_cut: false });
        seen.depth += 1;
        let mut children = Vec::new();
        let better = sheet.standing(&self.tallies).better_coming;
        for candidate in sheet.candidates.iter() {
            let shown = sheet.effective.is_none() || Some(candidate.priority) >= sheet.effective;
            if shown {
                children.push(self.why_candidate(id, candidate, better, seen));
            }
        }
        seen.depth -= 1;
        seen.cells.insert(id, Explained { depth, is_cut: seen.cuts > cuts });
        why.children = children;
        why
    }

    /// Explains cells, as many as there is room for, and tells how many of them are left.
    fn why_each(
        &self,
        children: &mut Vec<Why>,
        cells: &[CellId],
        what: &str,
        seen: &mut Seen,
        about: impl Fn(CellId) -> Option<String>,
    ) {
        let mut shown = 0;
        for cell in cells.iter().take(seen.extent.children) {
            if seen.is_full() {
                break;
            }
            let why = self.why_cell(*cell, seen);
            children.push(match about(*cell) {
                Some(text) => Why { children: vec![why], ..Why::leaf(text) },
                None => why,
            });
            shown += 1;
        }
        let left = cells.len() - shown;
        if left > 0 {
            children.push(more(left, what));
        }
    }

    /// A node about the cell of this address.
    fn about_cell(&self, kind: WhyKind, text: String, slot: SlotId, date: SlotDate, key: &Key) -> Why {
        let slot = self.slots.get(slot.at()).map(|slot| slot.definition.name.clone());
        Why { slot, date: Some(date), key: Some(key.clone()), ..Why::of(kind, text) }
    }

    fn why_candidate(&self, id: CellId, candidate: &Candidate, better: Option<i32>, seen: &mut Seen) -> Why {
        let sheet = &self.sheets[id.at()];
        let (seq, priority) = (candidate.ended.seq, candidate.priority);
        let Some(owner) = candidate.owner.bundle() else {
            return self.why_committed(id, candidate);
        };
        let mut why = self.why_work(owner, seen);
        let failed = |ending: &Ending| matches!(ending, Ending::Failed(_) | Ending::Cancelled(_));
        if let Some(error) = &candidate.error
            && !self.bundles[owner.at()].ending.as_ref().is_some_and(failed)
        {
            let text = format!("this output failed at seq {seq}: {error}");
            why.children.push(Why { seq: Some(seq), ..Why::of(WhyKind::Ended, text) });
        }
        let is_given = candidate.content.is_some() || candidate.error.is_some();
        if !is_given && candidate.ended.seq > self.bundles[owner.at()].ended.seq {
            let text = format!("its data was retracted at seq {seq}");
            why.children.push(Why { seq: Some(seq), ..Why::of(WhyKind::Ended, text) });
        }
        why.priority = Some(priority);
        if sheet.effective != Some(priority) {
            let role = if better == Some(priority) { "better data is being made" } else { "not effective" };
            why.text = format!("priority {priority}, {role}: {}", why.text);
        }
        why
    }

    /// What a client or a daemon has for a cell.
    fn why_committed(&self, id: CellId, candidate: &Candidate) -> Why {
        let (seq, priority) = (candidate.ended.seq, candidate.priority);
        let done = if candidate.content.is_some() { "committed" } else { "retracted" };
        let who = match candidate.owner {
            Owner::Daemon(producer) => format!("daemon {}", self.producer_name(producer)),
            Owner::Client | Owner::Bundle(_) => "client".to_string(),
        };
        let mut children = Vec::new();
        if candidate.aged {
            let until = self.ages.until(id, priority);
            let until = until.map_or_else(String::new, |until| format!(": it was fresh until {until}"));
            children.push(Why::leaf(format!("{} is too old{until}", self.label(id))));
        }
        if let Owner::Daemon(producer) = candidate.owner {
            children.extend(self.why_absent(producer));
        }
        let text = format!("{who} {done} at seq {seq} with priority {priority}");
        Why { seq: Some(seq), priority: Some(priority), children, ..Why::of(WhyKind::Client, text) }
    }

    /// Why a daemon does not commit; `None` where it has a session.
    fn why_absent(&self, id: ProducerId) -> Option<Why> {
        let producer = self.producers.get(id.at())?;
        let name = &producer.definition.name;
        let text = match producer.lost_at {
            _ if producer.deregistered => format!("daemon {name} was deregistered"),
            _ if producer.attached => return None,
            Some(at) => format!("daemon {name} gives no sign of life since {at}"),
            None => format!("daemon {name} has no session"),
        };
        let about = Why { producer: Some(name.clone()), ..Why::of(WhyKind::Producer, text) };
        Some(about)
    }

    /// The members for which a group waits.
    fn why_members(&self, id: BundleId, seen: &mut Seen) -> Option<Why> {
        let bundle = &self.bundles[id.at()];
        let quorum = self.awaits_quorum(id).then(|| self.quorum(id))?;
        let mut children = Vec::new();
        for missing in quorum.missing.iter().take(seen.extent.children) {
            let reader = &self.producers[bundle.producer.at()];
            let input = reader.required().find(|(_, slot)| *slot == missing.slot).map(|(input, _)| input);
            let date = input.and_then(|input| reader.cell_date(usize::from(input), bundle.date));
            let key = input.and_then(|input| self.cell_of_member(bundle, input, &missing.member));
            children.push(match (missing.producer, date, key) {
                (None, ..) => Why::leaf(format!("nobody is registered as {}", missing.member)),
                (Some(_), Some(date), Some(key)) => self.why_name(missing.slot, date, &key, seen),
                (Some(producer), ..) => {
                    let name = self.producer_name(producer);
                    Why::leaf(format!("producer {name} has not given a cell as {}", missing.member))
                }
            });
        }
        let left = quorum.missing.len().saturating_sub(children.len());
        if left > 0 {
            children.push(more(left, "members"));
        }
        let slot = quorum.missing.first().map(|missing| missing.slot);
        let slot = slot.and_then(|slot| self.slot(slot)).map(|slot| slot.name.clone());
        Some(Why { slot, children, ..Why::of(WhyKind::Scope, quorum.to_string()) })
    }

    fn why_work(&self, id: BundleId, seen: &mut Seen) -> Why {
        seen.nodes += 1;
        let bundle = &self.bundles[id.at()];
        let producer = self.producer_name(bundle.producer);
        let reason = self.reason(id);
        let gap = if reason.is_empty() { "" } else { ": " };
        let keyed = if bundle.key.values().is_empty() { "" } else { " " };
        let (date, key, status) = (bundle.date, &bundle.key, self.tallies[id.at()].status);
        let text = format!("producer {producer} for {date}{keyed}{key} is {status}{gap}{reason}");
        let seq = bundle.ended.seq;
        let about = Why {
            producer: Some(producer.to_string()),
            date: Some(date),
            key: Some(key.clone()),
            status: Some(status),
            seq: bundle.ending.is_some().then_some(seq),
            run: bundle.running.as_ref().map(|claim| claim.run),
            ..Why::of(WhyKind::Work, text)
        };
        let mut children = Vec::new();
        match &bundle.ending {
            Some(Ending::Failed(message)) => {
                let text = format!("producer {producer} failed at seq {seq}: {message}");
                children.push(Why { seq: Some(seq), ..Why::of(WhyKind::Ended, text) });
            }
            Some(Ending::Cancelled(reason)) => {
                let text = format!("producer {producer} was cancelled at seq {seq}: {reason}");
                children.push(Why { seq: Some(seq), ..Why::of(WhyKind::Ended, text) });
            }
            Some(Ending::Declined(reason)) => {
                let text = format!("producer {producer} declined at seq {seq}: {reason}");
                children.push(Why { seq: Some(seq), ..Why::of(WhyKind::Ended, text) });
            }
            _ => {}
        }
        if self.producers[bundle.producer.at()].deregistered {
            children.push(Why::leaf(format!("producer {producer} was deregistered")));
            return Why { children, ..about };
        }
        if bundle.forced {
            children.push(Why::leaf(format!("producer {producer} was told to run again")));
        }
        let attached = self.producers[bundle.producer.at()].attached;
        if status == PStatus::Notified || (status == PStatus::Ready && !attached) {
            children.push(Why::leaf(format!("producer {producer} is detached; attach it")));
        }
        if let Some(claim) = &bundle.running {
            let text = format!("run {} is in flight", claim.run);
            children.push(Why { run: Some(claim.run), ..Why::of(WhyKind::Running, text) });
        }
        if let Some(until) = bundle.until().filter(|_| status == PStatus::RetryWait) {
            let text = format!("producer {producer} is tried again at {until}");
            children.push(Why::of(WhyKind::Event, text));
        }
        for date in self.missing_ends(bundle) {
            children.push(Why::leaf(format!("scope open: end_of({date}) not declared")));
        }
        children.extend(self.why_members(id, seen));
        let owner = &self.producers[bundle.producer.at()];
        for (scope, (input, slot)) in bundle.scopes.iter().zip(owner.required()) {
            let slot = &self.slots[slot.at()].definition.name;
            let date = owner.cell_date(usize::from(input), date).unwrap_or(date);
            let text = if scope.class.held {
                children.push(self.why_open(id, slot, date));
                continue;
            } else if scope.class.blocked {
                self.empty_scope(id, input)
            } else if scope.class.changed && bundle.ending.is_some() {
                format!("cells of {slot} appeared or vanished for {date}")
            } else {
                continue;
            };
            let (slot, date) = (Some(slot.clone()), Some(date));
            children.push(Why { slot, date, ..Why::of(WhyKind::Scope, text) });
        }
        let all = self.classes(id).all(|(_, class)| class.is_clean()) && children.is_empty();
        let there = |cell: CellId| Some(format!("exclusive input {} is there", self.label(cell)));
        let above = self.classes_above(id).into_iter().filter(|(_, class)| !class.is_clean());
        let (barring, made): (Vec<_>, Vec<_>) = above.partition(|(_, class)| class.unsatisfiable);
        let cells = |of: Vec<(CellId, Class)>| of.into_iter().map(|(cell, _)| cell).collect::<Vec<_>>();
        self.why_each(&mut children, &cells(barring), "exclusive inputs", seen, there);
        self.why_each(&mut children, &cells(made), "cells that better data may come to", seen, |cell| {
            Some(format!("better data of {} is being made", self.label(cell)))
        });
        let of_scope = self.producers[bundle.producer.at()].is_dependent() && bundle.scopes.is_empty();
        let held =
            self.held_by(id, false).chain(of_scope.then(|| self.held_by(id, true)).into_iter().flatten());
        let open: BTreeSet<(ProducerId, SlotDate)> =
            held.map(|(ancestor, date, _)| (ancestor, date)).collect();
        for (ancestor, date) in open {
            let name = self.producer_name(ancestor);
            let text = format!("producer {name} has bundles in work for {date} that may make an input yet");
            children.push(Why::leaf(text));
        }
        let barring = self.classes(id).filter(|(_, class)| class.unsatisfiable);
        let barring: Vec<CellId> = barring.map(|(edge, _)| edge.source).collect();
        self.why_each(&mut children, &barring, "exclusive inputs", seen, there);
        let shown = self.classes(id).filter(|(edge, class)| {
            self.is_made(edge.source) && !class.unsatisfiable && (all || !class.is_clean())
        });
        let mut inputs: Vec<(bool, CellId)> =
            shown.map(|(edge, c)| (!c.is_obstacle(), edge.source)).collect();
        inputs.sort_unstable();
        inputs.dedup();
        let inputs: Vec<CellId> = inputs.into_iter().map(|(_, cell)| cell).collect();
        self.why_each(&mut children, &inputs, "inputs", seen, |_| None);
        Why { children, ..about }
    }

    fn why_open(&self, group: BundleId, slot: &str, date: SlotDate) -> Why {
        let open = self.held_by(group, true).map(|(upstream, date, count)| {
            let producer = &self.producers[upstream.at()];
            let attached = if producer.attached { "" } else { ", and it is detached" };
            let name = &producer.definition.name;
            let text = format!("producer {name} has {count} bundles in work for {date}{attached}");
            Why { producer: Some(name.clone()), date: Some(date), ..Why::of(WhyKind::Producer, text) }
        });
        Why {
            slot: Some(slot.to_string()),
            date: Some(date),
            children: open.collect(),
            ..Why::of(WhyKind::Scope, format!("scope open: work upstream of {slot}"))
        }
    }

    fn why_name(&self, slot: SlotId, date: SlotDate, key: &Key, seen: &mut Seen) -> Why {
        if let Some(cell) = self.cell(slot, date, key) {
            return self.why_cell(cell, seen);
        }
        let text = format!("{} was never made", self.label_of(slot, date, key));
        let mut why = self.about_cell(WhyKind::Missing, text, slot, date, key);
        if let Err(error) = self.check_key(slot, key) {
            why.children.push(Why::leaf(error.to_string()));
            return why;
        }
        seen.nodes += 1;
        if seen.is_deep() || seen.is_full() {
            seen.cuts += 1;
            why.text += "; deeper reasons are left out";
            why.more = 1;
            return why;
        }
        seen.depth += 1;
        let of = self.slots[slot.at()].member_of(key);
        let providers = self.slots[slot.at()].providers.iter();
        let given = providers.filter(|((_, member), _)| member.is_none() || *member == of);
        let mut children: Vec<Why> =
            given.rev().map(|(_, p)| self.why_not_given(*p, slot, date, key, seen)).collect();
        seen.depth -= 1;
        if children.is_empty() {
            children.push(Why::leaf("no producer provides it, and no client committed it"));
        }
        why.children = children;
        why
    }

    /// Why a producer has not given a cell that it might give.
    fn why_not_given(&self, id: ProducerId, slot: SlotId, date: SlotDate, key: &Key, seen: &mut Seen) -> Why {
        let producer = &self.producers[id.at()];
        if producer.definition.daemon {
            let name = &producer.definition.name;
            let text = format!("daemon {name} has not committed it");
            let children = self.why_absent(id).into_iter().collect();
            let about = Why { producer: Some(name.clone()), ..Why::of(WhyKind::Producer, text) };
            return Why { children, ..about };
        }
        let positions = producer.output_positions.get(&slot).map_or(&[][..], |positions| positions);
        let bundle_key = key.project(positions);
        if let Some(bundle) = self.bundle(id, date, &bundle_key) {
            return self.why_work(bundle, seen);
        }
        self.why_no_work(id, date, &bundle_key, seen)
    }

    /// Why a producer has no bundle of this date and key.
    fn why_no_work(&self, id: ProducerId, date: SlotDate, bundle_key: &Key, seen: &mut Seen) -> Why {
        let producer = &self.producers[id.at()];
        let name = &producer.definition.name;
        let mut children = Vec::new();
        for (input, source) in producer.required() {
            let name = &self.slots[source.at()].definition.name;
            let Some(date) = producer.cell_date(usize::from(input), date) else {
                children.push(Why::leaf(format!("no date of {name} is so much earlier than {date}")));
                continue;
            };
            if producer.is_group() {
                let (columns, positions): (Vec<u16>, Vec<u16>) =
                    producer.join.shared(input).into_iter().unzip();
                let wanted = bundle_key.project(&columns);
                let members = self.slots[source.at()].members.as_ref().and_then(|of| of.get(&date));
                let keys = members.into_iter().flatten().map(|cell| &self.sheets[cell.at()].key);
                let of_group: Vec<&Key> = keys.filter(|key| key.project(&positions) == wanted).collect();
                let gap = if wanted.values().is_empty() { "" } else { " " };
                let lacks = match of_group.iter().any(|key| producer.passes(usize::from(input), key)) {
                    true => continue,
                    false if of_group.is_empty() => "has data",
                    false => "passes the filters of its input",
                };
                children.push(Why::leaf(format!("no cell of {name}{gap}{wanted} {lacks} for {date}")));
                continue;
            }
            let needed = bundle_key.project(&producer.join.input_columns[usize::from(input)]);
            if !producer.passes(usize::from(input), &needed) {
                let label = self.label_of(source, date, &needed);
                children.push(Why::leaf(format!("{label} does not pass the filters of its input")));
            } else if self.cell(source, date, &needed).is_none() {
                children.push(self.why_name(source, date, &needed, seen));
            }
        }
        Why {
            producer: Some(name.clone()),
            date: Some(date),
            key: Some(bundle_key.clone()),
            children,
            ..Why::of(WhyKind::Work, format!("producer {name} has no bundle for it: inputs are missing"))
        }
    }
}

/// That so many reasons were left out.
fn more(count: usize, what: &str) -> Why {
    Why { more: count as u64, ..Why::of(WhyKind::More, format!("and {count} {what} more")) }
}
