//! What holds bundles: work of producers from which one of their inputs may still be made.

use std::collections::BTreeMap;

use underbelly_storage::Value;

use super::super::super::*;
use super::facts::{BundleName, Facts, Port};
use super::join::shifted;

/// Names of columns of the held bundles, and what those columns are called somewhere up the way.
type Carried = BTreeMap<String, String>;

/// A producer that may hold, the date of its work, and the values that columns of its bundles must have.
pub(super) type Ancestor = (ProducerId, SlotDate, BTreeMap<String, Value>);

/// Makers with what is carried over from them, and how many days earlier their work is at the latest.
type Found = BTreeMap<(ProducerId, Carried), u32>;

impl Facts {
    /// Producers from which an input is made by the last step: of an exclusive input on the own slot, only those
    /// that give more than the producer itself.
    pub fn makers(&self, id: ProducerId, at: usize) -> Vec<ProducerId> {
        let slot = self.producers[id.at()].inputs[at].slot;
        let own = self.fills(id, at);
        let better = |maker: &ProducerId| own.is_none_or(|own| self.priority(*maker, slot) > Some(own));
        self.providers(slot).filter(better).collect()
    }

    /// The priority at which a producer provides a slot.
    pub fn priority(&self, id: ProducerId, slot: SlotId) -> Option<i32> {
        let name = &self.slots[slot.at()].name;
        let mut outputs = self.producers[id.at()].definition.outputs.iter();
        outputs.find(|output| output.slot == *name).map(|output| output.priority)
    }

    /// Of an exclusive input on a slot that the producer itself provides, at which priority.
    pub fn fills(&self, id: ProducerId, at: usize) -> Option<i32> {
        let port = &self.producers[id.at()].inputs[at];
        match port.mode {
            Mode::Exclusive if port.lag == 0 => self.priority(id, port.slot),
            _ => None,
        }
    }

    /// From whom inputs of a bundle are made, through any number of steps, each with what its own bundles must be to
    /// concern this one: inputs that make no bundles, or with `of_group` those that a group is made of.
    pub fn ancestors(&self, name: &BundleName, of_group: bool) -> Vec<Ancestor> {
        let producer = &self.producers[name.0.at()];
        let values: BTreeMap<&String, &Value> = producer.columns.iter().zip(name.2.values()).collect();
        let mut own: Carried =
            producer.columns.iter().map(|column| (column.clone(), column.clone())).collect();
        if of_group && producer.is_dependent() {
            own.clear();
        }
        let mut found = Found::new();
        for (at, port) in (0..).zip(&producer.inputs) {
            let all = of_group && producer.is_dependent();
            if all || ((port.mode == Mode::Required) == of_group && (!of_group || producer.is_group())) {
                self.climb(name.0, at, 0, &own, &mut found);
            }
        }
        let demand = |carried: &Carried| {
            carried.iter().map(|(own, there)| (there.clone(), values[own].clone())).collect()
        };
        let date = |lag: u32| shifted(name.1, -(lag as i32));
        found.iter().map(|((maker, carried), lag)| (*maker, date(*lag), demand(carried))).collect()
    }

    /// One step up from an input: `carried` names columns of the producer's bundles. In a circle the latest date counts.
    fn climb(&self, id: ProducerId, at: usize, lag: u32, carried: &Carried, found: &mut Found) {
        let port = &self.producers[id.at()].inputs[at];
        let lag = lag + port.lag;
        for maker in self.makers(id, at) {
            let kept = self.through(port, carried, &self.producers[maker.at()].columns);
            let known = found.get(&(maker, kept.clone()));
            if known.is_none_or(|known| lag < *known) {
                found.insert((maker, kept.clone()), lag);
                for up in 0..self.producers[maker.at()].inputs.len() {
                    self.climb(maker, up, lag, &kept, found);
                }
            }
        }
    }

    /// Columns that an input's slot has under its own names, and whoever makes it as columns of bundles.
    fn through(&self, port: &Port, carried: &Carried, columns: &[String]) -> Carried {
        let slot_name = |name: &String| {
            let at = port.columns.iter().position(|column| column == name)?;
            Some(port.keys[at].clone()).filter(|key| columns.contains(key))
        };
        carried.iter().filter_map(|(own, here)| Some((own.clone(), slot_name(here)?))).collect()
    }
}
