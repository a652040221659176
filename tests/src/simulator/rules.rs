//! The rules of the series that clients write: drawn for each life, changed on the way, and what follows from them.

use std::time::Duration;

use underbelly::{Batch, CommitError, Duplicates, Durability, ReadError, SeriesDefinition};

use super::life::Life;
use super::model::Effect;
use super::{Trouble, check};
use crate::Numbers;

/// Types of the series that clients write.
pub(super) const SERIES: [&str; 3] = ["quotes", "rates", "trades"];
/// Nanoseconds that deleted and superseded rows are kept, where they are: two long steps of the clock.
const HISTORY: i64 = 130_000_000_000;
/// By how much commit times may be ahead of the clock, at most: it is set back now and then.
const AHEAD: i64 = 10_000_000;
/// How far rows may lie behind the newest.
const RETENTIONS: [i64; 3] = [3, 40, 200];

/// What is decided of a series. The default is what holds where nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What becomes of rows with the same key and time.
    pub duplicates: Duplicates,
    /// Whether rows that are there already are left out.
    pub skips_identical: bool,
    /// For how many nanoseconds deleted and superseded rows are kept.
    pub history: i64,
    /// How far rows may lie behind the newest, or the clock.
    pub retention: Option<i64>,
}

impl Rules {
    /// Those of all series of a life. One has a retention at most, so that what a checkpoint deletes is one transaction.
    pub fn draw(numbers: &mut Numbers) -> [Rules; SERIES.len()] {
        use Duplicates::{KeepAll, LastNonNull, LastWins, Reject};
        let mut all = SERIES.map(|_| Rules {
            duplicates: [KeepAll, LastWins, LastNonNull, Reject][numbers.below(4) as usize],
            skips_identical: numbers.below(3) == 0,
            history: if numbers.below(2) == 0 { HISTORY } else { 0 },
            retention: None,
        });
        let one = numbers.below(all.len() as u64) as usize;
        all[one].retention = Some(RETENTIONS[numbers.below(RETENTIONS.len() as u64) as usize]);
        all
    }

    /// Whether an append looks at the rows that are there.
    pub fn looks(&self) -> bool {
        *self != Rules { history: self.history, retention: self.retention, ..Rules::default() }
    }

    /// As the engine takes them.
    fn definition(&self, series: &str) -> SeriesDefinition {
        let nanoseconds = |number: i64| Duration::from_nanos(number.unsigned_abs());
        let definition = SeriesDefinition::new(series)
            .duplicates(self.duplicates)
            .history(nanoseconds(self.history))
            .retention(nanoseconds(self.retention.unwrap_or(0)));
        if self.skips_identical { definition.skip_identical() } else { definition }
    }
}

impl Life {
    /// Defines the series of clients; now and then one has other rules than before. Answers whether it succeeded.
    pub(super) fn define_series(&mut self) -> Result<bool, Trouble> {
        if self.numbers.below(4) == 0 {
            let one = self.numbers.below(SERIES.len() as u64) as usize;
            let (skips, keeps) = (self.numbers.below(2) == 0, self.numbers.below(3) == 0);
            let retention = RETENTIONS[self.numbers.below(RETENTIONS.len() as u64) as usize];
            // Of the history and the duplicates it cannot be said what follows from a change.
            self.rules[one].skips_identical = skips;
            let holds = self.rules.iter().position(|rules| rules.retention.is_some());
            if !self.kinds.ages && holds.is_none_or(|holds| holds == one) {
                self.rules[one].retention = (!keeps).then_some(retention);
            }
        }
        for (series, rules) in SERIES.into_iter().zip(self.rules) {
            if self.model.rules.get(series) == Some(&rules) {
                continue;
            }
            self.tell(|| format!("{series}: {rules:?}"));
            let effects = vec![Effect::Rules(series, rules)];
            let definition = rules.definition(series);
            if self.attempt("define series", effects, |db| db.redefine_series(definition))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Commits, unless the rules of a series refuse that: then nothing is left of it.
    pub(super) fn commit(
        &mut self,
        durability: Durability,
        batch: Batch,
        effects: Vec<Effect>,
    ) -> Result<(), Trouble> {
        if !self.model.refuses(&effects) {
            return self.attempt_with(durability, "commit", effects, |db| db.commit(batch)).map(|_| ());
        }
        let before = self.head()?;
        let refused = self.db()?.commit(batch);
        if self.head()? != before {
            return Err("rows that a series refuses have a seq".into());
        }
        self.figures.refused += 1;
        match refused {
            Err(CommitError::Duplicate { .. }) => Ok(()),
            Err(error) => self.excuse("be refused", &error),
            Ok(_) => Err("rows that a series refuses are taken".into()),
        }
    }

    /// Takes note of what a checkpoint deleted before anything else was committed, where it should have.
    pub(super) fn note_expiry(&mut self, before: u64, is_made: bool) -> Result<(), Trouble> {
        let is_due = self.model.is_expired(self.time);
        let is_noted = self.journal.note_expiry(before, self.head()?, self.time);
        self.tell(|| {
            format!(
                "rows lie too far behind: {is_due}; the checkpoint deletes behind seq {before}: {is_noted}"
            )
        });
        self.figures.expired += u64::from(is_noted && self.model.has_old_rows(self.time));
        // Of rows that are hidden it does not know whether they lie behind.
        let may_hide = |(series, rules): (&&str, &Rules)| {
            rules.retention.is_some() && self.model.hiding.contains(series)
        };
        if is_noted && !is_due && !self.model.rules.iter().any(may_hide) {
            return Err("a checkpoint deletes although no row lies too far behind".into());
        }
        if is_due && is_made && !is_noted && !self.excused && self.disk.struck() == 0 {
            return Err("a checkpoint leaves rows that lie too far behind".into());
        }
        Ok(())
    }

    /// The same where it is not known whether there was a checkpoint; if so, it came last.
    pub(super) fn note_expiry_at_end(&mut self, before: u64, gave_way: bool) -> Result<(), Trouble> {
        self.settle()?;
        let head = self.head()?;
        if !gave_way || head == before || !self.model.is_expired(self.time) || self.journal.has(head) {
            return Ok(());
        }
        let is_shown = self.db()?.visible_seq() == head;
        if !is_shown || !check::counts_as(&self.db()?.snapshot(), &self.model)? {
            self.tell(|| format!("seq {head} deletes rows that lie too far behind"));
            self.figures.expired += u64::from(self.model.has_old_rows(self.time));
            self.journal.add(head, vec![Effect::Expire(self.time)]);
        }
        self.settle()
    }

    /// Notes that what is committed from now on is not earlier than this.
    pub(super) fn note_time(&mut self) -> Result<(), Trouble> {
        let head = self.head()?;
        self.latest = self.latest.max(self.time);
        self.times.retain(|(seq, _)| *seq < head);
        self.times.push((head, self.time));
        Ok(())
    }

    /// Asks what was known at an earlier transaction: what then was shown, or, where that may be gone, that it is.
    pub(super) fn look_back(&mut self) -> Result<(), Trouble> {
        let (first, last) = (self.db()?.recovery_report().checkpoint_seq, self.db()?.visible_seq());
        // Of what is further behind the history may be gone.
        let far = 1 << self.numbers.below(7);
        let seq = last - self.numbers.below((last - first + 1).min(far));
        let model = self.model_at(seq)?;
        let next = self.times.iter().rev().find(|(head, _)| *head <= seq).map(|(_, time)| *time);
        let is_near = seq == last || next.is_some_and(|next| next > self.latest + AHEAD - HISTORY);
        self.tell(|| format!("look back from {last} to {seq}, near {is_near}"));
        let past = self.db()?.as_known_at(seq)?;
        let names: Vec<_> = past.series_names().into_iter().filter(|name| !name.starts_with('_')).collect();
        if names.iter().ne(model.series.keys()) {
            return Err(format!("as known at {seq} series are {names:?}").into());
        }
        for (name, rows) in &model.series {
            let rules = model.rules.get(name).copied().unwrap_or_default();
            let is_kept = seq == last || is_near && rules.history > 0;
            match past.series(name) {
                Ok(series) => check::rows(seq, name, &series, rows)?,
                // It can be read from the horizon on, and one that lost nothing has none.
                Err(ReadError::BeforeHorizon { oldest, .. })
                    if !is_kept && oldest <= last && self.model.losing.contains(name) =>
                {
                    self.db()?.as_known_at(oldest)?.series(name)?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            self.figures.known += u64::from(seq < last);
        }
        Ok(())
    }
}
