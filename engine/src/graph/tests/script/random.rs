//! Random systems and steps.

use proptest::prelude::*;

use super::*;

/// What picks an input.
#[derive(Clone, Debug)]
struct Pick {
    slot: u8,
    mode: Mode,
    fault_tolerant: bool,
    accept_stale: bool,
    rename: Option<(usize, usize)>,
    filter: Option<(usize, Test, i64)>,
    lag: u32,
}

/// Numbers that pick slots, and flags.
#[derive(Clone, Debug)]
struct Picks {
    inputs: Vec<Pick>,
    /// Which input is a required one if there is no other.
    required: u8,
    outputs: Vec<u8>,
    group: Option<PlannedGroup>,
    priority: i32,
    reads: Vec<PlannedRead>,
    uses: bool,
    dependent: bool,
    /// Whether it reads beside its inputs what may be made of its outputs.
    loose: bool,
    /// Whether it fills in what nobody better gives.
    fills: bool,
    /// Declared as it comes, without regard to cycles, joins and columns: mostly refused.
    wild: bool,
}

impl Picks {
    /// `deterministic`: takes no data of which it depends on the past whether it is there.
    fn plan(&self, slots: &[u8], deterministic: bool) -> Plan {
        let mut inputs: Vec<PlannedInput> = Vec::new();
        for pick in &self.inputs {
            // Of an earlier date it may be any slot, else one below.
            let lag = if self.wild { 0 } else { pick.lag };
            let below = if self.wild || lag > 0 { slots.len() } else { slots.len() - 1 };
            let slot = usize::from(pick.slot) % below;
            let has = |column: usize| slots[slot] & (1 << column) != 0;
            inputs.push(PlannedInput {
                slot,
                mode: pick.mode,
                broadcast: false,
                fault_tolerant: pick.fault_tolerant && !deterministic,
                accept_stale: pick.accept_stale && !deterministic,
                rename: pick.rename.filter(|(from, to)| self.wild || (has(*from) && !has(*to))),
                filter: pick.filter.filter(|(column, ..)| self.wild || has(*column)),
                lag,
            });
        }
        inputs.sort_by_key(|input| input.slot);
        if inputs.iter().all(|input| input.mode != Mode::Required) {
            let first = usize::from(self.required) % inputs.len();
            inputs[first].mode = Mode::Required;
        }
        // What is made of earlier dates alone, and of itself, never ends.
        if inputs.iter().all(|input| input.mode != Mode::Required || input.lag > 0) {
            let first = inputs.iter_mut().find(|input| input.mode == Mode::Required).unwrap();
            *first = PlannedInput { slot: first.slot % (slots.len() - 1), ..PlannedInput::default() };
        }
        let own = |input: &PlannedInput| match input.rename {
            Some((from, to)) => slots[input.slot] & !(1 << from) | 1 << to,
            None => slots[input.slot],
        };
        let required = inputs.iter().filter(|input| input.mode == Mode::Required);
        let joined = required.fold(0, |columns, input| columns | own(input));
        let has_members =
            inputs.iter().any(|input| input.mode == Mode::Required && slots[input.slot] & MEMBERS != 0);
        let group = self.group.map(|group| match group.wait {
            Wait::Members if has_members => {
                PlannedGroup { columns: group.columns & joined & !MEMBERS, ..group }
            }
            Wait::Members => PlannedGroup { columns: group.columns & joined, wait: Wait::Nothing },
            _ => PlannedGroup { columns: group.columns & joined, ..group },
        });
        let columns = group.map_or(joined, |group| group.columns);
        let fits = |slot: &usize| {
            let above = inputs.iter().all(|input| input.slot < *slot || input.lag > 0);
            // Of two names that a bundle may have one is given.
            let is_own = columns & slots[*slot] & MEMBERS == 0;
            is_own && (self.wild || (above && columns & !slots[*slot] == 0))
        };
        let open: Vec<usize> = (0..slots.len()).filter(fits).collect();
        let outputs = self.outputs.iter().filter_map(|pick| open.get(usize::from(*pick) % open.len().max(1)));
        let outputs: BTreeSet<usize> = outputs.copied().collect();
        let mut before = None;
        for input in inputs.iter_mut().filter(|_| !self.wild) {
            let own = own(input);
            input.broadcast = match input.mode {
                Mode::Required => before.is_some_and(|before| before & own == 0),
                Mode::Optional | Mode::Exclusive => columns & own == 0,
            };
            if input.mode == Mode::Required {
                before = Some(before.unwrap_or(0) | own);
            }
        }
        if let Some(slot) = outputs.first().filter(|_| self.fills) {
            inputs.push(PlannedInput { slot: *slot, mode: Mode::Exclusive, ..PlannedInput::default() });
        }
        let below = if self.loose { slots.len() } else { outputs.first().copied().unwrap_or(0) };
        let reads = self.reads.iter().filter(|_| below > 0);
        let reads = reads.map(|read| PlannedRead {
            slot: read.slot % below,
            scan: read.scan.map(|columns| columns & slots[read.slot % below]),
            ..read.clone()
        });
        let reads = reads.collect();
        let outputs = outputs.into_iter().map(|slot| (slot, self.priority)).collect();
        let (uses, dependent) = (self.uses, self.dependent);
        let member = i64::from(self.required % 2);
        Plan { inputs, group, outputs, reads, uses, dependent, late: false, daemon: false, member }
    }
}

/// `members`: some slots have members.
fn systems(members: bool) -> impl Strategy<Value = (Vec<u8>, Vec<Picks>)> {
    let mode = prop::sample::select(vec![
        Mode::Required,
        Mode::Required,
        Mode::Required,
        Mode::Optional,
        Mode::Optional,
        Mode::Exclusive,
    ]);
    let flag = || prop::bool::weighted(0.15);
    // Names of members are no numbers.
    let rename = prop::option::weighted(0.2, (0..3usize, 0..3usize));
    let test = prop::sample::select(vec![Test::Is, Test::IsNot, Test::Below]);
    let filter = prop::option::weighted(0.15, (0..if members { 4 } else { 3usize }, test, 0..2i64));
    let lag = prop::sample::select(vec![0u32, 0, 0, 0, 0, 1, 2]);
    let pick = (any::<u8>(), mode, flag(), flag(), rename, filter, lag).prop_map(
        |(slot, mode, fault_tolerant, accept_stale, rename, filter, lag)| Pick {
            slot,
            mode,
            fault_tolerant,
            accept_stale,
            rename,
            filter,
            lag,
        },
    );
    let inputs = prop::sample::select(vec![1usize, 1, 2, 2, 2, 3]);
    let inputs = inputs.prop_flat_map(move |count| prop::collection::vec(pick.clone(), count));
    let outputs = prop::collection::vec(any::<u8>(), 1..=2);
    let group = prop::sample::select(vec![0u8, 0, 1, 1, 2, 3, 7]);
    let waits = if members {
        vec![Wait::End, Wait::Nothing, Wait::Members, Wait::Members]
    } else {
        vec![Wait::End, Wait::Nothing]
    };
    let group = (group, prop::sample::select(waits));
    let group = group.prop_map(|(columns, wait)| PlannedGroup { columns, wait });
    let group = prop::option::weighted(if members { 0.5 } else { 0.35 }, group);
    let (fills, wild) = (prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    let days = prop::sample::select(vec![0i32, 0, 0, 0, 0, -1, 1]);
    let read = (any::<u8>(), days, prop::option::weighted(0.4, 0..8u8), prop::bool::weighted(0.3))
        .prop_map(|(slot, days, scan, odd)| PlannedRead { slot: usize::from(slot), days, scan, odd });
    let count = prop::sample::select(vec![0usize, 0, 0, 0, 1, 1, 2]);
    let reads = count.prop_flat_map(move |count| prop::collection::vec(read.clone(), count));
    let beside = (reads, prop::bool::weighted(0.2), prop::bool::weighted(0.3), prop::bool::weighted(0.15));
    let picks = (inputs, any::<u8>(), outputs, group, 1..4i32, beside, fills, wild).prop_map(
        |(inputs, required, outputs, group, priority, (reads, uses, loose, dependent), fills, wild)| Picks {
            inputs,
            required,
            outputs,
            group,
            priority,
            reads,
            uses,
            dependent,
            loose,
            fills,
            wild,
        },
    );
    let mut kinds = vec![0u8, 1, 1, 2, 3, 3, 3, 7];
    if members {
        kinds.extend([MEMBERS, MEMBERS, MEMBERS | 1, MEMBERS | 1, MEMBERS | 3]);
    }
    let slots = prop::collection::vec(prop::sample::select(kinds), 2..=5);
    (slots, prop::collection::vec(picks, 1..=4))
}

/// Steps without regard to what there is; [`fit`] makes them fit a system.
fn steps(deterministic: bool, most: usize) -> impl Strategy<Value = Vec<Step>> {
    let low = || prop::sample::select(vec![0usize, 0, 0, 1, 1, 2, 3, 4]);
    let given = move || {
        let key = [0..2i64, 0..2i64, 0..1i64, 0..2i64];
        let priority = prop::sample::select(vec![0i32, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, -1]);
        (low(), 0..2i32, key, priority, prop::option::weighted(0.8, 0..3u8))
            .prop_map(|(slot, date, key, priority, content)| Put { slot, date, key, priority, content })
    };
    let salt = if deterministic { 0..1u8 } else { 0..3u8 };
    let commit = |writes: Vec<Put>| Step::Commit { writes, ends: Vec::new() };
    // Attempts that are used up leave a result that is no function of the sources.
    let failed = if deterministic { Setback::Rejected } else { Setback::Failed };
    let again = prop::sample::select(vec![failed, Setback::Rejected, Setback::Halved(1)]);
    let made = prop::sample::select(vec![0i64, 0, 0, 0, -3, -11, -20, 4, 9]);
    let submit = (0..3usize, prop::bool::weighted(0.1), made, prop::collection::vec(given(), 1..=2));
    let submit =
        submit.prop_map(|(daemon, again, made, writes)| Step::Submit { daemon, again, made, writes });
    let due = (low(), 0..2i32, -1..9i64).prop_map(|(slot, date, events)| Step::Due { slot, date, events });
    let step = prop_oneof![
        if deterministic { 1 } else { 8 } => submit.prop_map(move |step| if deterministic { Step::Start(0) } else { step }),
        1 => due.prop_map(move |step| if deterministic { Step::Start(0) } else { step }),
        6 => given().prop_map(move |given| commit(vec![given])),
        3 => prop::collection::vec(given(), 2..=3).prop_map(commit),
        2 => (0..2i32).prop_map(|date| Step::Commit { writes: Vec::new(), ends: vec![date] }),
        1 => Just(Step::Register),
        3 => (0..4usize).prop_map(Step::Attach),
        1 => (0..4usize).prop_map(move |at| if deterministic { Step::Start(at) } else { Step::Detach(at) }),
        12 => (0..4usize).prop_map(Step::Start),
        10 => (0..4usize, salt).prop_map(|(run, salt)| Step::Give { run, salt }),
        1 => (0..4usize).prop_map(move |run| if deterministic { Step::Start(run) } else { Step::Decline(run) }),
        1 => (0..4usize).prop_map(move |run| if deterministic { Step::Start(run) } else { Step::Fail(run) }),
        2 => (0..4usize, 0..4u8, again).prop_map(|(run, events, why)| {
            let events = if matches!(why, Setback::Halved(_)) { 0 } else { events };
            Step::Again { run, why, events }
        }),
        2 => Just(Step::Tick),
        1 => (0..4usize).prop_map(Step::Late),
        1 => prop::bool::weighted(0.8).prop_map(Step::Reopen),
        1 => (0..12usize).prop_map(Step::Retract),
        1 => (0..8usize).prop_map(Step::Force),
        1 => (0..8usize).prop_map(Step::Cancel),
        1 => prop::sample::select(vec![0usize, 0, 1, 2, 3]).prop_map(move |at| {
            if at == 0 { Step::Register } else { Step::Deregister(at) }
        }),
    ];
    prop::collection::vec(step, 1..most)
}

/// Who commits when they like: a slot and a member, and whether it comes late.
type PickedDaemon = (u8, i64, bool);

/// A daemon for a slot that has members, or where none has for any slot, at a priority of its own.
fn daemon(slots: &[u8], (pick, member, late): PickedDaemon) -> Plan {
    let with_members: Vec<usize> = (0..slots.len()).filter(|slot| slots[*slot] & MEMBERS != 0).collect();
    let output = match with_members.get(usize::from(pick) % with_members.len().max(1)) {
        Some(slot) => (*slot, 0),
        None => (usize::from(pick) % slots.len(), 4),
    };
    let member = if with_members.is_empty() { 0 } else { member };
    Plan { outputs: vec![output], daemon: true, member, late, ..Plan::default() }
}

fn fit(
    slots: Vec<u8>,
    old: u8,
    (picks, daemons): (&[Picks], &[PickedDaemon]),
    mut steps: Vec<Step>,
    deterministic: bool,
) -> Script {
    let mut producers: Vec<Plan> = picks.iter().map(|picks| picks.plan(&slots, deterministic)).collect();
    if let Some(last) = producers.last_mut() {
        last.late = true;
    }
    producers.extend(daemons.iter().map(|picked| daemon(&slots, *picked)));
    for step in &mut steps {
        let writes = match step {
            Step::Commit { writes, .. } | Step::Submit { writes, .. } => writes,
            Step::Due { slot, .. } => {
                *slot %= slots.len();
                continue;
            }
            _ => continue,
        };
        for given in writes {
            given.slot %= slots.len();
            for (bit, value) in given.key.iter_mut().enumerate() {
                *value *= i64::from(slots[given.slot] >> bit & 1);
            }
        }
    }
    Script { slots, old, producers, steps }
}

/// Random scripts. `deterministic`: what producers give is a function of what they read.
pub(in super::super) fn scripts(deterministic: bool, most: usize) -> impl Strategy<Value = Script> {
    // What is old is no function of the sources.
    let old =
        prop::option::weighted(0.3, 0..32u8).prop_map(move |old| old.filter(|_| !deterministic).unwrap_or(0));
    // Nor is who was a member when a group was looked at.
    let daemons = (any::<u8>(), 0..2i64, prop::bool::weighted(0.2));
    let daemons = prop::collection::vec(daemons, if deterministic { 0..=0 } else { 0..=3 });
    (systems(!deterministic), daemons, old, steps(deterministic, most)).prop_map(
        move |((mut slots, picks), daemons, old, steps)| {
            slots.sort_by_key(|columns| columns.count_ones());
            let old = old & ((1 << slots.len()) as u8 - 1);
            fit(slots, old, (&picks, &daemons), steps, deterministic)
        },
    )
}
