//! Models as cells: a slot of models has a cell for each day and each value of some attributes, which says what the newest
//! version put for it is. So a producer requires and provides models as it does any other data.

use std::collections::{BTreeMap, HashSet};

use underbelly_storage::object::ObjectId;
use underbelly_storage::{Column, ColumnType, Columns, Date, Timestamp, Value};

use super::upload::content_of;
use super::{Body, MetaValue, Metadata, Model, ModelId, ModelInfo};
use crate::batch::Batch;
use crate::core::Core;
use crate::error::{CommitError, ReadError};
use crate::graph::{
    CellId, Extent, Given, Graph, Key, OutputWrite, ProducerDefinition, SlotDate, SlotDefinition, SlotId,
    Write,
};
use crate::listing::Lineage;
use crate::operations::Operations;
use crate::pending::Pins;
use crate::slots::content;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::transaction::Read;
use crate::view::{BlobLimits, View};

/// The column with the identity.
const MODEL: &str = "model";
/// The column with the hash of the blob.
const CONTENT: &str = "content";

const DAY_NS: i64 = 86_400_000_000_000;

impl SlotDefinition {
    /// A slot of models: each version that is put of a model of this type is the content of the cell of the day of its
    /// `timestamp` and of the attributes that are named as cell keys, in the same transaction. Equal blobs wake nobody.
    /// A run opens the blob with [`Run::model`](crate::Run::model). Keys are best entries that make the identity: those under
    /// `name`, `tags` or another `timestamp` are versions of one model, whose retention they share.
    ///
    /// ```
    /// use underbelly::{ColumnType, ProducerDefinition, SlotDefinition};
    /// let scalers = SlotDefinition::models("scaler").cell_key("symbol", ColumnType::Utf8);
    /// // Prices are scored anew where they change, and where the scaler of their symbol and day is trained again.
    /// let score = ProducerDefinition::new("score").requires("prices").requires("scaler").provides("scores");
    /// # let _ = (scalers, score);
    /// ```
    pub fn models(model_type: impl Into<String>) -> SlotDefinition {
        SlotDefinition::new(model_type).value(MODEL, ColumnType::Utf8).value(CONTENT, ColumnType::Utf8)
    }

    /// Whether models of the type that the slot is named after are its cells: it has the columns of
    /// [`SlotDefinition::models`], and no row keys.
    pub fn is_of_models(&self) -> bool {
        let columns = self.values.iter().map(|(name, column_type)| (name.as_str(), *column_type));
        self.row_keys.is_empty() && columns.eq([(MODEL, ColumnType::Utf8), (CONTENT, ColumnType::Utf8)])
    }
}

/// The day of a time.
fn day(at: Timestamp) -> SlotDate {
    // 292 years of days on either side fit.
    SlotDate::Day(Date(i32::try_from(at.0.div_euclid(DAY_NS)).unwrap_or_default()))
}

/// An attribute as a cell key.
fn key_value(attribute: &MetaValue, column_type: ColumnType) -> Option<Value> {
    Some(match (attribute, column_type) {
        (MetaValue::Bool(value), ColumnType::Bool) => Value::Bool(*value),
        (MetaValue::I64(value), ColumnType::I64) => Value::I64(*value),
        (MetaValue::I64(value), ColumnType::I32) => Value::I32(i32::try_from(*value).ok()?),
        (MetaValue::F64(value), ColumnType::F64) => Value::F64(*value),
        (MetaValue::Text(value), ColumnType::Utf8) => Value::Utf8(value.as_str().into()),
        (MetaValue::Timestamp(value), ColumnType::Timestamp) => Value::Timestamp(*value),
        _ => return None,
    })
}

/// Date and key of the cell of a version.
fn address(slot: &SlotDefinition, metadata: &Metadata) -> Result<(SlotDate, Key), CommitError> {
    let value = |(column, column_type): &(String, ColumnType)| {
        let attribute = metadata.entries().get(column);
        attribute.and_then(|attribute| key_value(attribute, *column_type)).ok_or_else(|| {
            let what = format!(
                "a model of this slot has the attribute {column:?} of type {column_type}; put it into the metadata"
            );
            CommitError::Cell { slot: slot.name.clone(), what }
        })
    };
    let key = slot.cell_keys.iter().map(value).collect::<Result<_, _>>()?;
    Ok((day(metadata.timestamp()?), Key::new(key)?))
}

/// What a cell says of a version.
fn row(id: &ModelId, object: &ObjectId) -> Result<Columns, CommitError> {
    let text = |text: String| [text].iter().map(String::as_str).collect::<Column>();
    Ok(Columns::new().with(MODEL, text(id.to_string()))?.with(CONTENT, text(object.to_string()))?)
}

/// The slot whose cells the models of this type are.
fn slot_of<'g>(graph: &'g Graph, metadata: &Metadata) -> Option<(SlotId, &'g SlotDefinition)> {
    let id = graph.slot_by_name(metadata.model_type().ok()?)?;
    Some((id, graph.slot(id).filter(|slot| slot.is_of_models())?))
}

/// Whether a producer gives what clients would.
fn is_provided(graph: &Graph, slot: &str) -> bool {
    let mut outputs = graph.producers().flat_map(|(_, producer)| &producer.outputs);
    outputs.any(|output| output.slot == slot && output.priority == 0)
}

/// A version's cell.
struct OfModel {
    slot: SlotId,
    definition: SlotDefinition,
    date: SlotDate,
    key: Key,
    rows: Columns,
}

impl Core {
    /// The cells of the versions that a transaction puts.
    fn cells_of_models(&self, operations: &Operations) -> Result<Vec<OfModel>, CommitError> {
        let state = self.state();
        let mut cells = Vec::new();
        for put in &operations.models {
            let Some((slot, definition)) = slot_of(&state.graph, &put.metadata) else { continue };
            let (date, key) = address(definition, &put.metadata)?;
            let rows = row(&put.id, &put.object)?;
            cells.push(OfModel { slot, definition: definition.clone(), date, key, rows });
        }
        Ok(cells)
    }

    /// What a client's transaction writes into slots of models: versions that it puts, behind what it deletes.
    pub(crate) fn write_models(
        &self,
        operations: &mut Operations,
        pins: &mut Pins<'_>,
    ) -> Result<Vec<Write>, CommitError> {
        let mut writes = retracted(&self.state(), &operations.deleted_models, &mut operations.rests_on)?;
        for OfModel { slot, definition, date, key, rows } in self.cells_of_models(operations)? {
            let content = Some(self.prepare_content(&definition, rows, operations, pins)?);
            writes.push(Write { slot, date, key, priority: 0, content });
        }
        Ok(writes)
    }

    /// What a run gives by the models that it puts.
    pub(crate) fn give_models(
        &self,
        producer: &ProducerDefinition,
        operations: &mut Operations,
        pins: &mut Pins<'_>,
    ) -> Result<Vec<OutputWrite>, CommitError> {
        let mut outputs: Vec<OutputWrite> = Vec::new();
        for OfModel { slot, definition, key, rows, .. } in self.cells_of_models(operations)? {
            if !producer.outputs.iter().any(|output| output.slot == definition.name) {
                let what = format!(
                    "{} puts a model of it and does not provide it; add it to what it provides",
                    producer.name
                );
                return Err(CommitError::Cell { slot: definition.name, what });
            }
            let content = self.prepare_content(&definition, rows, operations, pins)?;
            // Of several the last counts.
            outputs.retain(|output| output.slot != slot || output.key != key);
            outputs.push(OutputWrite::new(slot, key, Given::Data(content)));
        }
        Ok(outputs)
    }
}

/// Takes back the cells that say versions of deleted models. Those that a producer gave stay its own.
fn retracted(
    state: &State,
    deleted: &[ModelId],
    rests_on: &mut Vec<Read>,
) -> Result<Vec<Write>, CommitError> {
    let mut writes: Vec<Write> = Vec::new();
    if !state.graph.slots().any(|(_, slot)| slot.is_of_models()) {
        return Ok(writes);
    }
    for id in deleted {
        let seq = state.models.newest(id, u64::MAX).map_or(0, |version| version.seq);
        rests_on.push(Read::Model { id: *id, seq });
        let mut seen = HashSet::new();
        for version in state.models.newest_first(id, u64::MAX) {
            let Some((slot, definition)) = slot_of(&state.graph, &version.metadata) else { continue };
            // One that was put before the slot was defined need not fit it.
            let Ok((date, key)) = address(definition, &version.metadata) else { continue };
            // A cell says the newest version that was put for it.
            if !seen.insert((date, key.clone())) {
                continue;
            }
            let rows = content::conform(definition, row(id, &version.object)?)?;
            let said = ObjectId::of(&content::encode(&rows)).0;
            let Some(cell) = state.graph.cell(slot, date, &key) else { continue };
            if state.graph.client_content(cell) != Some(said) || is_provided(&state.graph, &definition.name) {
                continue;
            }
            let seq = state.cell_at(cell, u64::MAX).map_or(0, |shown| shown.seq);
            let name = definition.name.clone();
            rests_on.push(Read::Cell { slot, name, date, key: key.clone(), seq });
            writes.push(Write { slot, date, key, priority: 0, content: None });
        }
    }
    Ok(writes)
}

/// What a batch would write into slots of models, without storing it.
pub(crate) fn writes_of(state: &State, batch: &Batch, limits: BlobLimits) -> Result<Vec<Write>, CommitError> {
    let deleted: BTreeMap<ModelId, usize> = batch.deleted_models.iter().copied().collect();
    let mut writes = retracted(state, &deleted.keys().copied().collect::<Vec<_>>(), &mut Vec::new())?;
    for (at, (metadata, body)) in batch.models.iter().enumerate() {
        // A deletion follows it.
        if deleted.get(&metadata.id()?).is_some_and(|before| at < *before) {
            continue;
        }
        let Some((slot, definition)) = slot_of(&state.graph, metadata) else { continue };
        let (date, key) = address(definition, metadata)?;
        let object = match body {
            Body::Bytes(blob) if blob.len() > limits.small_max => content_of(blob, limits.chunk_bytes),
            Body::Bytes(blob) => ObjectId::of(blob),
            Body::Stored(stored) => stored.content(),
        };
        let rows = content::conform(definition, row(&metadata.id()?, &object)?)?;
        let content = Some(ObjectId::of(&content::encode(&rows)).0);
        writes.push(Write { slot, date, key, priority: 0, content });
    }
    Ok(writes)
}

impl Snapshot {
    /// The version that a cell of a slot of models says, with its blob; `None` where there is no such cell, or nothing in it.
    ///
    /// # Errors
    /// [`ReadError::NoModel`] where the slot is none of models, and where retention or deletion took every version with this
    /// content: the cell stays, and so does what was made from it. As [`Snapshot::slot`] and [`Snapshot::model`].
    pub fn slot_model<V: Into<Value>>(
        &self,
        slot: &str,
        date: impl Into<SlotDate>,
        key: impl IntoIterator<Item = V>,
    ) -> Result<Option<Model>, ReadError> {
        let cell = self.slot(slot, date, key)?;
        cell.map(|cell| self.model_of_cell(&cell.rows)).transpose()
    }

    /// The version that a cell of a slot of models says.
    pub(crate) fn model_of_cell(&self, rows: &Columns) -> Result<Model, ReadError> {
        let text = |column: &str| rows.column(column).and_then(|column| column.str_at(0));
        let none = || ReadError::NoModel {
            what: "its slot is not one of models; define it with `SlotDefinition::models`".to_string(),
        };
        let id = text(MODEL).and_then(ModelId::parse).ok_or_else(none)?;
        let object = text(CONTENT).and_then(ObjectId::parse).ok_or_else(none)?;
        let found = self.newest_first(id).find(|version| version.object == object);
        let version = found.ok_or_else(|| ReadError::NoModel {
            what: format!(
                "no version of {id} with content {object} is left; keep more of them, or put it again and force the run"
            ),
        })?;
        self.lend(ModelInfo::new(id, version))
    }
}

impl View {
    /// What a version of a model was made from by producers: the upstream of the cell that holds it now, of several
    /// that which was written with it or else last, where its type is a slot of models. A producer's model is of the date of its run, whatever its timestamp is.
    ///
    /// # Errors
    /// [`ReadError::Storage`] where the contents of the cell cannot be read.
    pub fn model_upstream(&self, info: &ModelInfo, extent: Extent) -> Result<Option<Lineage>, ReadError> {
        let found = {
            let state = self.base().state();
            let graph = &state.graph;
            let Some((id, slot)) = slot_of(graph, info.metadata()) else { return Ok(None) };
            let Ok((_, key)) = address(slot, info.metadata()) else { return Ok(None) };
            let rows = row(&info.id, &info.content).and_then(|row| content::conform(slot, row));
            let Ok(rows) = rows else { return Ok(None) };
            let said = ObjectId::of(&content::encode(&rows)).0;
            let holds = |cell: &CellId| {
                graph.content_of(*cell).and_then(|(.., content)| content) == Some(said)
                    && graph.cell_info(*cell).is_some_and(|cell| cell.key == key)
            };
            // That of the run which put the version, or else the one that was written last.
            let written = |cell: &CellId| graph.content_of(*cell).map(|(seq, ..)| (seq == info.seq, seq));
            let found = graph.cells_of(id).filter(holds).max_by_key(written);
            let Some((cell, found)) = found.and_then(|cell| Some((cell, graph.cell_info(cell)?))) else {
                return Ok(None);
            };
            (slot.name.clone(), found.date, key, written(&cell).is_some_and(|(is_own, _)| is_own))
        };
        let (slot, date, key, is_own) = found;
        // Of versions with one content the newest is what the cell says.
        let newest = self.snapshot().newest_first(info.id).find(|version| version.object == info.content);
        if !is_own && newest.is_none_or(|newest| newest.number != info.version) {
            return Ok(None);
        }
        self.upstream(&slot, date, key.values().to_vec(), extent)
    }
}
