//! What processes commit: messages made into batches, and what became of them into answers.

use std::sync::Arc;

use underbelly_protocol::message::{Answer, Code, Commit, CommitCell, Due, Verdict, check_spans};
use underbelly_protocol::{Field, ProtocolError, rows};
use underbelly_storage::Value;

use super::super::worker::is_final;
use super::translate::{fitted, model, rows_of_models, slot_date};
use crate::batch::Batch;
use crate::core::Core;
use crate::error::{CommitError, SchemaError};
use crate::graph::GraphError;
use crate::sessions::{Accepted, Session};

/// Why something is refused, and what that means.
pub(crate) enum Refusal {
    Told(Code, String),
    /// The database is closed, or its log has failed, and nobody knows what of it is durable. A process hears of it by the end
    /// of the connection, and asks the next engine.
    Over,
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Refusal {
        let why = match &error {
            CommitError::Graph(GraphError::SessionTaken { .. }) => Code::Taken,
            CommitError::Graph(GraphError::SessionOver { .. }) => Code::Over,
            error if is_final(error) => return Refusal::Over,
            _ => Code::Refused,
        };
        Refusal::Told(why, error.to_string())
    }
}

impl From<SchemaError> for Refusal {
    fn from(error: SchemaError) -> Refusal {
        match error {
            SchemaError::Commit(error) => Refusal::from(*error),
            error => refused(error.to_string()),
        }
    }
}

pub(crate) fn refused(what: impl Into<String>) -> Refusal {
    Refusal::Told(Code::Refused, what.into())
}

/// Commits what a daemon gives in its session, or a client without one. An error is the end of the connection: nobody knows
/// whether it is durable.
pub(crate) fn commit(
    core: &Arc<Core>,
    session: Option<&Session>,
    commit: Commit,
    data: &[u8],
) -> Result<Answer, ProtocolError> {
    let Commit { source, epoch, .. } = commit;
    let batch = match batch(core, commit, data) {
        Ok(batch) => batch,
        Err(Refusal::Told(_, message)) => {
            return Ok(Answer { source, verdict: Verdict::Refused, seq: 0, message });
        }
        Err(Refusal::Over) => return Err(ProtocolError::Closed),
    };
    let done = match session {
        None => core.commit(batch).map(|commit| Some(commit.seq)),
        Some(session) if session.epoch() != epoch => {
            Err(GraphError::SessionOver { producer: session.producer().to_string(), epoch }.into())
        }
        Some(session) => session.commit_once(source, batch).map(|accepted| match accepted {
            Accepted::Now(commit) => Some(commit.seq),
            Accepted::Before => None,
        }),
    };
    answer(source, done)
}

fn batch(core: &Core, commit: Commit, data: &[u8]) -> Result<Batch, Refusal> {
    check_spans(commit.spans(), data).map_err(|error| refused(error.to_string()))?;
    let mut batch = Batch::new();
    for cell in commit.cells {
        let CommitCell { slot, date, key, rows: span } = cell;
        let (_, found) = core.slot(&slot)?;
        let date =
            slot_date(&date).ok_or_else(|| refused(format!("slot {slot:?}: {} is no date", date.0)))?;
        let mut values = fitted(key, &found.cell_keys);
        let ordered: Option<Vec<Value>> =
            found.cell_keys.iter().map(|(name, _)| values.remove(name)).collect();
        let ordered = ordered.filter(|_| values.is_empty()).ok_or_else(|| {
            let names: Vec<&str> = found.cell_keys.iter().map(|(name, _)| name.as_str()).collect();
            refused(format!("slot {slot:?}: name each of its cell keys, {names:?}, and no other"))
        })?;
        match span {
            Some(_) if found.is_of_models() => return Err(rows_of_models(&slot).into()),
            Some(span) => {
                let rows = span.of(data).and_then(rows::decode);
                let rows = rows.map_err(|error| refused(format!("slot {slot:?}: {error}")))?;
                batch.put_slot(&slot, date, ordered, rows);
            }
            None => drop(batch.retract_slot(&slot, date, ordered)),
        }
    }
    for given in commit.models {
        let (metadata, blob) = model(given, data).map_err(refused)?;
        let model_type = metadata.model_type().map_err(CommitError::from)?;
        if !core.slot(model_type)?.1.is_of_models() {
            let what = "it is no slot of models, and a model of this type was given; define it with `SlotDefinition::models`";
            return Err(refused(format!("slot {model_type:?}: {what}")));
        }
        batch.put_model(metadata, blob);
    }
    for date in commit.end_of {
        let found =
            slot_date(&date).ok_or_else(|| refused(format!("the end of {}, which is no date", date.0)))?;
        batch.end_of(found);
    }
    for Due { slot, date, by } in commit.due {
        let found =
            slot_date(&date).ok_or_else(|| refused(format!("slot {slot:?}: {} is no date", date.0)))?;
        let Field(Value::Timestamp(by)) = by else {
            return Err(refused(format!("slot {slot:?} is due by {}, which is no timestamp", by.0)));
        };
        batch.due_by(slot, found, by);
    }
    match commit.as_of {
        None => {}
        Some(Field(Value::Timestamp(made))) => drop(batch.as_of(made)),
        Some(other) => return Err(refused(format!("as_of is {}, which is no timestamp", other.0))),
    }
    Ok(batch)
}

pub(crate) fn answer(source: u64, done: Result<Option<u64>, CommitError>) -> Result<Answer, ProtocolError> {
    let (verdict, seq, message) = match done {
        Ok(Some(seq)) => (Verdict::Accepted, seq, String::new()),
        Ok(None) => (Verdict::Duplicate, 0, String::new()),
        Err(error) => match error.into() {
            Refusal::Told(Code::Over, message) => (Verdict::Fenced, 0, message),
            Refusal::Told(_, message) => (Verdict::Refused, 0, message),
            Refusal::Over => return Err(ProtocolError::Closed),
        },
    };
    Ok(Answer { source, verdict, seq, message })
}
