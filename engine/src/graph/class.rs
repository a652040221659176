//! What edges make of their sources: the class of an edge, counts of classes, and what a bundle shows of them.

use super::definition::{Input, Mode};
use super::edges::Known;
use super::state::PStatus;

/// What an input asks of the cells behind its edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    pub mode: Mode,
    /// A value whose production failed counts as usable.
    pub fault_tolerant: bool,
    /// A value that is settled and does not agree with its inputs counts as usable.
    pub accept_stale: bool,
}

/// What a cell is to its consumers, and if it is not usable, what it has instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sight {
    /// Unsettled.
    Waiting,
    /// Unsettled, but readable: it committed while its own inputs moved.
    Lagging,
    /// Settled and sound.
    Usable,
    /// Settled, with data whose production failed.
    Invalid,
    /// Settled, with data that does not agree with its inputs.
    Stale,
    /// Settled, without data.
    #[default]
    Void,
}

/// A cell as its edges see it. The class of an edge is a function of this, its input and what is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub g: u64,
    pub sight: Sight,
    /// See [`super::cell::Cell::gone`].
    pub gone: bool,
}

impl Need {
    /// Of what a run reports beside its inputs: it reads what there is, and where that comes, changes or goes it may come out
    /// differently.
    pub const OF_READS: Need = Need { mode: Mode::Optional, fault_tolerant: true, accept_stale: true };

    /// Four bits from which [`Need::from_bits`] makes it again.
    pub fn bits(self) -> u16 {
        let mode = match self.mode {
            Mode::Required => 0,
            Mode::Optional => 1,
            Mode::Exclusive => 2,
        };
        mode | u16::from(self.fault_tolerant) << 2 | u16::from(self.accept_stale) << 3
    }

    pub fn from_bits(bits: u16) -> Need {
        let mode = match bits & 3 {
            0 => Mode::Required,
            1 => Mode::Optional,
            _ => Mode::Exclusive,
        };
        Need { mode, fault_tolerant: bits & 4 != 0, accept_stale: bits & 8 != 0 }
    }

    pub fn of(input: &Input) -> Need {
        Need { mode: input.mode, fault_tolerant: input.fault_tolerant, accept_stale: input.accept_stale }
    }

    /// Whether a settled source counts as usable. Stale data counts as present for an exclusive input.
    fn is_usable(self, sight: Sight) -> bool {
        match sight {
            Sight::Usable => true,
            Sight::Invalid => self.fault_tolerant,
            Sight::Stale => self.accept_stale || self.mode == Mode::Exclusive,
            Sight::Void | Sight::Waiting | Sight::Lagging => false,
        }
    }

    /// The generation that a run reads now; `None` where it finds nothing.
    pub fn reads(self, seen: Seen) -> Option<u64> {
        self.is_readable(seen.sight).then_some(seen.g)
    }

    fn is_readable(self, sight: Sight) -> bool {
        sight == Sight::Lagging || self.is_usable(sight)
    }

    /// The class of an edge over which this was read; first match.
    pub fn class(self, known: Known, seen: Seen) -> Class {
        let changed = match known {
            Known::Nothing => self.is_readable(seen.sight),
            Known::Older => true,
            Known::Current => !self.is_readable(seen.sight),
        };
        match (seen.sight, self.mode) {
            (Sight::Waiting, _) => Class { maybe: true, held: true, ..Class::CLEAN },
            (Sight::Lagging, mode) => {
                Class { maybe: true, held: mode == Mode::Exclusive, changed, ..Class::CLEAN }
            }
            (sight, Mode::Required) if !self.is_usable(sight) => {
                Class { blocked: true, gone: seen.gone, ..Class::CLEAN }
            }
            (sight, Mode::Exclusive) if self.is_usable(sight) => {
                Class { unsatisfiable: true, gone: true, ..Class::CLEAN }
            }
            _ => Class { changed, ..Class::CLEAN },
        }
    }
}

/// The class of an edge. At most one of `maybe`, `blocked`, `unsatisfiable` and `changed` is set, except that an
/// edge from a lagging source is `maybe` and may be `changed` too. `held` marks what forbids a start for now: a
/// source that is waiting and not lagging. `gone` marks an edge for which a recompute of everything would not make
/// what rests on it: `blocked` with a source that is gone (see [`super::cell::Cell::gone`]), or `unsatisfiable`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Class {
    pub changed: bool,
    pub maybe: bool,
    pub held: bool,
    pub blocked: bool,
    pub unsatisfiable: bool,
    pub gone: bool,
}

impl Class {
    pub const CLEAN: Class = Class {
        changed: false,
        maybe: false,
        held: false,
        blocked: false,
        unsatisfiable: false,
        gone: false,
    };

    /// Whether it forbids a start until the source changes: its candidates are not sound.
    pub fn is_obstacle(self) -> bool {
        self.blocked || self.unsatisfiable
    }

    pub fn is_clean(self) -> bool {
        self == Class::CLEAN
    }
}

/// How many edges are in each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub changed: u32,
    pub maybe: u32,
    pub held: u32,
    pub blocked: u32,
    pub unsatisfiable: u32,
    pub gone: u32,
}

impl Counters {
    pub fn add(&mut self, class: Class) {
        self.changed += u32::from(class.changed);
        self.maybe += u32::from(class.maybe);
        self.held += u32::from(class.held);
        self.blocked += u32::from(class.blocked);
        self.unsatisfiable += u32::from(class.unsatisfiable);
        self.gone += u32::from(class.gone);
    }

    pub fn remove(&mut self, class: Class) {
        self.changed -= u32::from(class.changed);
        self.maybe -= u32::from(class.maybe);
        self.held -= u32::from(class.held);
        self.blocked -= u32::from(class.blocked);
        self.unsatisfiable -= u32::from(class.unsatisfiable);
        self.gone -= u32::from(class.gone);
    }

    /// Some edges went from these counts to those.
    pub fn exchange(&mut self, from: Counters, to: Counters) {
        self.shift(Shift::of(from, to));
    }

    pub fn shift(&mut self, by: Shift) {
        self.changed = self.changed.wrapping_add(by.0.changed);
        self.maybe = self.maybe.wrapping_add(by.0.maybe);
        self.held = self.held.wrapping_add(by.0.held);
        self.blocked = self.blocked.wrapping_add(by.0.blocked);
        self.unsatisfiable = self.unsatisfiable.wrapping_add(by.0.unsatisfiable);
        self.gone = self.gone.wrapping_add(by.0.gone);
        debug_assert!(self.all().into_iter().all(|count| count < 1 << 31), "{self:?} fell below nothing");
    }

    fn all(self) -> [u32; 6] {
        [self.changed, self.maybe, self.held, self.blocked, self.unsatisfiable, self.gone]
    }

    /// Whether an edge forbids that what rests on it is sound.
    pub fn has_obstacle(self) -> bool {
        self.blocked > 0 || self.unsatisfiable > 0
    }

    /// Whether what rests on these edges may still change.
    pub fn is_moving(self) -> bool {
        self.changed > 0 || self.maybe > 0
    }

    pub fn is_clean(self) -> bool {
        !self.is_moving() && !self.has_obstacle()
    }
}

/// By how much counts move: differences, modulo the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift(Counters);

impl Shift {
    /// From these counts to those.
    pub fn of(from: Counters, to: Counters) -> Shift {
        Shift(Counters {
            changed: to.changed.wrapping_sub(from.changed),
            maybe: to.maybe.wrapping_sub(from.maybe),
            held: to.held.wrapping_sub(from.held),
            blocked: to.blocked.wrapping_sub(from.blocked),
            unsatisfiable: to.unsatisfiable.wrapping_sub(from.unsatisfiable),
            gone: to.gone.wrapping_sub(from.gone),
        })
    }

    /// As an edge goes from one class to another.
    pub fn of_edge(from: Class, to: Class) -> Shift {
        let (mut before, mut after) = (Counters::default(), Counters::default());
        before.add(from);
        after.add(to);
        Shift::of(before, after)
    }
}

/// What a bundle's candidates depend on, one bit each; outputs are looked at again where it changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Face(u8);

impl Face {
    const RUNNING: u8 = 1 << 5;
    const FORCED: u8 = 1 << 6;

    pub fn of(counters: &Counters, running: bool, forced: bool) -> Face {
        let counts =
            [counters.changed, counters.maybe, counters.blocked, counters.unsatisfiable, counters.gone];
        let bits = counts.into_iter().enumerate().map(|(at, count)| u8::from(count > 0) << at);
        let running = if running { Face::RUNNING } else { 0 };
        let forced = if forced { Face::FORCED } else { 0 };
        Face(bits.fold(running | forced, |face, bit| face | bit))
    }

    pub fn is_running(self) -> bool {
        self.0 & Face::RUNNING != 0
    }

    pub fn is_forced(self) -> bool {
        self.0 & Face::FORCED != 0
    }
}

/// What an edge shows its source of the bundle: the obligation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shown {
    #[default]
    Quiet,
    /// The source's generation was not acknowledged.
    Notified,
    Active,
    Failed,
}

impl Shown {
    /// What a bundle of this status shows a source of which it knows this. A bundle works for what it reads: where a
    /// source forbids it, it shows nothing.
    pub fn of(mode: Mode, status: PStatus, known: Known) -> Shown {
        match status {
            _ if mode == Mode::Exclusive => Shown::Quiet,
            PStatus::Notified if known != Known::Current => Shown::Notified,
            PStatus::Ready | PStatus::Processing | PStatus::RetryWait => Shown::Active,
            PStatus::Failed => Shown::Failed,
            _ => Shown::Quiet,
        }
    }

    /// Whether a bundle shows each source the same in two statuses.
    pub fn is_same(a: PStatus, b: PStatus) -> bool {
        let shown = |status| Shown::of(Mode::Required, status, Known::Nothing);
        a == b || (a != PStatus::Notified && b != PStatus::Notified && shown(a) == shown(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(need: Need, known: Known, sight: Sight) -> String {
        let class = need.class(known, Seen { g: 7, sight, gone: false });
        let names = [
            (class.maybe, "maybe"),
            (class.held, "held"),
            (class.blocked, "blocked"),
            (class.unsatisfiable, "unsatisfiable"),
            (class.changed, "changed"),
        ];
        let set: Vec<&str> = names.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
        if set.is_empty() { "clean".to_string() } else { set.join(" ") }
    }

    /// Classes where nothing was read, an older generation, and the one that is there.
    type Row = (Sight, [&'static str; 3]);

    fn check(need: Need, rows: &[Row]) {
        for (sight, expected) in rows {
            let known = [Known::Nothing, Known::Older, Known::Current];
            assert_eq!(known.map(|known| class(need, known, *sight)), *expected, "{need:?} of {sight:?}");
        }
    }

    #[test]
    fn a_required_input_blocks_where_it_is_not_usable() {
        let need = Need::default();
        let rows = [
            (Sight::Waiting, ["maybe held"; 3]),
            (Sight::Lagging, ["maybe changed", "maybe changed", "maybe"]),
            (Sight::Usable, ["changed", "changed", "clean"]),
            (Sight::Invalid, ["blocked"; 3]),
            (Sight::Stale, ["blocked"; 3]),
            (Sight::Void, ["blocked"; 3]),
        ];
        check(need, &rows);
        let usable = ["changed", "changed", "clean"];
        check(
            Need { fault_tolerant: true, ..need },
            &[(Sight::Invalid, usable), (Sight::Stale, ["blocked"; 3])],
        );
        check(
            Need { accept_stale: true, ..need },
            &[(Sight::Stale, usable), (Sight::Invalid, ["blocked"; 3])],
        );
        let both = Need { fault_tolerant: true, accept_stale: true, ..need };
        check(both, &[(Sight::Stale, usable), (Sight::Invalid, usable), (Sight::Void, ["blocked"; 3])]);
    }

    #[test]
    fn an_optional_input_is_changed_by_what_a_run_would_find() {
        let need = Need { mode: Mode::Optional, ..Need::default() };
        let lost = ["clean", "changed", "changed"];
        let rows = [
            (Sight::Waiting, ["maybe held"; 3]),
            (Sight::Lagging, ["maybe changed", "maybe changed", "maybe"]),
            (Sight::Usable, ["changed", "changed", "clean"]),
            (Sight::Invalid, lost),
            (Sight::Stale, lost),
            (Sight::Void, lost),
        ];
        check(need, &rows);
        let usable = ["changed", "changed", "clean"];
        check(Need { fault_tolerant: true, ..need }, &[(Sight::Invalid, usable), (Sight::Stale, lost)]);
        check(Need { accept_stale: true, ..need }, &[(Sight::Stale, usable), (Sight::Invalid, lost)]);
    }

    #[test]
    fn an_exclusive_input_is_unsatisfiable_where_it_is_there() {
        let need = Need { mode: Mode::Exclusive, ..Need::default() };
        let rows = [
            (Sight::Waiting, ["maybe held"; 3]),
            (Sight::Lagging, ["maybe held changed", "maybe held changed", "maybe held"]),
            (Sight::Usable, ["unsatisfiable"; 3]),
            (Sight::Invalid, ["clean", "changed", "changed"]),
            (Sight::Stale, ["unsatisfiable"; 3]),
            (Sight::Void, ["clean", "changed", "changed"]),
        ];
        check(need, &rows);
        check(Need { fault_tolerant: true, ..need }, &[(Sight::Invalid, ["unsatisfiable"; 3])]);
    }
}
