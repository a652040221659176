//! Marking: one source changes, and everything that depends on it is known to be out of date.
//!
//! The graph is of layers: as many slots in each, every slot with the same keys, every producer of a layer reading all slots
//! of the layer below, key by key. The first layer reads one source that all share. So each cell has as many edges as a
//! layer has slots, and an edge is reached once.

use std::time::{Duration, Instant};

use underbelly::graph::{
    BundleId, ContentId, Effects, Event, Graph, Key, Outcome, OutputWrite, ProducerDefinition, ProducerId,
    RunId, SlotDate, SlotDefinition, SlotId, Submission, Write,
};
use underbelly::{ColumnType, Date, Timestamp, Value};

use crate::Failed;

/// How large a graph of layers is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Slots of a layer; edges of a bundle.
    pub width: usize,
    /// Layers, the source not counted.
    pub layers: usize,
    /// Cells of a slot.
    pub keys: usize,
}

impl Size {
    /// Cells behind the source.
    pub fn cells(self) -> usize {
        self.width * self.layers * self.keys
    }

    /// Edges that a change of the source reaches.
    pub fn edges(self) -> usize {
        self.width * self.keys * (1 + (self.layers - 1) * self.width)
    }
}

/// A graph of layers at rest, and its source.
pub struct Layers {
    graph: Graph,
    source: SlotId,
    seq: u64,
    size: Size,
}

fn date() -> SlotDate {
    SlotDate::Day(Date(20_000))
}

fn content(number: u64) -> ContentId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

impl Layers {
    /// Builds it by events, every producer running once for every key.
    pub fn build(size: Size) -> Result<Layers, Failed> {
        let mut layers = Layers { graph: Graph::new(), source: SlotId(0), seq: 0, size };
        let source = layers.define(SlotDefinition::new("source"))?;
        let keys = layers.define(SlotDefinition::new("keys").cell_key("key", ColumnType::I64))?;
        layers.source = source;
        let (mut below, mut outputs) = (vec!["keys".to_string()], Vec::new());
        for layer in 0..size.layers {
            let names: Vec<String> = (0..size.width).map(|slot| format!("layer{layer}.slot{slot}")).collect();
            for name in &names {
                let slot = layers.define(SlotDefinition::new(name).cell_key("key", ColumnType::I64))?;
                let definition =
                    below.iter().fold(ProducerDefinition::new(format!("of.{name}")), |definition, input| {
                        definition.requires(input)
                    });
                let definition = if layer == 0 { definition.broadcast("source") } else { definition };
                let registered = layers.apply(Event::Register(definition.provides(name)))?;
                let producer = registered.producer.ok_or("a producer that was not registered")?;
                layers.apply(Event::Attach { producer, host: None })?;
                outputs.push((producer, slot));
            }
            below = names;
        }
        let all_keys = (0..size.keys as i64).map(|key| {
            Ok(Write {
                slot: keys,
                date: date(),
                key: Key::new(vec![Value::I64(key)])?,
                priority: 0,
                content: Some(content(0)),
            })
        });
        let writes = all_keys.collect::<Result<Vec<Write>, Failed>>()?;
        layers.apply(Event::Commit(Submission { writes, ..Submission::default() }))?;
        let mut ready = layers.set_source(Some(1))?.ready;
        while !ready.is_empty() {
            let mut next = Vec::new();
            for bundle in ready {
                next.extend(layers.run(bundle, &outputs)?);
            }
            ready = next;
        }
        Ok(layers)
    }

    fn apply(&mut self, event: Event) -> Result<Effects, Failed> {
        self.seq += 1;
        Ok(self.graph.apply(self.seq, Timestamp(self.seq as i64), &event)?)
    }

    fn define(&mut self, definition: SlotDefinition) -> Result<SlotId, Failed> {
        Ok(self.apply(Event::DefineSlot(definition))?.slot.ok_or("a slot that was not defined")?)
    }

    /// Runs a bundle; what became ready by it.
    fn run(&mut self, bundle: BundleId, outputs: &[(ProducerId, SlotId)]) -> Result<Vec<BundleId>, Failed> {
        let run = RunId(self.seq);
        let started = self
            .apply(Event::Start { bundle, run, batch: run })?
            .started
            .pop()
            .ok_or("a run that did not start")?;
        let slot = outputs.iter().find(|(producer, _)| *producer == started.producer).map(|(_, slot)| *slot);
        let output = OutputWrite::data(slot.ok_or("a run of nobody")?, started.key, content(self.seq));
        let (outcome, reads) = (Outcome::Data(vec![output]), Vec::new());
        Ok(self.apply(Event::End { run, epoch: started.epoch, outcome, reads })?.ready)
    }

    fn set_source(&mut self, number: Option<u64>) -> Result<Effects, Failed> {
        let write = Write {
            slot: self.source,
            date: date(),
            key: Key::new(Vec::new())?,
            priority: 0,
            content: number.map(content),
        };
        self.apply(Event::Commit(Submission { writes: vec![write], ..Submission::default() }))
    }

    /// Takes the source back, or gives it back; all that depends on it is blocked, or out of date. Answers how long that
    /// took and how many cells changed their state.
    ///
    /// # Errors
    /// Where not every cell behind the source did.
    pub fn mark(&mut self, is_there: bool) -> Result<(Duration, usize), Failed> {
        let began = Instant::now();
        let effects = self.set_source(is_there.then_some(self.seq + 2))?;
        let took = began.elapsed();
        Ok((took, effects.transitions.len()))
    }

    /// Commits what is there already so many times.
    ///
    /// # Errors
    /// Where that changed anything.
    pub fn commit_nothing(&mut self, times: u64) -> Result<Duration, Failed> {
        self.set_source(Some(1))?;
        let began = Instant::now();
        let mut changed = 0;
        for _ in 0..times {
            changed += self.set_source(Some(1))?.transitions.len();
        }
        let took = began.elapsed();
        match changed {
            0 => Ok(took),
            changed => Err(format!("{changed} states changed by equal contents").into()),
        }
    }

    /// How large it is.
    pub fn size(&self) -> Size {
        self.size
    }
}
