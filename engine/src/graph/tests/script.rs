//! Systems and what happens to them, in a text form that a failing test prints and [`Script::read`] takes back; `random` makes them.

mod random;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use underbelly_storage::{ColumnType, Value};

pub(super) use self::random::scripts;
use super::super::*;

/// What grows old is old after so long: twelve events.
const AGE: Duration = Duration::from_nanos(120);

/// How far the stamps of commits may be ahead where things grow old.
const SKEW: Duration = Duration::from_nanos(50);

/// How long a daemon may be awaited after the process started again.
const LEASE: Duration = Duration::from_nanos(60);

/// Names of key columns. The last names members, the others have numbers.
pub(super) const COLUMNS: [&str; 4] = ["x", "y", "z", "m"];

/// Where a slot has members, as a bit over [`COLUMNS`].
const MEMBERS: u8 = 1 << 3;

/// What a number is in a column.
pub(super) fn value_in(column: usize, number: i64) -> Value {
    if 1 << column == MEMBERS { Value::from(format!("m{number}")) } else { Value::I64(number) }
}

/// Slots `s0`, `s1`, …, producers `p0`, `p1`, … and steps.
#[derive(Clone, PartialEq)]
pub(super) struct Script {
    /// The slots' key columns, as bit sets over [`COLUMNS`].
    pub slots: Vec<u8>,
    /// Those in which what clients commit grows old, a bit set.
    pub old: u8,
    pub producers: Vec<Plan>,
    pub steps: Vec<Step>,
}

/// A producer.
#[derive(Clone, Default, Debug, PartialEq)]
pub(super) struct Plan {
    pub inputs: Vec<PlannedInput>,
    pub group: Option<PlannedGroup>,
    /// Slots and priorities.
    pub outputs: Vec<(usize, i32)>,
    /// What its runs read beside their inputs.
    pub reads: Vec<PlannedRead>,
    /// Whether what it gives to its first slot rests on its first input alone.
    pub uses: bool,
    /// Whether it waits for all that is upstream of it for its date.
    pub dependent: bool,
    /// Whether it is registered on the way and not at the beginning.
    pub late: bool,
    /// Whether it commits when it likes.
    pub daemon: bool,
    /// As which member it gives to slots that have some.
    pub member: i64,
}

#[derive(Clone, Default, Debug, PartialEq)]
pub(super) struct PlannedInput {
    pub slot: usize,
    pub mode: Mode,
    pub broadcast: bool,
    pub fault_tolerant: bool,
    pub accept_stale: bool,
    /// Two of [`COLUMNS`]: the one is called like the other.
    pub rename: Option<(usize, usize)>,
    /// One of [`COLUMNS`], a test, and the value against which it tests.
    pub filter: Option<(usize, Test, i64)>,
    pub lag: u32,
}

/// What runs read beside their inputs: the cell with the bundle's key values, and 0 in further columns.
#[derive(Clone, Default, Debug, PartialEq)]
pub(super) struct PlannedRead {
    pub slot: usize,
    /// So many days later.
    pub days: i32,
    /// All cells that agree on these of [`COLUMNS`], a bit set.
    pub scan: Option<u8>,
    /// Only where what the inputs say is odd.
    pub odd: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Test {
    Is,
    IsNot,
    Below,
}

/// What makes the groups of a producer.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub(super) struct PlannedGroup {
    /// A bit set over [`COLUMNS`].
    pub columns: u8,
    pub wait: Wait,
}

/// For what a group waits.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub(super) enum Wait {
    #[default]
    End,
    Nothing,
    Members,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Commit {
        writes: Vec<Put>,
        ends: Vec<i32>,
    },
    /// Registers the next producer that is late, or that was deregistered; it stays detached.
    Register,
    Attach(usize),
    /// Ends the session of a producer.
    Detach(usize),
    /// Starts the ready bundle at this place in the queue.
    Start(usize),
    /// Ends a run in flight with what its producer makes of its inputs. Salt 0: of these alone.
    Give {
        run: usize,
        salt: u8,
    },
    Decline(usize),
    Fail(usize),
    /// Ends a run in flight that is to be tried again, after so many events.
    Again {
        run: usize,
        why: Setback,
        events: u8,
    },
    Tick,
    /// A result with another epoch.
    Late(usize),
    /// Whether all producers are attached again at once.
    Reopen(bool),
    /// Takes back what the candidate at this place in the order of cells and priorities has.
    Retract(usize),
    /// Has the bundle of this number run again.
    Force(usize),
    Cancel(usize),
    Deregister(usize),
    /// A daemon commits, at its priority and as its member; `again`: under the number of its last commit. Made so many events
    /// before.
    Submit {
        daemon: usize,
        again: bool,
        made: i64,
        writes: Vec<Put>,
    },
    /// A slot is to be up to date for a date within so many events.
    Due {
        slot: usize,
        date: i32,
        events: i64,
    },
}

/// A client's write; `content` is `None` to retract.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Put {
    pub slot: usize,
    pub date: i32,
    /// A value for each of [`COLUMNS`]; a slot takes those that it has.
    pub key: [i64; 4],
    pub priority: i32,
    pub content: Option<u8>,
}

impl Script {
    pub fn definition_of_slot(&self, at: usize) -> SlotDefinition {
        let mut definition = SlotDefinition::new(format!("s{at}"));
        if self.old & 1 << at != 0 {
            definition = definition.fresh_for(AGE).max_skew(SKEW);
        }
        columns(self.slots[at]).fold(definition, |slot, column| match 1 << column_bit(column) {
            MEMBERS => slot.member_key(column),
            _ => slot.cell_key(column, ColumnType::I64),
        })
    }

    pub fn definition_of_producer(&self, at: usize) -> ProducerDefinition {
        let plan = &self.producers[at];
        let mut definition = match plan.daemon {
            true => ProducerDefinition::daemon(format!("p{at}")).lease(LEASE),
            false => ProducerDefinition::new(format!("p{at}")),
        };
        for (position, input) in plan.inputs.iter().enumerate() {
            definition.inputs.push(
                input.definition(plan.inputs[..position].iter().filter(|i| i.slot == input.slot).count()),
            );
        }
        if let Some(PlannedGroup { columns: bits, wait }) = plan.group {
            let when = match wait {
                Wait::End => When::Complete,
                Wait::Nothing => When::Any,
                Wait::Members => When::Quorum,
            };
            definition = definition.group_by(columns(bits), when);
        }
        if plan.dependent {
            definition = definition.dependent();
        }
        if !plan.daemon {
            definition = definition.retry(Retry { max_attempts: 2, ..Retry::default() });
        }
        for (slot, priority) in &plan.outputs {
            let has_members = self.slots[*slot] & MEMBERS != 0;
            let member = has_members.then(|| format!("m{}", plan.member));
            definition.outputs.push(Output { slot: format!("s{slot}"), priority: *priority, member });
        }
        definition
    }

    /// The key that a slot takes of these values.
    pub fn key(&self, slot: usize, values: [i64; 4]) -> Key {
        let own = (0..COLUMNS.len()).filter(|bit| self.slots[slot] & (1 << bit) != 0);
        Key::new(own.map(|bit| value_in(bit, values[bit])).collect()).unwrap()
    }

    /// Reads what was printed; panics at a line that is none.
    pub fn read(text: &str) -> Script {
        let mut script = Script { slots: Vec::new(), old: 0, producers: Vec::new(), steps: Vec::new() };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
            let words: Vec<&str> = rest.split_whitespace().collect();
            let number = |at: usize| words[at].parse::<usize>().unwrap();
            let step = match head {
                "slot" => {
                    let is_old = words.contains(&"old");
                    script.old |= u8::from(is_old) << script.slots.len();
                    let names = words.iter().filter(|word| **word != "old");
                    script.slots.push(names.map(|word| 1 << column_bit(word)).sum());
                    continue;
                }
                "producer" => {
                    script.producers.push(Plan::read(&words));
                    continue;
                }
                "commit" => {
                    let writes = words.iter().filter(|word| word.starts_with('s'));
                    let ends = words.iter().filter_map(|word| word.strip_prefix("end:d"));
                    Step::Commit {
                        writes: writes.map(|word| Put::read(word)).collect(),
                        ends: ends.map(|day| day.parse().unwrap()).collect(),
                    }
                }
                "register" => Step::Register,
                "attach" => Step::Attach(number(0)),
                "detach" => Step::Detach(number(0)),
                "start" => Step::Start(number(0)),
                "give" => Step::Give { run: number(0), salt: number(1) as u8 },
                "decline" => Step::Decline(number(0)),
                "fail" => Step::Fail(number(0)),
                "again" | "reject" => {
                    let why = if head == "again" { Setback::Failed } else { Setback::Rejected };
                    Step::Again { run: number(0), why, events: number(1) as u8 }
                }
                "halve" => {
                    let why = Setback::Halved(number(1) as u32);
                    Step::Again { run: number(0), why, events: 0 }
                }
                "tick" => Step::Tick,
                "late" => Step::Late(number(0)),
                "reopen" => Step::Reopen(words == ["attached"]),
                "retract" => Step::Retract(number(0)),
                "force" => Step::Force(number(0)),
                "cancel" => Step::Cancel(number(0)),
                "deregister" => Step::Deregister(number(0)),
                "submit" => Step::Submit {
                    daemon: number(0),
                    again: words.contains(&"again"),
                    made: words
                        .iter()
                        .find_map(|word| word.strip_prefix("made:"))
                        .map_or(0, |made| made.parse().unwrap()),
                    writes: words
                        .iter()
                        .filter(|word| word.starts_with('s'))
                        .map(|word| Put::read(word))
                        .collect(),
                },
                "due" => Step::Due {
                    slot: number(0),
                    date: words[1].parse().unwrap(),
                    events: words[2].parse().unwrap(),
                },
                _ => panic!("no line of a script: {line}"),
            };
            script.steps.push(step);
        }
        script
    }
}

fn columns(bits: u8) -> impl Iterator<Item = &'static str> {
    COLUMNS.iter().enumerate().filter(move |(bit, _)| bits & (1 << bit) != 0).map(|(_, name)| *name)
}

pub(super) fn column_bit(name: &str) -> usize {
    COLUMNS.iter().position(|column| *column == name).unwrap()
}

impl PlannedInput {
    /// `before`: how many inputs before it have the same slot.
    fn definition(&self, before: usize) -> Input {
        let PlannedInput { mode, broadcast, fault_tolerant, accept_stale, lag, .. } = *self;
        let mut input = Input::required(format!("s{}", self.slot));
        input = Input { mode, broadcast, fault_tolerant, accept_stale, lag, ..input };
        if before > 0 {
            input = input.alias(format!("s{} {before}", self.slot));
        }
        if let Some((from, to)) = self.rename {
            input = input.rename(COLUMNS[from], COLUMNS[to]);
        }
        if let Some((column, test, value)) = self.filter {
            let (column, value) = (COLUMNS[column], value_in(column, value));
            input = input.filter(match test {
                Test::Is => Filter::equals(column, value),
                Test::IsNot => Filter::differs(column, value),
                Test::Below => Filter::between(column, ..value),
            });
        }
        input
    }

    /// One word of what is printed behind its slot.
    fn read(&mut self, word: &str) {
        match word.split_once(':') {
            None if word == "broadcast" => self.broadcast = true,
            None if word == "optional" => self.mode = Mode::Optional,
            None if word == "exclusive" => self.mode = Mode::Exclusive,
            None if word == "tolerant" => self.fault_tolerant = true,
            None if word == "stale" => self.accept_stale = true,
            Some(("lag", days)) => self.lag = days.parse().unwrap(),
            Some(("as", names)) => self.rename = Some((column_bit(&names[..1]), column_bit(&names[1..]))),
            Some(("if", test)) => {
                let tests = [("=", Test::Is), ("!", Test::IsNot), ("<", Test::Below)];
                let (_, kind) = tests.into_iter().find(|(sign, _)| *sign == &test[1..2]).unwrap();
                self.filter = Some((column_bit(&test[..1]), kind, test[2..].parse().unwrap()));
            }
            _ => panic!("nothing about an input: {word}"),
        }
    }
}

impl fmt::Display for PlannedInput {
    /// `s1 optional broadcast lag:1 as:xy if:x<1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.slot)?;
        f.write_str(match self.mode {
            Mode::Required => "",
            Mode::Optional => " optional",
            Mode::Exclusive => " exclusive",
        })?;
        f.write_str(if self.broadcast { " broadcast" } else { "" })?;
        f.write_str(if self.fault_tolerant { " tolerant" } else { "" })?;
        f.write_str(if self.accept_stale { " stale" } else { "" })?;
        if self.lag > 0 {
            write!(f, " lag:{}", self.lag)?;
        }
        if let Some((from, to)) = self.rename {
            write!(f, " as:{}{}", COLUMNS[from], COLUMNS[to])?;
        }
        if let Some((column, test, value)) = self.filter {
            let sign = match test {
                Test::Is => '=',
                Test::IsNot => '!',
                Test::Below => '<',
            };
            write!(f, " if:{}{sign}{value}", COLUMNS[column])?;
        }
        Ok(())
    }
}

impl PlannedRead {
    /// What is behind the sign of a read, parted by colons.
    fn read(words: &str) -> PlannedRead {
        let mut words = words.split(':');
        let slot = words.next().and_then(|slot| slot.strip_prefix('s')).unwrap();
        let mut read = PlannedRead { slot: slot.parse().unwrap(), ..PlannedRead::default() };
        for word in words {
            match (word, word.strip_prefix("all")) {
                ("odd", _) => read.odd = true,
                (_, Some(names)) => {
                    let bits = names.chars().map(|name| 1 << column_bit(name.encode_utf8(&mut [0; 4])));
                    read.scan = Some(bits.sum());
                }
                (days, None) => read.days = days.parse().unwrap(),
            }
        }
        read
    }
}

impl fmt::Display for PlannedRead {
    /// `read:s1:-1:allxy:odd`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read:s{}", self.slot)?;
        if self.days != 0 {
            write!(f, ":{}", self.days)?;
        }
        if let Some(bits) = self.scan {
            write!(f, ":all{}", columns(bits).collect::<String>())?;
        }
        f.write_str(if self.odd { ":odd" } else { "" })
    }
}

impl Plan {
    fn read(words: &[&str]) -> Plan {
        let mut plan = Plan::default();
        let mut gives = false;
        for word in words {
            match (*word, gives) {
                ("->", _) => gives = true,
                ("group", _) => plan.group = Some(PlannedGroup::default()),
                ("any", true) => plan.group.as_mut().unwrap().wait = Wait::Nothing,
                ("quorum", true) => plan.group.as_mut().unwrap().wait = Wait::Members,
                ("daemon", false) => plan.daemon = true,
                (word, true) if word.starts_with("as:m") => plan.member = word[4..].parse().unwrap(),
                ("late", _) => plan.late = true,
                ("dependent", true) => plan.dependent = true,
                ("uses", true) => plan.uses = true,
                (word, true) if word.starts_with("read:") => plan.reads.push(PlannedRead::read(&word[5..])),
                (word, true) => match word.strip_prefix("by:") {
                    Some(names) => {
                        let bits = names.chars().map(|name| 1 << column_bit(name.encode_utf8(&mut [0; 4])));
                        plan.group.as_mut().unwrap().columns = bits.sum();
                    }
                    None => {
                        let (slot, priority) = word[1..].split_once('@').unwrap();
                        plan.outputs.push((slot.parse().unwrap(), priority.parse().unwrap()));
                    }
                },
                (word, false) => match word.strip_prefix('s').and_then(|slot| slot.parse().ok()) {
                    Some(slot) => plan.inputs.push(PlannedInput { slot, ..PlannedInput::default() }),
                    None => plan.inputs.last_mut().unwrap().read(word),
                },
            }
        }
        plan
    }
}

impl fmt::Display for Plan {
    /// `s0 s1 optional -> s2@1 read:s0:-1 uses group by:x any late`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.daemon { "producer daemon" } else { "producer" })?;
        self.inputs.iter().try_for_each(|input| write!(f, " {input}"))?;
        f.write_str(" ->")?;
        self.outputs.iter().try_for_each(|(slot, priority)| write!(f, " s{slot}@{priority}"))?;
        self.reads.iter().try_for_each(|read| write!(f, " {read}"))?;
        f.write_str(if self.uses { " uses" } else { "" })?;
        if self.member != 0 {
            write!(f, " as:m{}", self.member)?;
        }
        if let Some(PlannedGroup { columns: bits, wait }) = self.group {
            f.write_str(" group")?;
            if bits > 0 {
                write!(f, " by:{}", columns(bits).collect::<String>())?;
            }
            f.write_str(match wait {
                Wait::End => "",
                Wait::Nothing => " any",
                Wait::Members => " quorum",
            })?;
        }
        f.write_str(if self.dependent { " dependent" } else { "" })?;
        f.write_str(if self.late { " late" } else { "" })
    }
}

impl Put {
    fn read(word: &str) -> Put {
        let (place, content) = word.split_once('=').unwrap();
        let (place, priority) = place.split_once('@').unwrap();
        let parts: Vec<&str> = place.split(':').collect();
        let key: Vec<i64> = parts[2].split(',').map(|value| value.parse().unwrap()).collect();
        Put {
            slot: parts[0][1..].parse().unwrap(),
            date: parts[1][1..].parse().unwrap(),
            key: std::array::from_fn(|at| key.get(at).copied().unwrap_or(0)),
            priority: priority.parse().unwrap(),
            content: content.parse().ok(),
        }
    }
}

impl fmt::Display for Put {
    /// `s1:d0:0,1,0@0=2`, or `=-` to retract.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z, m] = self.key;
        let m = if m == 0 { String::new() } else { format!(",{m}") };
        let content = self.content.map_or("-".to_string(), |content| content.to_string());
        write!(f, "s{}:d{}:{x},{y},{z}{m}@{}={content}", self.slot, self.date, self.priority)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Commit { writes, ends } => {
                f.write_str("commit")?;
                writes.iter().try_for_each(|given| write!(f, " {given}"))?;
                ends.iter().try_for_each(|date| write!(f, " end:d{date}"))
            }
            Step::Register => f.write_str("register"),
            Step::Attach(producer) => write!(f, "attach {producer}"),
            Step::Detach(producer) => write!(f, "detach {producer}"),
            Step::Start(nth) => write!(f, "start {nth}"),
            Step::Give { run, salt } => write!(f, "give {run} {salt}"),
            Step::Decline(run) => write!(f, "decline {run}"),
            Step::Fail(run) => write!(f, "fail {run}"),
            Step::Again { run, why: Setback::Failed, events } => write!(f, "again {run} {events}"),
            Step::Again { run, why: Setback::Rejected, events } => write!(f, "reject {run} {events}"),
            Step::Again { run, why: Setback::Halved(most), .. } => write!(f, "halve {run} {most}"),
            Step::Tick => f.write_str("tick"),
            Step::Late(run) => write!(f, "late {run}"),
            Step::Reopen(attached) => f.write_str(if *attached { "reopen attached" } else { "reopen" }),
            Step::Retract(nth) => write!(f, "retract {nth}"),
            Step::Force(bundle) => write!(f, "force {bundle}"),
            Step::Cancel(bundle) => write!(f, "cancel {bundle}"),
            Step::Deregister(producer) => write!(f, "deregister {producer}"),
            Step::Submit { daemon, again, made, writes } => {
                write!(f, "submit {daemon}{}", if *again { " again" } else { "" })?;
                if *made != 0 {
                    write!(f, " made:{made}")?;
                }
                writes.iter().try_for_each(|given| write!(f, " {given}"))
            }
            Step::Due { slot, date, events } => write!(f, "due {slot} {date} {events}"),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, bits) in self.slots.iter().enumerate() {
            let names: String = columns(*bits).map(|name| format!(" {name}")).collect();
            let old = if self.old & 1 << at != 0 { " old" } else { "" };
            writeln!(f, "slot{names}{old}")?;
        }
        self.producers.iter().try_for_each(|plan| writeln!(f, "{plan}"))?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Debug for Script {
    /// A test that does it again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n#[test]\nfn found() {{\n    replay(\n        \"")?;
        self.to_string().lines().try_for_each(|line| writeln!(f, "        {line}"))?;
        writeln!(f, "        \",\n    );\n}}")
    }
}
