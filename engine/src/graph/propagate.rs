//! Edges come, go and change their classes; the counts of bundles and cells move by the difference.

use std::mem;

use super::Graph;
use super::bundle::{Bundle, ScopeEdge, Tally, bundle_address};
use super::class::{Seen, Shift, Shown};
use super::edges::{EdgeKey, Known};
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
        owner.statuses[PStatus::Parked.place()] += 1;
        let mut bundle = Bundle::new(producer, date, key, scopes);
        bundle.unseen = owner.unseen();
        self.bundles.push(bundle);
        let (owner, bundles) = (&mut self.producers[producer.at()], &self.bundles);
        owner.bundles.insert(id.0, |number| bundle_address(bundles, number));
        if owner.awaits_others() {
            owner.by_date.entry(date).or_default().push(id);
        }
        self.tallies.push(Tally::new(producer));
        self.cutoffs.extend(self.cutoff_of(id).map(|at| (at, id)));
        self.bundle_mut(id);
        let members = members.into_iter();
        self.bundles[id.at()].sources.reserve(members.size_hint().0);
        for (input, source) in members {
            self.add_edge(pass, id, EdgeKey { source, input });
        }
        self.reach_inputs(pass, id);
        self.note_holds(id);
        self.touch_bundle(pass, id);
        id
    }

    pub(super) fn add_edge(&mut self, pass: &mut Pass, bundle: BundleId, key: EdgeKey) {
        let need = self.producers[self.tallies[bundle.at()].producer.at()].need(key.input);
        if !self.insert_edge(bundle, key, need) {
            return;
        }
        let tally = &mut self.tallies[bundle.at()];
        tally.counters.add(need.class(Known::Nothing, self.cells[key.source.at()].seen()));
        let shown = Shown::of(need.mode, tally.status, Known::Nothing);
        if let Some(scope) = scope_of(&mut self.bundles[bundle.at()], &self.producers, key.input) {
            scope.now.insert(key.source);
        }
        self.show(pass, key.source, Shown::Quiet, shown);
        self.lift_above(bundle, key.source);
    }

    pub(super) fn remove_edge(&mut self, pass: &mut Pass, bundle: BundleId, key: EdgeKey) {
        // Of an edge, its token alone is a fact.
        if self.edges().between(key.source, bundle).any(|(at, token)| at == key && token.is_some()) {
            self.bundle_mut(bundle);
        }
        let Some(known) = self.delete_edge(bundle, key) else { return };
        let tally = &mut self.tallies[bundle.at()];
        let need = self.producers[tally.producer.at()].need(key.input);
        tally.counters.remove(need.class(known, self.cells[key.source.at()].seen()));
        let shown = Shown::of(need.mode, tally.status, known);
        if let Some(scope) = scope_of(&mut self.bundles[bundle.at()], &self.producers, key.input) {
            scope.now.remove(key.source);
        }
        self.show(pass, key.source, shown, Shown::Quiet);
    }

    /// A cell looks different: moves the counters of the bundles that read it, and what its edges show.
    pub(super) fn reclassify(&mut self, pass: &mut Pass, source: CellId, before: Seen, now: Seen) {
        let rises = before.g != now.g;
        if rises {
            self.age_edges(source);
            for at in 0..self.cells[source.at()].readers.edges().len() {
                self.notify(self.cells[source.at()].readers.edges()[at].bundle);
            }
        }
        let mut notified = 0;
        // Of most cells all edges look alike.
        let mut alike = None;
        for edge in self.cells[source.at()].readers.edges() {
            let tally = &mut self.tallies[edge.bundle.at()];
            let known = edge.known();
            let was = if rises { edge.known_before() } else { known };
            let look = (edge.need(), was, known);
            let shift = match alike {
                Some((of, shift)) if of == look => shift,
                _ => {
                    let (from, to) = (edge.need().class(was, before), edge.need().class(known, now));
                    let shift = Shift::of_edge(from, to);
                    alike = Some((look, shift));
                    shift
                }
            };
            tally.counters.shift(shift);
            let shown = |known| Shown::of(edge.need().mode, tally.status, known);
            if rises && shown(was) != shown(known) {
                // What was read is older now, which alone may show.
                notified += 1;
            }
            self.touch_bundle(pass, edge.bundle);
        }
        self.cells[source.at()].notified += notified;
    }

    /// Gives the edges of a bundle what its run read, and moves its counters and what its edges show.
    pub(super) fn retoken(&mut self, pass: &mut Pass, bundle: BundleId, read: &[(EdgeKey, u64)]) {
        let producer = self.tallies[bundle.at()].producer;
        let mut left = read.iter().peekable();
        let edges: Vec<EdgeKey> = self.edges_of(bundle).map(|(edge, _)| edge).collect();
        for key in edges {
            while left.next_if(|(at, _)| *at < key).is_some() {}
            let token = left.next_if(|(at, _)| *at == key).map(|(_, g)| *g);
            let Some((before, now)) = self.set_token(bundle, key, token) else {
                debug_assert!(false, "a run of {bundle} read a generation that {key:?} never had");
                continue;
            };
            if before == now {
                continue;
            }
            let need = self.producers[producer.at()].need(key.input);
            let seen = self.cells[key.source.at()].seen();
            let tally = &mut self.tallies[bundle.at()];
            let (from, to) = (need.class(before, seen), need.class(now, seen));
            tally.counters.shift(Shift::of_edge(from, to));
            let (from, to) =
                (Shown::of(need.mode, tally.status, before), Shown::of(need.mode, tally.status, now));
            self.show(pass, key.source, from, to);
        }
    }

    /// A bundle's status changed: its edges show it to their sources.
    pub(super) fn reshow(&mut self, pass: &mut Pass, bundle: BundleId, before: PStatus, now: PStatus) {
        if Shown::is_same(before, now) {
            return;
        }
        let sources = mem::take(&mut self.bundles[bundle.at()].sources);
        for source in sources.iter() {
            let mut at = 0;
            while let Some(edge) = self.cells[source.at()].readers.of(bundle).get(at).copied() {
                let shown = |status| Shown::of(edge.need().mode, status, edge.known());
                self.show(pass, source, shown(before), shown(now));
                at += 1;
            }
        }
        self.bundles[bundle.at()].sources = sources;
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
