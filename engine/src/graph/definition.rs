//! What users declare: slots, and producers that turn slots into slots.

use underbelly_storage::ColumnType;

/// A named dataset definition. `cell_keys` address a cell; `row_keys` are the primary key of the rows inside one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotDefinition {
    /// The name, such as `MarketData.Vanilla.Totem`.
    pub name: String,
    /// Key columns that address a cell, in order.
    pub cell_keys: Vec<(String, ColumnType)>,
    /// Key columns of the rows inside a cell, in order.
    pub row_keys: Vec<(String, ColumnType)>,
    /// The other columns, in order.
    pub values: Vec<(String, ColumnType)>,
}

impl SlotDefinition {
    /// A slot without columns.
    pub fn new(name: impl Into<String>) -> SlotDefinition {
        SlotDefinition { name: name.into(), cell_keys: Vec::new(), row_keys: Vec::new(), values: Vec::new() }
    }

    /// Adds a key column that addresses cells. Bytes are refused when the slot is defined.
    pub fn cell_key(mut self, name: impl Into<String>, column_type: ColumnType) -> SlotDefinition {
        self.cell_keys.push((name.into(), column_type));
        self
    }

    /// Adds a key column of the rows inside a cell.
    pub fn row_key(mut self, name: impl Into<String>, column_type: ColumnType) -> SlotDefinition {
        self.row_keys.push((name.into(), column_type));
        self
    }

    /// Adds a column that is no key.
    pub fn value(mut self, name: impl Into<String>, column_type: ColumnType) -> SlotDefinition {
        self.values.push((name.into(), column_type));
        self
    }

    /// All columns: cell keys, row keys, values.
    pub fn columns(&self) -> impl Iterator<Item = &(String, ColumnType)> {
        self.cell_keys.iter().chain(&self.row_keys).chain(&self.values)
    }

    /// The name of the slot's table: `.` becomes `_`.
    pub fn table_name(&self) -> String {
        self.name.replace('.', "_")
    }
}

/// A required input of a producer. Inputs are joined on the date and on equal names of cell keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The slot's name.
    pub slot: String,
    /// Whether the input may share no key column with the others: each of its cells is then joined with all.
    pub broadcast: bool,
}

/// How cells make bundles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// A bundle for each joined tuple of cells.
    Each,
    /// One bundle for each date, of every cell that its input slots have for it. It starts when the date's
    /// scope is closed: nothing upstream of the producer is in work, and the end of the date was declared.
    Date,
}

/// A slot that a producer provides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The slot's name.
    pub slot: String,
    /// The priority of the producer's data; the highest that is sound is effective. One slot and priority
    /// has one owner. Clients write at 0 unless they say otherwise.
    pub priority: i32,
}

/// A process that turns bundles of input cells into output cells.
///
/// Each output slot has all key columns by which the producer's bundles are addressed (the union of the
/// inputs' cell keys, or none for a group), and may have more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerDefinition {
    /// The name.
    pub name: String,
    /// Required inputs, at least one, each slot once.
    pub inputs: Vec<Input>,
    /// How cells make bundles.
    pub group: Group,
    /// Provided slots, at least one, each slot once.
    pub outputs: Vec<Output>,
}

impl ProducerDefinition {
    /// A producer without inputs and outputs.
    pub fn new(name: impl Into<String>) -> ProducerDefinition {
        ProducerDefinition { name: name.into(), inputs: Vec::new(), group: Group::Each, outputs: Vec::new() }
    }

    /// Adds a required input, which shares a key column with the others.
    pub fn requires(mut self, slot: impl Into<String>) -> ProducerDefinition {
        self.inputs.push(Input { slot: slot.into(), broadcast: false });
        self
    }

    /// Adds a required input whose cells are joined with all tuples of the date, where no column is shared.
    pub fn broadcast(mut self, slot: impl Into<String>) -> ProducerDefinition {
        self.inputs.push(Input { slot: slot.into(), broadcast: true });
        self
    }

    /// One bundle for each date instead of one for each joined tuple.
    pub fn group_by_date(mut self) -> ProducerDefinition {
        self.group = Group::Date;
        self
    }

    /// Adds a provided slot at priority 0.
    pub fn provides(self, slot: impl Into<String>) -> ProducerDefinition {
        self.provides_at(slot, 0)
    }

    /// Adds a provided slot at this priority.
    pub fn provides_at(mut self, slot: impl Into<String>, priority: i32) -> ProducerDefinition {
        self.outputs.push(Output { slot: slot.into(), priority });
        self
    }
}
