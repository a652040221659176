//! Says whether a history is strictly serialisable in the order of its commits, and if not, which anomaly it shows.
//!
//! The order of an object's versions is that of the commits which wrote it. That gives the dependencies between
//! transactions that Adya and, for histories from outside, Elle use: a transaction *overwrites* another's version
//! (ww), *reads* it (wr), or reads a version that another overwrites (rw); and it may be *called after* another was
//! answered (rt). The history is strictly serialisable in order of commits where every dependency points forward in
//! that order. One that points back is named after the least cycle that it is part of: least in steps of real time,
//! then in rw, then in length.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fmt;

use crate::history::{Access, Entry, Object, Outcome};

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Its name in the literature.
    pub name: &'static str,
    /// What shows it.
    pub what: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.what)
    }
}

/// What a sound history held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub committed: usize,
    pub looked: usize,
    pub refused: usize,
    /// Reads that were compared.
    pub reads: usize,
    /// Entries that ran while another did.
    pub overlapping: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ww,
    Wr,
    Rw,
    Rt,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    to: usize,
    kind: Kind,
    object: Option<Object>,
}

/// A version of an object: the entry that wrote it, and how many values it left.
struct Version {
    writer: usize,
    values: usize,
}

/// All versions of an object in order of commit, and all values that they added.
#[derive(Default)]
struct Versions {
    versions: Vec<Version>,
    values: Vec<i64>,
}

struct Checker<'a> {
    entries: &'a [Entry],
    objects: BTreeMap<Object, Versions>,
    /// Who wrote a value; committed or not.
    writers: HashMap<(Object, i64), usize>,
    edges: Vec<Vec<Edge>>,
    anomalies: Vec<Anomaly>,
    reads: usize,
}

/// Checks a history, whose entries may stand in any order.
///
/// # Errors
/// At most ten of the anomalies that it shows, those first that no order could explain.
pub fn check(entries: &[Entry]) -> Result<Counts, Vec<Anomaly>> {
    let mut checker = Checker {
        entries,
        objects: BTreeMap::new(),
        writers: HashMap::new(),
        edges: vec![Vec::new(); entries.len()],
        anomalies: Vec::new(),
        reads: 0,
    };
    checker.install();
    checker.relate();
    checker.relate_times();
    checker.look_back();
    if !checker.anomalies.is_empty() {
        checker.anomalies.truncate(10);
        return Err(checker.anomalies);
    }
    let count = |of: fn(&Outcome) -> bool| entries.iter().filter(|entry| of(&entry.outcome)).count();
    Ok(Counts {
        committed: count(|outcome| matches!(outcome, Outcome::Committed { .. })),
        looked: count(|outcome| matches!(outcome, Outcome::Looked { .. })),
        refused: count(|outcome| matches!(outcome, Outcome::Refused)),
        reads: checker.reads,
        overlapping: overlapping(entries),
    })
}

/// Entries that were called before another was answered that was called before them.
fn overlapping(entries: &[Entry]) -> usize {
    let mut spans: Vec<_> = entries.iter().map(|entry| (entry.called, entry.answered)).collect();
    spans.sort_unstable();
    let mut last = 0;
    let mut count = 0;
    for (called, answered) in spans {
        count += usize::from(called < last);
        last = last.max(answered);
    }
    count
}

impl Checker<'_> {
    fn tell(&mut self, name: &'static str, what: String) {
        self.anomalies.push(Anomaly { name, what });
    }

    fn label(&self, entry: usize) -> String {
        match self.entries[entry].outcome {
            Outcome::Committed { seq } => format!("T{seq}"),
            Outcome::Looked { seq } => format!("look {entry} at {seq}"),
            Outcome::Refused => format!("refused {entry}"),
        }
    }

    /// Who wrote what, and each object's versions in order of commit.
    fn install(&mut self) {
        let mut committed: Vec<usize> = (0..self.entries.len()).collect();
        committed.sort_by_key(|entry| self.entries[*entry].place());
        let mut before = None;
        for entry in committed {
            let outcome = self.entries[entry].outcome;
            if let Outcome::Committed { seq } = outcome {
                if before == Some(seq) {
                    self.tell("one place for two", format!("two transactions were answered with {seq}"));
                }
                before = Some(seq);
            }
            let mut written: BTreeMap<Object, Vec<i64>> = BTreeMap::new();
            for access in &self.entries[entry].accesses {
                if let Access::Write(object, value) = access {
                    let known = self.writers.insert((*object, *value), entry);
                    assert!(known.is_none(), "{value} was written to {object:?} twice: no history to check");
                    written.entry(*object).or_default().push(*value);
                }
            }
            if !matches!(outcome, Outcome::Committed { .. }) {
                continue;
            }
            for (object, values) in written {
                let target = self.objects.entry(object).or_default();
                // Of several values of a register the last is its version.
                let kept = if object.is_list() { &values[..] } else { &values[values.len() - 1..] };
                target.values.extend_from_slice(kept);
                target.versions.push(Version { writer: entry, values: target.values.len() });
            }
        }
    }

    /// The version that a read saw, counted from 1; 0 is the one before all.
    fn version_read(&mut self, entry: usize, object: Object, seen: &[i64]) -> Option<usize> {
        let who = self.label(entry);
        for value in seen {
            let what = format!("{who} read {value} of {object:?}");
            match self.writers.get(&(object, *value)) {
                None => {
                    self.tell("garbage read", format!("{what}, which nobody wrote"));
                    return None;
                }
                Some(writer) if self.entries[*writer].outcome == Outcome::Refused => {
                    self.tell("G1a (aborted read)", format!("{what}, of a transaction that was refused"));
                    return None;
                }
                Some(_) => {}
            }
        }
        let Some(last) = seen.last() else { return Some(0) };
        let (name, what) = {
            let versions = &self.objects[&object];
            let whole = |version: &Version| match object.is_list() {
                true => version.values == seen.len(),
                false => versions.values[version.values - 1] == *last,
            };
            match versions.versions.iter().position(whole) {
                Some(at) if !object.is_list() || versions.values[..seen.len()] == *seen => {
                    return Some(at + 1);
                }
                Some(_) => ("incompatible order", format!("{who} saw {seen:?} in {object:?}")),
                None if object.is_list() && !versions.values.starts_with(seen) => {
                    ("incompatible order", format!("{who} saw {seen:?} in {object:?}"))
                }
                None => ("G1b (intermediate read)", format!("{who} read {last} of {object:?}")),
            }
        };
        self.tell(name, what);
        None
    }

    /// Dependencies by what was read and written.
    fn relate(&mut self) {
        let entries = self.entries;
        for (entry, Entry { accesses, outcome, .. }) in entries.iter().enumerate() {
            for access in accesses {
                let Access::Read(object, seen) = access else { continue };
                self.reads += 1;
                // What a refused transaction saw must have been there too, but it has no place in the order.
                let Some(version) = self.version_read(entry, *object, seen) else { continue };
                if *outcome == Outcome::Refused {
                    continue;
                }
                let versions = self.objects.get(object).map_or(&[][..], |object| &object.versions);
                let writer = version.checked_sub(1).map(|at| versions[at].writer);
                let next = versions.get(version).map(|version| version.writer);
                let object = Some(*object);
                if let Some(writer) = writer.filter(|writer| *writer != entry) {
                    self.edges[writer].push(Edge { to: entry, kind: Kind::Wr, object });
                }
                if let Some(next) = next.filter(|next| *next != entry) {
                    self.edges[entry].push(Edge { to: next, kind: Kind::Rw, object });
                }
            }
        }
        for (object, Versions { versions, .. }) in &self.objects {
            for pair in versions.windows(2) {
                let edge = Edge { to: pair[1].writer, kind: Kind::Ww, object: Some(*object) };
                self.edges[pair[0].writer].push(edge);
            }
        }
    }

    /// Dependencies by time: from each entry to those called after its answer, but for those that follow anyway.
    fn relate_times(&mut self) {
        let placed = (0..self.entries.len()).filter(|entry| self.entries[*entry].place().is_some());
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for entry in placed {
            moments.push((self.entries[entry].called, false, entry));
            moments.push((self.entries[entry].answered, true, entry));
        }
        moments.sort_unstable();
        // Answered entries that no answered entry was called after.
        let mut newest: Vec<usize> = Vec::new();
        for (_, is_answer, entry) in moments {
            if is_answer {
                let called = self.entries[entry].called;
                newest.retain(|before| self.entries[*before].answered >= called);
                newest.push(entry);
            } else {
                for before in &newest {
                    self.edges[*before].push(Edge { to: entry, kind: Kind::Rt, object: None });
                }
            }
        }
    }

    /// Finds dependencies that point back in the order of commits.
    fn look_back(&mut self) {
        let mut back = Vec::new();
        for (from, edges) in self.edges.iter().enumerate() {
            for edge in edges {
                if self.entries[from].place() > self.entries[edge.to].place() {
                    back.push((from, *edge));
                }
            }
        }
        for (from, edge) in back.into_iter().take(10) {
            let mut cycle = vec![(from, edge)];
            let found = self.path(edge.to, from);
            cycle.extend(found.iter().flatten());
            let told = cycle.iter().map(|(from, edge)| self.step(*from, edge)).collect::<Vec<_>>().join("; ");
            match found {
                Some(_) => self.tell(name(&cycle), told),
                None => self.tell("out of commit order", told),
            }
        }
    }

    fn step(&self, from: usize, edge: &Edge) -> String {
        let (from, to) = (self.label(from), self.label(edge.to));
        match (edge.kind, edge.object) {
            (Kind::Ww, Some(object)) => format!("{from} wrote {object:?} before {to} did (ww)"),
            (Kind::Wr, Some(object)) => format!("{from} wrote {object:?}, which {to} read (wr)"),
            (Kind::Rw, Some(object)) => format!("{from} read {object:?} as it was before {to} wrote it (rw)"),
            _ => format!("{from} was answered before {to} was called (rt)"),
        }
    }

    /// The least path between two entries.
    fn path(&self, from: usize, to: usize) -> Option<Vec<(usize, Edge)>> {
        let weight = |kind| match kind {
            Kind::Ww | Kind::Wr => 1,
            Kind::Rw => 1 << 20,
            Kind::Rt => 1 << 40,
        };
        let mut best: HashMap<usize, (u64, Option<(usize, Edge)>)> = HashMap::from([(from, (0, None))]);
        let mut heap = BinaryHeap::from([Reverse((0u64, from))]);
        while let Some(Reverse((cost, at))) = heap.pop() {
            if at == to {
                break;
            }
            if best[&at].0 < cost {
                continue;
            }
            for edge in &self.edges[at] {
                let cost = cost + weight(edge.kind);
                if best.get(&edge.to).is_none_or(|(known, _)| cost < *known) {
                    best.insert(edge.to, (cost, Some((at, *edge))));
                    heap.push(Reverse((cost, edge.to)));
                }
            }
        }
        let mut path = Vec::new();
        let mut at = to;
        while at != from {
            let (before, edge) = best.get(&at)?.1?;
            path.push((before, edge));
            at = before;
        }
        path.reverse();
        Some(path)
    }
}

/// The name of a cycle of dependencies.
fn name(cycle: &[(usize, Edge)]) -> &'static str {
    let count = |kind| cycle.iter().filter(|(_, edge)| edge.kind == kind).count();
    let is_phantom =
        |(_, edge): &(usize, Edge)| edge.kind == Kind::Rw && edge.object.is_some_and(Object::is_list);
    let objects: Vec<_> = cycle.iter().map(|(_, edge)| edge.object).collect();
    if count(Kind::Rt) > 0 {
        return match count(Kind::Rw) {
            0 => "G1c-realtime (seen before it was called)",
            1 => "G-single-realtime (stale read)",
            _ => "G2-realtime",
        };
    }
    match (count(Kind::Rw), count(Kind::Wr)) {
        (0, 0) => "G0 (dirty write)",
        (0, _) => "G1c (circular information flow)",
        _ if cycle.iter().any(is_phantom) => "phantom (G2)",
        (1, 0) if objects.iter().all(|object| *object == objects[0]) => "lost update (G-single)",
        (1, _) => "G-single (read skew)",
        (2, 0) if cycle.len() == 2 => "write skew (G2-item)",
        _ => "G2-item",
    }
}
