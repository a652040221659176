//! What a producer that connects says that it is.

use std::time::Duration;

use underbelly_protocol::definition::{
    Definition, FilterDefinition, InputDefinition, Mode as GivenMode, When as GivenWhen,
};
use underbelly_storage::{ColumnType, Value};

use crate::graph::{
    Filter, FilterTest, Graph, Group, Input, Output, ProducerDefinition, Retry, Trigger, When,
};

/// The definition as the engine has it. Values of filters are brought into the types of their columns.
pub(super) fn definition(graph: &Graph, given: Definition) -> ProducerDefinition {
    let new = if given.daemon { ProducerDefinition::daemon } else { ProducerDefinition::new };
    let mut definition = new(given.name);
    definition.lease = given.lease_ms.map(Duration::from_millis);
    definition.inputs = given.inputs.into_iter().map(|given| input(graph, given)).collect();
    if let Some(group) = given.group {
        let when = match group.when {
            GivenWhen::Complete => When::Complete,
            GivenWhen::Any => When::Any,
            GivenWhen::Quorum => When::Quorum,
        };
        definition.group = Group::By { columns: group.columns, when };
    }
    let outputs = given.outputs.into_iter();
    definition.outputs = outputs
        .map(|output| Output { slot: output.slot, priority: output.priority, member: output.member })
        .collect();
    let min_batch = given.min_batch.max(1);
    definition.proxy.trigger = match given.dependent {
        true => Trigger::Dependent,
        false => Trigger::Independent { min_batch, max_wait_time: Duration::from_millis(given.max_wait_ms) },
    };
    definition.proxy.max_batch = given.max_batch.max(min_batch);
    definition.proxy.cutoff = given.cutoff_ms.map(Duration::from_millis);
    definition.proxy.max_running = given.max_running.unwrap_or(u32::MAX);
    if let Some(retry) = given.retry {
        let wait = Duration::from_millis;
        definition.retry = Retry::new(retry.max_attempts, wait(retry.backoff_ms), wait(retry.max_backoff_ms));
    }
    definition
}

fn input(graph: &Graph, given: InputDefinition) -> Input {
    let slot = graph.slot_by_name(&given.slot).and_then(|slot| graph.slot(slot));
    let columns = slot.map_or(&[][..], |slot| &slot.cell_keys);
    let mut input = match given.mode {
        GivenMode::Required => Input::required(given.slot),
        GivenMode::Optional => Input::optional(given.slot),
        GivenMode::Exclusive => Input::exclusive(given.slot),
    };
    if !given.alias.is_empty() {
        input.alias = given.alias;
    }
    input.broadcast = given.broadcast;
    input.renames = given.renames;
    input.filters = given.filters.into_iter().flat_map(|given| filters(columns, given)).collect();
    input.lag = given.lag;
    input.fault_tolerant = given.fault_tolerant;
    input.accept_stale = given.accept_stale;
    input
}

fn filters(columns: &[(String, ColumnType)], given: FilterDefinition) -> Vec<Filter> {
    let FilterDefinition { column, one_of, none_of } = given;
    let found = columns.iter().find(|(name, _)| *name == column).map(|(_, found)| *found);
    let fit = |fields: Vec<underbelly_protocol::Field>| -> Vec<Value> {
        let fit =
            |field: underbelly_protocol::Field| found.and_then(|found| field.fit(found)).unwrap_or(field.0);
        fields.into_iter().map(fit).collect()
    };
    let one_of = one_of.map(|fields| FilterTest::OneOf(fit(fields)));
    let none_of = (!none_of.is_empty()).then(|| FilterTest::NoneOf(fit(none_of)));
    one_of.into_iter().chain(none_of).map(|test| Filter { column: column.clone(), test }).collect()
}
