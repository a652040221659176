//! Daemons and their sessions, members and quorums, data that grows old, and deadlines.

use std::time::Duration;

use underbelly_storage::{ColumnType, Timestamp, Value};

use super::super::*;
use super::stage::{Stage, content, day};

fn name(member: &str) -> Key {
    Key::new(vec![Value::from(member)]).unwrap()
}

/// Nanoseconds, of which ten go by with each event.
fn ns(count: u64) -> Duration {
    Duration::from_nanos(count)
}

/// One slot that members share, and a daemon for each.
struct Desk {
    stage: Stage,
    slot: SlotId,
    daemons: Vec<(ProducerId, String)>,
}

impl Desk {
    fn new(slot: SlotDefinition, members: &[&str]) -> Desk {
        let mut stage = Stage::new();
        let slot_name = slot.name.clone();
        let slot = stage.define(slot);
        let mut desk = Desk { stage, slot, daemons: Vec::new() };
        members.iter().for_each(|member| desk.join(&slot_name, member));
        desk
    }

    fn join(&mut self, slot: &str, member: &str) {
        let definition =
            ProducerDefinition::daemon(format!("d{member}")).provides_as(slot, member).lease(ns(50));
        let id = self.stage.register(definition);
        self.daemons.push((id, member.to_string()));
    }

    fn stamp(&self, at: usize) -> Stamp {
        let producer = self.daemons[at].0;
        let known = &self.stage.graph.producers[producer.at()];
        Stamp { producer, epoch: known.epoch, sequence: known.sequence.map_or(0, |last| last + 1) }
    }

    fn submission(&self, at: usize, number: u8) -> Submission {
        let key = name(&self.daemons[at].1);
        let write = Write { slot: self.slot, date: day(1), key, priority: 0, content: Some(content(number)) };
        Submission { writes: vec![write], session: Some(self.stamp(at)), ..Submission::default() }
    }

    fn submit(&mut self, at: usize, number: u8) -> Effects {
        self.stage.apply(Event::Commit(self.submission(at, number))).unwrap()
    }

    fn median(&mut self) -> ProducerId {
        self.stage.define(SlotDefinition::new("Median"));
        let slot = self.stage.graph.slot(self.slot).unwrap().name.clone();
        let median = ProducerDefinition::new("median").requires(slot);
        self.stage.register(median.group_by::<String>([], When::Quorum).provides("Median"))
    }

    fn tick_at(&mut self, time: i64) -> Effects {
        while self.stage.now() < Timestamp(time) {
            // Nothing, but time goes by.
            self.stage.apply(Event::Tick).unwrap();
        }
        self.stage.apply(Event::Tick).unwrap()
    }

    fn state_of(&self, at: usize) -> State {
        self.stage.state(self.slot, day(1), &name(&self.daemons[at].1))
    }
}

fn decisions() -> SlotDefinition {
    SlotDefinition::new("Decision").member_key("strategy")
}

#[test]
fn a_quorum_waits_for_each_member_and_fires_once() {
    let mut desk = Desk::new(decisions(), &["X", "Y"]);
    desk.median();
    desk.submit(0, 1);
    let stage = &desk.stage;
    assert_eq!(stage.statuses(), [PStatus::Parked]);
    let bundle = stage.graph.bundles().next().unwrap();
    assert_eq!(stage.graph.bundle_info(bundle).unwrap().reason, "quorum 1/2: Y missing");
    let median = stage.graph.slot_by_name("Median").unwrap();
    let why = stage.graph.why_at(median, day(1), &Key::empty()).unwrap().to_string();
    assert!(why.contains("quorum 1/2: Y missing") && why.contains("daemon dY has not committed it"), "{why}");
    desk.submit(1, 2);
    let run = desk.stage.start_next();
    assert_eq!(run.inputs.len(), 2);
    desk.stage.give(&run, 9);
    assert!(desk.stage.graph.next_ready().is_none());
    // A new value is one more run; a member that comes later holds nothing that was given.
    desk.join("Decision", "Z");
    desk.submit(0, 3);
    let run = desk.stage.start_next();
    desk.stage.give(&run, 8);
    assert_eq!(desk.stage.statuses(), [PStatus::Done]);
}

#[test]
fn a_member_that_goes_is_not_waited_for() {
    let mut desk = Desk::new(decisions(), &["X", "Y"]);
    desk.median();
    desk.submit(0, 1);
    assert_eq!(desk.stage.statuses(), [PStatus::Parked]);
    let late = desk.submission(1, 2);
    desk.stage.apply(Event::Deregister(desk.daemons[1].0)).unwrap();
    let run = desk.stage.start_next();
    assert_eq!(run.inputs.len(), 1);
    desk.stage.give(&run, 9);
    let refused = desk.stage.apply(Event::Commit(late));
    assert!(matches!(refused, Err(GraphError::SessionOver { .. })), "{refused:?}");
    // A client does not step in for a member while there is one.
    let write =
        Write { slot: desk.slot, date: day(1), key: name("Y"), priority: 0, content: Some(content(3)) };
    let refused =
        desk.stage.apply(Event::Commit(Submission { writes: vec![write], ..Submission::default() }));
    assert!(matches!(refused, Err(GraphError::PriorityTaken { .. })), "{refused:?}");
}

#[test]
fn a_filter_lists_the_members_that_are_waited_for() {
    let mut desk = Desk::new(decisions(), &["X", "Y"]);
    desk.stage.define(SlotDefinition::new("Median"));
    let both = Input::required("Decision").filter(Filter::one_of("strategy", ["X", "Z"]));
    let median = ProducerDefinition::new("median").input(both).provides("Median");
    desk.stage.register(median.group_by::<String>([], When::Quorum));
    desk.submit(0, 1);
    desk.submit(1, 1);
    let bundle = desk.stage.graph.bundles().next().unwrap();
    assert_eq!(desk.stage.graph.bundle_info(bundle).unwrap().reason, "quorum 1/2: Z missing");
    desk.join("Decision", "Z");
    desk.submit(2, 1);
    assert_eq!(desk.stage.start_next().inputs.len(), 2);
}

#[test]
fn a_member_that_declined_is_none() {
    let mut stage = Stage::new();
    let signal = stage.define(SlotDefinition::new("Signal"));
    stage.define(decisions());
    stage.define(SlotDefinition::new("Median"));
    for member in ["X", "Y"] {
        let strategy = ProducerDefinition::new(member).requires("Signal").provides_as("Decision", member);
        stage.register(strategy);
    }
    let median = ProducerDefinition::new("median").requires("Decision").provides("Median");
    let median = stage.register(median.group_by::<String>([], When::Quorum));
    stage.write(signal, day(1), &Key::empty(), Some(content(1)));
    let (x, y) = (stage.start_next(), stage.start_next());
    let slot = stage.graph.slot_by_name("Decision").unwrap();
    let give = |member: &str| Outcome::Data(vec![OutputWrite::data(slot, name(member), content(2))]);
    let wrong = stage.end(x.run, give("Y"));
    assert!(matches!(wrong, Err(GraphError::NotProvided { .. })), "{wrong:?}");
    stage.end(x.run, give("X")).unwrap();
    assert_eq!(stage.graph.next_ready(), None);
    stage.end(y.run, Outcome::Declined("no view".to_string())).unwrap();
    let run = stage.start_next();
    assert_eq!((run.producer, run.inputs.len()), (median, 1));
}

#[test]
fn old_data_is_stale_until_it_is_committed_again() {
    let mut desk = Desk::new(
        SlotDefinition::new("Signal").member_key("generator").fresh_for(ns(100)),
        &["1000", "1001"],
    );
    desk.stage.define(SlotDefinition::new("Decision"));
    let first = Input::required("Signal").filter(Filter::equals("generator", "1000"));
    let x = ProducerDefinition::new("X").input(first).group_by::<String>([], When::Quorum);
    desk.stage.register(x.provides("Decision"));
    desk.submit(0, 1);
    desk.submit(1, 1);
    let run = desk.stage.start_next();
    desk.stage.give(&run, 5);
    let due = desk.stage.graph.next_due().unwrap();
    assert!(!desk.stage.graph.is_tick_due(Timestamp(due.0 - 1)) && desk.stage.graph.is_tick_due(due));
    let effects = desk.tick_at(due.0);
    let cell = desk.stage.graph.cell(desk.slot, day(1), &name("1000")).unwrap();
    let old = desk.stage.graph.cell_info(cell).unwrap();
    assert_eq!((old.state, old.causes), (State::Stale, vec![Cause::Aged]));
    assert!(effects.alarms.is_empty() || effects.alarms == [Alarm::Aged(cell)], "{:?}", effects.alarms);
    assert_eq!(desk.stage.graph.alarms().next(), Some((Alarm::Aged(cell), due)));
    let decision = desk.stage.graph.slot_by_name("Decision").unwrap();
    assert_eq!(desk.stage.state(decision, day(1), &Key::empty()), State::Stale);
    let why = desk.stage.graph.why_at(decision, day(1), &Key::empty()).unwrap().to_string();
    assert!(why.contains("Signal 1970-01-02 1000 is too old: it was fresh until"), "{why}");
    // The same value again: it is fresh, and nothing runs.
    let effects = desk.submit(0, 1);
    assert!(effects.ready.is_empty() && effects.contents.is_empty());
    assert_eq!(desk.stage.state(decision, day(1), &Key::empty()), State::Current);
    assert_eq!(desk.state_of(0), State::Current);
    // Another value, of a time that is past already.
    let mut past = desk.submission(0, 2);
    past.as_of = Some(Timestamp(desk.stage.now().0 - 100));
    let effects = desk.stage.apply(Event::Commit(past)).unwrap();
    assert_eq!(effects.alarms, [Alarm::Aged(cell)]);
    assert_eq!(desk.state_of(0), State::Stale);
    assert!(desk.stage.graph.next_ready().is_none(), "nothing is made of what is too old");
    // Taken back it grows old no more.
    desk.stage.apply(Event::Retract { cell, priority: 0 }).unwrap();
    assert_eq!(desk.stage.graph.alarms().filter(|(alarm, _)| *alarm == Alarm::Aged(cell)).count(), 0);
}

#[test]
fn what_has_a_later_date_is_history() {
    let mut desk = Desk::new(SlotDefinition::new("Signal").member_key("g").fresh_for(ns(100)), &["1000"]);
    let commit = |desk: &mut Desk, date: i32, number: u8| {
        let mut submission = desk.submission(0, number);
        submission.writes[0].date = day(date);
        desk.stage.apply(Event::Commit(submission)).unwrap();
    };
    let state = |desk: &Desk, date: i32| desk.stage.state(desk.slot, day(date), &name("1000"));
    commit(&mut desk, 1, 1);
    let due = desk.stage.graph.next_due().unwrap();
    desk.tick_at(due.0);
    assert_eq!(state(&desk, 1), State::Stale);
    commit(&mut desk, 2, 1);
    assert_eq!((state(&desk, 1), state(&desk, 2)), (State::Current, State::Current));
    // What comes late for an earlier date is history from the first.
    commit(&mut desk, 1, 2);
    let due = desk.stage.graph.next_due().unwrap();
    desk.tick_at(due.0);
    assert_eq!((state(&desk, 1), state(&desk, 2)), (State::Current, State::Stale));
    // What a daemon that is no more gave does not grow old.
    desk.stage.apply(Event::Deregister(desk.daemons[0].0)).unwrap();
    assert_eq!(state(&desk, 2), State::Current);
    assert_eq!((desk.stage.graph.alarms().count(), desk.stage.graph.next_due()), (0, None));
}

#[test]
fn what_a_member_gave_for_groups_that_wait_goes_with_it() {
    let mut desk = Desk::new(decisions(), &["X", "Y", "Z"]);
    desk.median();
    for at in 0..3 {
        desk.submit(at, 1);
    }
    let run = desk.stage.start_next();
    desk.stage.give(&run, 9);
    let commit = |desk: &mut Desk, at: usize, date: i32| {
        let mut submission = desk.submission(at, 1);
        submission.writes[0].date = day(date);
        desk.stage.apply(Event::Commit(submission)).unwrap();
    };
    commit(&mut desk, 0, 2);
    commit(&mut desk, 1, 2);
    commit(&mut desk, 1, 3);
    desk.stage.apply(Event::Deregister(desk.daemons[1].0)).unwrap();
    commit(&mut desk, 2, 2);
    let run = desk.stage.start_next();
    assert_eq!((run.date, run.inputs.len()), (day(2), 2), "of the rest");
    assert_eq!(desk.stage.state(desk.slot, day(3), &name("Y")), State::Current, "nobody else gave there");
    assert_eq!(desk.state_of(1), State::Current, "what was given for a group that has fired stays");
    assert_eq!(desk.stage.graph.next_ready(), None);
}

#[test]
fn what_a_daemon_commits_is_accepted_once_and_in_its_session() {
    let mut desk = Desk::new(decisions(), &["X", "Y"]);
    let first = desk.submission(0, 1);
    desk.stage.apply(Event::Commit(first.clone())).unwrap();
    let again = desk.stage.apply(Event::Commit(first.clone()));
    assert!(matches!(again, Err(GraphError::Duplicate { sequence: 0, last: 0, .. })), "{again:?}");
    // Of another member, at another priority, or of what is no daemon.
    let mut other = desk.submission(0, 1);
    other.writes[0].key = name("Y");
    let refused = desk.stage.apply(Event::Commit(other));
    assert!(matches!(refused, Err(GraphError::NotProvided { .. })), "{refused:?}");
    let mut other = desk.submission(0, 1);
    other.writes[0].priority = 1;
    let refused = desk.stage.apply(Event::Commit(other));
    assert!(matches!(refused, Err(GraphError::NotProvided { .. })), "{refused:?}");
    let next = desk.submission(0, 2);
    let (producer, epoch) = (desk.daemons[0].0, next.session.unwrap().epoch);
    let early = desk.stage.apply(Event::Detach { producer, epoch: epoch - 1, lost: true });
    assert!(matches!(early, Err(GraphError::SessionOver { .. })), "{early:?}");
    let effects = desk.stage.apply(Event::Detach { producer, epoch, lost: true }).unwrap();
    assert_eq!(effects.alarms, [Alarm::Lost(producer)]);
    let fenced = desk.stage.apply(Event::Commit(next));
    assert!(matches!(fenced, Err(GraphError::SessionOver { .. })), "{fenced:?}");
    assert_eq!(
        desk.stage.graph.alarms().map(|(alarm, _)| alarm).collect::<Vec<_>>(),
        [Alarm::Lost(producer)]
    );
    desk.stage.apply(Event::Attach { producer, host: None }).unwrap();
    assert_eq!(desk.stage.graph.alarms().count(), 0);
    desk.submit(0, 2);
    assert_eq!(desk.stage.graph.producers[producer.at()].sequence, Some(1));
}

#[test]
fn a_session_that_does_not_come_back_is_given_up() {
    let mut desk = Desk::new(decisions(), &["X", "Y"]);
    desk.submit(0, 1);
    desk.stage.reopen();
    let due = desk.stage.graph.next_due().unwrap();
    desk.stage.apply(Event::Attach { producer: desk.daemons[0].0, host: None }).unwrap();
    desk.tick_at(due.0);
    let lost: Vec<Alarm> = desk.stage.graph.alarms().map(|(alarm, _)| alarm).collect();
    assert_eq!(lost, [Alarm::Lost(desk.daemons[1].0)], "the one that came back is not");
    assert_eq!(desk.stage.graph.next_due(), None);
    // Each opening awaits anew.
    let mut desk = Desk::new(decisions(), &["X"]);
    desk.stage.reopen();
    while !desk.stage.graph.is_tick_due(desk.stage.now()) {
        desk.stage.define(decisions());
    }
    desk.stage.reopen();
    assert!(!desk.stage.graph.is_tick_due(desk.stage.now()));
}

#[test]
fn the_end_of_a_session_cuts_off_its_runs() {
    let mut stage = Stage::new();
    let a = stage.define(SlotDefinition::new("A"));
    stage.define(SlotDefinition::new("B"));
    let producer = stage.register(ProducerDefinition::new("p").requires("A").provides("B").lease(ns(50)));
    stage.write(a, day(1), &Key::empty(), Some(content(1)));
    let mut given_up = 0;
    for _ in 0..INTERRUPTIONS_MAX {
        let run = stage.start_next();
        let epoch = run.epoch;
        let effects = stage.apply(Event::Detach { producer, epoch, lost: true }).unwrap();
        assert_eq!((effects.interrupted.len(), effects.interrupted[0].run), (1, run.run));
        given_up += u32::from(stage.statuses() == [PStatus::Failed]);
        let output = OutputWrite::data(SlotId(1), Key::empty(), content(2));
        let late = stage.apply(Event::End {
            run: run.run,
            epoch,
            outcome: Outcome::Data(vec![output]),
            reads: vec![],
        });
        assert!(matches!(late, Err(GraphError::Fenced { .. })), "{late:?}");
        stage.apply(Event::Attach { producer, host: None }).unwrap();
    }
    assert_eq!(given_up, 1, "what is cut off again and again has failed");
}

#[test]
fn a_deadline_that_is_not_met_is_an_alarm_once() {
    let mut desk = Desk::new(decisions(), &["X", "Y"]);
    let median = desk.median();
    let slot = desk.stage.graph.slot_by_name("Median").unwrap();
    let deadlines = [(day(1), 300), (day(2), 300)];
    let deadlines = deadlines.map(|(date, due)| Deadline { due_by: Timestamp(due), slot, date });
    let submission = Submission { deadlines: deadlines.to_vec(), ..Submission::default() };
    desk.stage.apply(Event::Commit(submission)).unwrap();
    desk.submit(0, 1);
    desk.submit(1, 1);
    let run = desk.stage.start_next();
    assert_eq!(run.producer, median);
    desk.stage.give(&run, 9);
    let mut sounded = Vec::new();
    while desk.stage.now() < Timestamp(400) {
        sounded.extend(desk.stage.apply(Event::Tick).unwrap().alarms);
    }
    assert_eq!(sounded, [Alarm::Overdue(deadlines[1])], "the first date was up to date");
    assert_eq!(desk.stage.graph.alarms().next(), Some((Alarm::Overdue(deadlines[1]), Timestamp(300))));
    assert_eq!(desk.stage.graph.next_due(), None);
}

/// What the slot said before counts for an input of its own, and not for today's.
#[test]
fn each_input_waits_for_its_own_members() {
    let mut desk = Desk::new(decisions(), &["X", "Y"]);
    desk.stage.define(SlotDefinition::new("Median"));
    let before = Input::optional("Decision").alias("before").lag(1).broadcast();
    let median = ProducerDefinition::new("median").requires("Decision").input(before).provides("Median");
    desk.stage.register(median.group_by::<String>([], When::Quorum));
    let mut commit = |at: usize, date: i32| {
        let mut submission = desk.submission(at, 1);
        submission.writes[0].date = day(date);
        desk.stage.apply(Event::Commit(submission)).unwrap();
        desk.stage.graph.next_ready().is_some()
    };
    assert_eq!([commit(0, 1), commit(1, 1)], [false, true]);
    let run = desk.stage.start_next();
    desk.stage.give(&run, 9);
    let mut commit = |at: usize, date: i32| {
        let mut submission = desk.submission(at, 1);
        submission.writes[0].date = day(date);
        desk.stage.apply(Event::Commit(submission)).unwrap();
        desk.stage.graph.next_ready().is_some()
    };
    assert_eq!([commit(0, 2), commit(1, 2)], [false, true]);
}

#[test]
fn a_cancelled_group_has_not_fired() {
    let mut desk = Desk::new(decisions(), &["X", "Y"]);
    desk.median();
    desk.submit(0, 1);
    let bundle = desk.stage.graph.bundles().next().unwrap();
    desk.stage.apply(Event::Cancel { bundle, reason: "enough".to_string() }).unwrap();
    desk.submit(0, 2);
    assert_eq!(desk.stage.graph.next_ready(), None, "never of a part");
    desk.submit(1, 2);
    assert_eq!(desk.stage.start_next().inputs.len(), 2);
}

/// A member that gave nothing has answered as one that declined.
#[test]
fn a_member_that_gives_nothing_is_not_waited_for() {
    let mut stage = Stage::new();
    let signal = stage.define(SlotDefinition::new("Signal"));
    let slot = stage.define(decisions());
    stage.define(SlotDefinition::new("Median"));
    for member in ["X", "Y"] {
        let strategy = ProducerDefinition::new(member).requires("Signal").provides_as("Decision", member);
        stage.register(strategy);
    }
    let median = ProducerDefinition::new("median").requires("Decision").provides("Median");
    let median = stage.register(median.group_by::<String>([], When::Quorum));
    stage.write(signal, day(1), &Key::empty(), Some(content(1)));
    let (x, y) = (stage.start_next(), stage.start_next());
    stage.end(x.run, Outcome::Data(vec![OutputWrite::data(slot, name("X"), content(2))])).unwrap();
    assert_eq!(stage.graph.next_ready(), None);
    stage.end(y.run, Outcome::Data(vec![])).unwrap();
    assert_eq!(stage.start_next().producer, median);
}

/// A tick that comes late judges each time as things were then.
#[test]
fn what_was_up_to_date_by_its_deadline_is_not_overdue() {
    let mut desk = Desk::new(SlotDefinition::new("Signal").member_key("g").fresh_for(ns(100)), &["1"]);
    let mut submission = desk.submission(0, 1);
    let due_by = Timestamp(desk.stage.now().0 + 60);
    let deadline = Deadline { due_by, slot: desk.slot, date: day(1) };
    submission.deadlines.push(deadline);
    desk.stage.apply(Event::Commit(submission)).unwrap();
    while desk.stage.now().0 < due_by.0 + 100 {
        desk.stage.define(decisions());
    }
    let mut sounded = Vec::new();
    while desk.stage.graph.is_tick_due(desk.stage.now()) {
        sounded.extend(desk.stage.apply(Event::Tick).unwrap().alarms);
    }
    let cell = desk.stage.graph.cell(desk.slot, day(1), &name("1")).unwrap();
    assert_eq!(sounded, [Alarm::Aged(cell)]);
    // Met, it is forgotten: what grows old later is not overdue. The same again is another deadline, and sounds once.
    assert_eq!(desk.stage.graph.alarms().count(), 1);
    let again = Submission { deadlines: vec![deadline], ..Submission::default() };
    let mut sounded = Vec::new();
    for _ in 0..3 {
        desk.stage.apply(Event::Commit(again.clone())).unwrap();
        sounded.extend(desk.stage.apply(Event::Tick).unwrap().alarms);
    }
    assert_eq!(sounded, [Alarm::Overdue(deadline)]);
}

/// What is taken back leaves the date before as the newest.
#[test]
fn the_newest_date_that_has_data_grows_old() {
    let mut desk = Desk::new(SlotDefinition::new("Signal").member_key("g").fresh_for(ns(100)), &["1"]);
    for date in [1, 2] {
        let mut submission = desk.submission(0, 1);
        submission.writes[0].date = day(date);
        desk.stage.apply(Event::Commit(submission)).unwrap();
    }
    let cell = desk.stage.graph.cell(desk.slot, day(2), &name("1")).unwrap();
    desk.stage.apply(Event::Retract { cell, priority: 0 }).unwrap();
    let due = desk.stage.graph.next_due().unwrap();
    desk.tick_at(due.0);
    assert_eq!(desk.state_of(0), State::Stale);
}

#[test]
fn a_cutoff_ends_the_wait_for_a_date() {
    let mut stage = Stage::new();
    let a = stage.define(SlotDefinition::new("A"));
    stage.define(SlotDefinition::new("B"));
    stage.define(SlotDefinition::new("C"));
    let group = ProducerDefinition::new("group").requires("A").group_by_date().provides("B");
    stage.register(group.cutoff(ns(300)));
    stage.register(
        ProducerDefinition::new("dependent").requires("A").dependent().provides("C").cutoff(ns(400)),
    );
    stage.write(a, day(0), &Key::empty(), Some(content(1)));
    assert_eq!(stage.statuses(), [PStatus::Parked; 2]);
    assert_eq!(stage.graph.next_due(), Some(Timestamp(300)));
    let mut ready = Vec::new();
    while stage.now() < Timestamp(500) {
        let now = stage.now();
        for bundle in stage.apply(Event::Tick).unwrap().ready {
            ready.push((now, stage.graph.bundle_info(bundle).unwrap().producer));
        }
    }
    assert_eq!(ready, [(Timestamp(300), ProducerId(0)), (Timestamp(400), ProducerId(1))]);
    stage.reopen();
    assert_eq!(stage.graph.next_due(), None, "it has passed for good");
    // Of a date that is over the first tick tells.
    stage.write(a, day(-5), &Key::empty(), Some(content(1)));
    assert!(stage.graph.is_tick_due(stage.now()));
}

#[test]
fn wrong_members_and_daemons_are_refused() {
    let mut stage = Stage::new();
    stage.define(decisions());
    stage.define(SlotDefinition::new("Plain").cell_key("x", ColumnType::Utf8));
    let mut refused = |definition: ProducerDefinition| stage.apply(Event::Register(definition)).unwrap_err();
    let daemon = |name: &str| ProducerDefinition::daemon(name);
    assert!(matches!(
        refused(daemon("a").requires("Plain").provides("Plain")),
        GraphError::DaemonInput { .. }
    ));
    assert!(matches!(refused(daemon("a").provides_as("Plain", "X")), GraphError::Member { .. }));
    assert!(matches!(refused(daemon("a").provides("Decision")), GraphError::Member { .. }));
    assert!(matches!(refused(daemon("a").provides("Plain").lease(Duration::ZERO)), GraphError::Proxy { .. }));
    let quorum = ProducerDefinition::new("q").requires("Decision").group_by(["strategy"], When::Quorum);
    assert!(matches!(refused(quorum.provides("Decision")), GraphError::Member { .. }));
    let quorum = ProducerDefinition::new("q").requires("Plain").group_by::<String>([], When::Quorum);
    assert!(matches!(refused(quorum.provides("Decision")), GraphError::NoMembers { .. }));
    let fills = ProducerDefinition::new("f").requires("Plain").input(Input::exclusive("Decision"));
    let fills = fills.group_by::<String>([], When::Any).provides_as("Decision", "X");
    assert!(matches!(refused(fills), GraphError::Member { .. }));
    stage.register(daemon("x").provides_as("Decision", "X"));
    let twice = stage.apply(Event::Register(daemon("x2").provides_as("Decision", "X"))).unwrap_err();
    assert!(matches!(twice, GraphError::PriorityTaken { .. }), "{twice}");
    for slot in
        [decisions().fresh_for(Duration::ZERO), decisions().max_skew(Duration::from_secs(400_000_000))]
    {
        let wrong =
            stage.apply(Event::DefineSlot(SlotDefinition { name: "T".to_string(), ..slot })).unwrap_err();
        assert!(matches!(wrong, GraphError::SlotTime { .. }), "{wrong}");
    }
    let mut slot = SlotDefinition::new("S").cell_key("n", ColumnType::I64);
    slot.members = Some("n".to_string());
    let wrong = stage.apply(Event::DefineSlot(slot)).unwrap_err();
    assert!(matches!(wrong, GraphError::MemberKey { .. }), "{wrong}");
}
