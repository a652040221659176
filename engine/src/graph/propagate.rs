//! Edges come, go and change their classes; the counts of bundles and cells move by the difference.

use std::mem;

use super::Graph;
use super::bundle::{Bundle, ScopeEdge};
use super::class::{Need, Seen, Shown};
use super::edges::EdgeKey;
use super::ids::{BundleId, CellId, ProducerId, SlotDate};
use super::key::Key;
use super::pass::Pass;
use super::producer::Producer;
use super::state::PStatus;

impl Graph {
    /// Makes a bundle of these cells, each with its input.
    pub(super) fn create_bundle(
        &mut self,
        pass: &mut Pass,
        producer: ProducerId,
        date: SlotDate,
        key: Key,
        members: impl IntoIterator<Item = (u16, CellId)>,
    ) -> BundleId {
        let id = BundleId(self.bundles.len() as u32);
        let owner = &mut self.producers[producer.at()];
        let scopes = if owner.is_group() { owner.required().count() } else { 0 };
        owner.bundles.insert((date, key.clone()), id);
        owner.statuses[PStatus::Parked.place()] += 1;
        let mut bundle = Bundle::new(producer, date, key, scopes);
        bundle.unseen = owner.unseen();
        self.bundles.push(bundle);
        self.bundle_mut(id);
        for (input, source) in members {
            self.add_edge(pass, id, EdgeKey { source, input });
        }
        self.reach_inputs(pass, id);
        self.note_holds(id);
        self.touch_bundle(pass, id);
        id
    }

    /// What the input of an edge asks of its source.
    fn need(&self, producer: ProducerId, input: u16) -> Need {
        self.producers[producer.at()].need(input)
    }

    pub(super) fn add_edge(&mut self, pass: &mut Pass, bundle: BundleId, key: EdgeKey) {
        let need = self.need(self.bundles[bundle.at()].producer, key.input);
        let target = &mut self.bundles[bundle.at()];
        let source = &mut self.cells[key.source.at()];
        if !target.edges.insert(key) {
            return;
        }
        target.counters.add(need.class(None, source.seen()));
        source.readers.insert(bundle);
        if let Some(scope) = scope_of(target, &self.producers, key.input) {
            scope.now.insert(key.source);
        }
        let shown = Shown::of(need.mode, target.status, None, source.g);
        self.show(pass, key.source, Shown::Quiet, shown);
        self.lift_above(bundle, key.source);
    }

    pub(super) fn remove_edge(&mut self, pass: &mut Pass, bundle: BundleId, key: EdgeKey) {
        let need = self.need(self.bundles[bundle.at()].producer, key.input);
        // Of an edge, its token alone is a fact.
        if self.bundles[bundle.at()].edges.of(key.source).any(|(at, token)| at == key && token.is_some()) {
            self.bundle_mut(bundle);
        }
        let target = &mut self.bundles[bundle.at()];
        let source = &mut self.cells[key.source.at()];
        let Some(token) = target.edges.remove(key) else { return };
        target.counters.remove(need.class(token, source.seen()));
        if let Some(scope) = scope_of(target, &self.producers, key.input) {
            scope.now.remove(key.source);
        }
        if target.edges.of(key.source).next().is_none() {
            source.readers.remove(bundle);
        }
        let shown = Shown::of(need.mode, target.status, token, source.g);
        self.show(pass, key.source, shown, Shown::Quiet);
    }

    /// A source looks different: moves the counters of a bundle that reads it, and what its edges show.
    pub(super) fn reclassify(&mut self, bundle: BundleId, source: CellId, before: Seen, now: Seen) {
        let target = &mut self.bundles[bundle.at()];
        let producer = &self.producers[target.producer.at()];
        let cell = &mut self.cells[source.at()];
        for (key, token) in target.edges.of(source) {
            let need = producer.need(key.input);
            target.counters.shift(need.class(token, before), need.class(token, now));
            let shown = |g| Shown::of(need.mode, target.status, token, g);
            cell.move_shown(shown(before.g), shown(now.g));
        }
    }

    /// Gives the edges of a bundle what its run read, and moves its counters and what its edges show.
    pub(super) fn retoken(&mut self, pass: &mut Pass, bundle: BundleId, read: &[(EdgeKey, u64)]) {
        let mut shows = Vec::new();
        let target = &mut self.bundles[bundle.at()];
        let producer = &self.producers[target.producer.at()];
        let (cells, counters, status) = (&self.cells, &mut target.counters, target.status);
        let mut left = read.iter().peekable();
        target.edges.retoken(|key, before| {
            while left.next_if(|(at, _)| *at < key).is_some() {}
            let now = left.next_if(|(at, _)| *at == key).map(|(_, g)| *g);
            let need = producer.need(key.input);
            let seen = cells[key.source.at()].seen();
            counters.shift(need.class(before, seen), need.class(now, seen));
            let shown = |token| Shown::of(need.mode, status, token, seen.g);
            if shown(before) != shown(now) {
                shows.push((key.source, shown(before), shown(now)));
            }
            now
        });
        shows.into_iter().for_each(|(cell, from, to)| self.show(pass, cell, from, to));
    }

    /// A bundle's status changed: its edges show it to their sources.
    pub(super) fn reshow(&mut self, pass: &mut Pass, bundle: BundleId, before: PStatus, now: PStatus) {
        let edges = mem::take(&mut self.bundles[bundle.at()].edges);
        let producer = self.bundles[bundle.at()].producer;
        for (key, token) in edges.iter() {
            let (mode, g) = (self.need(producer, key.input).mode, self.cells[key.source.at()].g);
            let shown = |status| Shown::of(mode, status, token, g);
            self.show(pass, key.source, shown(before), shown(now));
        }
        self.bundles[bundle.at()].edges = edges;
    }

    fn show(&mut self, pass: &mut Pass, cell: CellId, from: Shown, to: Shown) {
        if from != to {
            self.cells[cell.at()].move_shown(from, to);
            self.restate(pass, cell);
        }
    }
}

/// The scope of an input of a group, unless that makes no bundles.
fn scope_of<'a>(bundle: &'a mut Bundle, producers: &[Producer], input: u16) -> Option<&'a mut ScopeEdge> {
    if bundle.scopes.is_empty() {
        return None;
    }
    let at = producers.get(bundle.producer.at())?.required().position(|(own, _)| own == input)?;
    bundle.scopes.get_mut(at)
}
