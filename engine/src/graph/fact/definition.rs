//! Records of slots and producers.

use std::ops::Bound;
use std::time::Duration;

use underbelly_storage::cursor::Cursor;
use underbelly_storage::error::Damage;
use underbelly_storage::{ColumnType, Timestamp, Value};

use super::bytes::{flags, list, put_flags, put_list, put_text, put_value, text, value};
use crate::graph::definition::nanoseconds;
use crate::graph::definition::{
    Filter, FilterTest, Group, Input, Mode, Output, ProducerDefinition, Proxy, Retry, SlotDefinition,
    Trigger, When,
};
use crate::graph::event::Host;
use crate::graph::producer::Producer;

#[derive(Clone, Debug)]
pub(in crate::graph) struct Registered {
    pub definition: ProducerDefinition,
    pub attached: bool,
    pub deregistered: bool,
    pub epoch: u64,
    pub host: Option<Host>,
    pub sequence: Option<u64>,
    pub lost_at: Option<Timestamp>,
    pub awaited: Option<Timestamp>,
}

pub(in crate::graph) fn put_slot(out: &mut Vec<u8>, slot: &SlotDefinition) {
    put_text(out, &slot.name);
    for columns in [&slot.cell_keys, &slot.row_keys, &slot.values] {
        put_list(out, columns, |out, (name, column_type)| {
            put_text(out, name);
            out.push(column_type.tag());
        });
    }
    put_flags(out, [slot.members.is_some(), slot.fresh_for.is_some(), slot.max_skew.is_some()]);
    slot.members.iter().for_each(|members| put_text(out, members));
    slot.fresh_for.iter().chain(&slot.max_skew).for_each(|time| put_duration(out, *time));
}

pub(in crate::graph) fn slot(cursor: &mut Cursor<'_>) -> Result<SlotDefinition, Damage> {
    let name = owned(cursor)?;
    let mut columns = || {
        list(cursor, |cursor| {
            let name = owned(cursor)?;
            let column_type = ColumnType::from_tag(cursor.u8()?);
            Ok((name, column_type.ok_or(Damage("a column has an unknown type"))?))
        })
    };
    let (cell_keys, row_keys, values) = (columns()?, columns()?, columns()?);
    let [has_members, grows_old, has_skew] = flags(cursor)?;
    let members = if has_members { Some(owned(cursor)?) } else { None };
    let fresh_for = if grows_old { Some(duration(cursor)?) } else { None };
    let max_skew = if has_skew { Some(duration(cursor)?) } else { None };
    Ok(SlotDefinition { name, cell_keys, row_keys, values, members, fresh_for, max_skew })
}

pub(in crate::graph) fn put_producer(out: &mut Vec<u8>, producer: &Producer) {
    let definition = &producer.definition;
    put_text(out, &definition.name);
    put_flags(
        out,
        [
            producer.attached,
            producer.deregistered,
            producer.host.is_some(),
            definition.daemon,
            definition.lease.is_some(),
            producer.lost_at.is_some(),
            producer.awaited.is_some(),
            producer.sequence.is_some(),
        ],
    );
    out.extend_from_slice(&producer.epoch.to_le_bytes());
    producer.sequence.iter().for_each(|sequence| out.extend_from_slice(&sequence.to_le_bytes()));
    definition.lease.iter().for_each(|lease| put_duration(out, *lease));
    let times = producer.lost_at.iter().chain(&producer.awaited);
    times.for_each(|time| out.extend_from_slice(&time.0.to_le_bytes()));
    match &definition.group {
        Group::Each => out.push(0),
        Group::By { columns, when } => {
            out.push(match when {
                When::Complete => 1,
                When::Any => 2,
                When::Quorum => 3,
            });
            put_list(out, columns, |out, column| put_text(out, column));
        }
    }
    put_list(out, &definition.inputs, put_input);
    put_list(out, &definition.outputs, |out, output| {
        put_text(out, &output.slot);
        out.extend_from_slice(&output.priority.to_le_bytes());
        put_flags(out, [output.member.is_some()]);
        output.member.iter().for_each(|member| put_text(out, member));
    });
    put_proxy(out, definition.proxy);
    out.extend_from_slice(&definition.retry.max_attempts.to_le_bytes());
    put_duration(out, definition.retry.backoff);
    put_duration(out, definition.retry.max_backoff);
    if let Some(host) = &producer.host {
        put_text(out, &host.machine);
        out.extend_from_slice(&host.process.to_le_bytes());
    }
}

fn put_proxy(out: &mut Vec<u8>, proxy: Proxy) {
    match proxy.trigger {
        Trigger::Independent { min_batch, max_wait_time } => {
            out.push(0);
            out.extend_from_slice(&min_batch.to_le_bytes());
            put_duration(out, max_wait_time);
        }
        Trigger::Dependent => out.push(1),
    }
    out.extend_from_slice(&proxy.max_batch.to_le_bytes());
    out.extend_from_slice(&proxy.max_running.to_le_bytes());
    put_flags(out, [proxy.cutoff.is_some()]);
    proxy.cutoff.iter().for_each(|cutoff| put_duration(out, *cutoff));
}

fn put_duration(out: &mut Vec<u8>, duration: Duration) {
    out.extend_from_slice(&nanoseconds(duration).to_le_bytes());
}

fn duration(cursor: &mut Cursor<'_>) -> Result<Duration, Damage> {
    Ok(Duration::from_nanos(cursor.u64()?))
}

fn proxy(cursor: &mut Cursor<'_>) -> Result<Proxy, Damage> {
    let trigger = match cursor.u8()? {
        0 => Trigger::Independent { min_batch: cursor.u32()?, max_wait_time: duration(cursor)? },
        1 => Trigger::Dependent,
        _ => return Err(Damage("a producer starts its bundles in an unknown way")),
    };
    let (max_batch, max_running) = (cursor.u32()?, cursor.u32()?);
    let [has_cutoff] = flags(cursor)?;
    let cutoff = if has_cutoff { Some(duration(cursor)?) } else { None };
    Ok(Proxy { trigger, max_batch, max_running, cutoff })
}

fn put_input(out: &mut Vec<u8>, input: &Input) {
    put_text(out, &input.slot);
    put_text(out, &input.alias);
    out.push(match input.mode {
        Mode::Required => 0,
        Mode::Optional => 1,
        Mode::Exclusive => 2,
    });
    put_flags(out, [input.broadcast, input.fault_tolerant, input.accept_stale]);
    out.extend_from_slice(&input.lag.to_le_bytes());
    put_list(out, &input.renames, |out, (column, name)| {
        put_text(out, column);
        put_text(out, name);
    });
    put_list(out, &input.filters, put_filter);
}

fn put_filter(out: &mut Vec<u8>, filter: &Filter) {
    put_text(out, &filter.column);
    match &filter.test {
        FilterTest::OneOf(values) => {
            out.push(0);
            put_list(out, values, put_value);
        }
        FilterTest::NoneOf(values) => {
            out.push(1);
            put_list(out, values, put_value);
        }
        FilterTest::Between(start, end) => {
            out.push(2);
            for bound in [start, end] {
                match bound {
                    Bound::Unbounded => out.push(0),
                    Bound::Included(value) => {
                        out.push(1);
                        put_value(out, value);
                    }
                    Bound::Excluded(value) => {
                        out.push(2);
                        put_value(out, value);
                    }
                }
            }
        }
    }
}

fn owned(cursor: &mut Cursor<'_>) -> Result<String, Damage> {
    Ok(text(cursor)?.to_string())
}

pub(in crate::graph) fn producer(cursor: &mut Cursor<'_>) -> Result<Registered, Damage> {
    let name = owned(cursor)?;
    let [attached, deregistered, has_host, daemon, has_lease, is_lost, is_awaited, is_numbered] =
        flags(cursor)?;
    let epoch = cursor.u64()?;
    let sequence = if is_numbered { Some(cursor.u64()?) } else { None };
    let lease = if has_lease { Some(duration(cursor)?) } else { None };
    let lost_at = if is_lost { Some(Timestamp(cursor.i64()?)) } else { None };
    let awaited = if is_awaited { Some(Timestamp(cursor.i64()?)) } else { None };
    let group = match cursor.u8()? {
        0 => Group::Each,
        1 => Group::By { columns: list(cursor, owned)?, when: When::Complete },
        2 => Group::By { columns: list(cursor, owned)?, when: When::Any },
        3 => Group::By { columns: list(cursor, owned)?, when: When::Quorum },
        _ => return Err(Damage("a producer makes bundles in an unknown way")),
    };
    let inputs = list(cursor, input)?;
    let outputs = list(cursor, output)?;
    let proxy = proxy(cursor)?;
    let (max_attempts, backoff, max_backoff) = (cursor.u32()?, duration(cursor)?, duration(cursor)?);
    let retry = Retry { max_attempts, backoff, max_backoff };
    let host = if has_host { Some(Host { machine: owned(cursor)?, process: cursor.u32()? }) } else { None };
    let definition = ProducerDefinition { name, inputs, group, outputs, proxy, retry, daemon, lease };
    Ok(Registered { definition, attached, deregistered, epoch, host, sequence, lost_at, awaited })
}

fn output(cursor: &mut Cursor<'_>) -> Result<Output, Damage> {
    let (slot, priority) = (owned(cursor)?, cursor.i32()?);
    let [is_member] = flags(cursor)?;
    Ok(Output { slot, priority, member: if is_member { Some(owned(cursor)?) } else { None } })
}

fn input(cursor: &mut Cursor<'_>) -> Result<Input, Damage> {
    let (slot, alias) = (owned(cursor)?, owned(cursor)?);
    let mode = match cursor.u8()? {
        0 => Mode::Required,
        1 => Mode::Optional,
        2 => Mode::Exclusive,
        _ => return Err(Damage("an input has an unknown mode")),
    };
    let [broadcast, fault_tolerant, accept_stale] = flags(cursor)?;
    let lag = cursor.u32()?;
    let renames = list(cursor, |cursor| Ok((owned(cursor)?, owned(cursor)?)))?;
    let filters = list(cursor, filter)?;
    Ok(Input { slot, alias, mode, broadcast, renames, filters, lag, fault_tolerant, accept_stale })
}

fn filter(cursor: &mut Cursor<'_>) -> Result<Filter, Damage> {
    let column = owned(cursor)?;
    let test = match cursor.u8()? {
        0 => FilterTest::OneOf(list(cursor, value)?),
        1 => FilterTest::NoneOf(list(cursor, value)?),
        2 => FilterTest::Between(bound(cursor)?, bound(cursor)?),
        _ => return Err(Damage("a filter asks an unknown thing")),
    };
    Ok(Filter { column, test })
}

fn bound(cursor: &mut Cursor<'_>) -> Result<Bound<Value>, Damage> {
    match cursor.u8()? {
        0 => Ok(Bound::Unbounded),
        1 => Ok(Bound::Included(value(cursor)?)),
        2 => Ok(Bound::Excluded(value(cursor)?)),
        _ => Err(Damage("a filter has an unknown bound")),
    }
}
