//! The data set `cpu-only` of the Time Series Benchmark Suite (<https://github.com/timescale/tsbs>), from a generator of our own, and its
//! fifteen queries.
//!
//! A row every ten seconds of each host: ten texts that say what the host is, which are keys, and ten figures, whole numbers from 0 to 100
//! that walk at random. Spans and widths are those of the suite's code, which its README gives otherwise: windows of a minute, eight hours
//! of largest figures, twelve of means and of high ones.

use std::time::{Duration, Instant};

use underbelly::{
    Aggregate, Batch, Column, ColumnType, Columns, Database, Every, Fill, Predicate, Resample, Scan, Series,
    Timestamp,
};

use crate::Failed;

/// The type of the series.
pub const SERIES: &str = "cpu";
/// What is known of a host; the first is its name.
pub const TAGS: [&str; 10] = [
    "hostname",
    "region",
    "datacenter",
    "rack",
    "os",
    "arch",
    "team",
    "service",
    "service_version",
    "service_environment",
];
/// What is measured.
pub const FIELDS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];
/// Nanoseconds.
pub const SECOND: i64 = 1_000_000_000;
/// Nanoseconds.
pub const MINUTE: i64 = 60 * SECOND;
/// Nanoseconds.
pub const HOUR: i64 = 60 * MINUTE;
/// When the data begin: 2016-01-01 UTC.
pub const BEGIN: i64 = 1_451_606_400 * SECOND;
/// Between two readings of a host.
pub const INTERVAL: i64 = 10 * SECOND;
/// A figure of which more is high.
pub const HIGH: f64 = 90.0;

/// Rows of a commit, about.
const COMMIT_ROWS: usize = 200_000;

/// Datacenters of each region.
const REGIONS: [(&str, &[&str]); 5] = [
    ("us-east-1", &["us-east-1a", "us-east-1b", "us-east-1c"]),
    ("us-west-2", &["us-west-2a", "us-west-2b"]),
    ("eu-central-1", &["eu-central-1a", "eu-central-1b"]),
    ("ap-northeast-1", &["ap-northeast-1a", "ap-northeast-1c"]),
    ("sa-east-1", &["sa-east-1a", "sa-east-1b", "sa-east-1c"]),
];
const SYSTEMS: &[&str] = &["Ubuntu16.10", "Ubuntu16.04LTS", "Ubuntu15.10"];
const ARCHITECTURES: &[&str] = &["x64", "x86"];
const TEAMS: &[&str] = &["SF", "NYC", "LON", "CHI"];
const ENVIRONMENTS: &[&str] = &["production", "staging", "test"];

/// Numbers that look random and are the same for the same seed: SplitMix64 (Steele, Lea and Flood, 2014).
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// From 0 to 1.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices.get(self.below(choices.len())).copied().unwrap_or_default()
    }
}

/// All readings of some hosts, in order of time, then of host.
pub struct Cpu {
    /// What is known of each host, as in [`TAGS`].
    pub tags: Vec<[String; 10]>,
    /// Of each reading, of each host.
    figures: Vec<[u8; 10]>,
}

/// The name of a host.
pub fn host(number: usize) -> String {
    format!("host_{number}")
}

impl Cpu {
    /// So many hosts for so many hours, the same for the same seed.
    pub fn new(hosts: usize, hours: usize, seed: u64) -> Cpu {
        let mut dice = Dice::new(seed);
        let tags = (0..hosts).map(|number| tags_of(number, &mut dice)).collect();
        let mut walks: Vec<[f64; 10]> =
            (0..hosts).map(|_| std::array::from_fn(|_| dice.part() * 100.0)).collect();
        let readings = hours * (HOUR / INTERVAL) as usize;
        let mut figures = Vec::with_capacity(hosts * readings);
        for _ in 0..readings {
            figures.extend(walks.iter().map(|walk| walk.map(|figure| figure as u8)));
            for figure in walks.iter_mut().flatten() {
                // A step of a normal distribution, about: three even ones, with a variance of one together.
                let step = 2.0 * (dice.part() + dice.part() + dice.part() - 1.5);
                *figure = (*figure + step).clamp(0.0, 100.0);
            }
        }
        Cpu { tags, figures }
    }

    /// Readings of each host.
    pub fn readings(&self) -> usize {
        self.figures.len() / self.tags.len().max(1)
    }

    /// The instant behind all readings.
    pub fn end(&self) -> i64 {
        BEGIN + self.readings() as i64 * INTERVAL
    }

    /// Time, host and figures of all rows.
    pub fn rows(&self) -> impl Iterator<Item = (i64, usize, &[u8; 10])> {
        let hosts = self.tags.len().max(1);
        let time = move |row: usize| BEGIN + (row / hosts) as i64 * INTERVAL;
        self.figures.iter().enumerate().map(move |(row, figures)| (time(row), row % hosts, figures))
    }

    /// Some readings of all hosts, as they are committed.
    pub fn batch(&self, readings: &[usize]) -> Result<Batch, Failed> {
        let hosts = self.tags.len();
        let rows = || {
            let of_reading = move |reading: usize| (0..hosts).map(move |host| (reading, host));
            readings.iter().copied().flat_map(of_reading)
        };
        let times = rows().map(|(reading, _)| Timestamp(BEGIN + reading as i64 * INTERVAL)).collect();
        let mut columns = Columns::new();
        for (position, tag) in TAGS.iter().enumerate() {
            let texts = rows().map(|(_, host)| self.tags[host][position].as_str());
            columns.insert(*tag, Column::from_iter(texts))?;
        }
        for (position, field) in FIELDS.iter().enumerate() {
            let figure =
                |(reading, host): (usize, usize)| f64::from(self.figures[reading * hosts + host][position]);
            columns.insert(*field, rows().map(figure).collect::<Vec<f64>>().into())?;
        }
        let mut batch = Batch::new();
        batch.append_columns(SERIES, times, columns, &TAGS)?;
        Ok(batch)
    }

    /// The time in which all rows become durable, sealed and encoded. Making them is not counted.
    pub fn ingest(&self, db: &Database) -> Result<Duration, Failed> {
        let readings: Vec<usize> = (0..self.readings()).collect();
        let each = (COMMIT_ROWS / self.tags.len().max(1)).max(1);
        let mut took = Duration::ZERO;
        for readings in readings.chunks(each) {
            let batch = self.batch(readings)?;
            let began = Instant::now();
            db.commit(batch)?;
            took += began.elapsed();
        }
        let began = Instant::now();
        db.checkpoint()?;
        Ok(took + began.elapsed())
    }
}

fn tags_of(number: usize, dice: &mut Dice) -> [String; 10] {
    let (region, datacenters) = REGIONS[dice.below(REGIONS.len())];
    [
        host(number),
        region.to_string(),
        dice.of(datacenters).to_string(),
        dice.below(100).to_string(),
        dice.of(SYSTEMS).to_string(),
        dice.of(ARCHITECTURES).to_string(),
        dice.of(TEAMS).to_string(),
        dice.below(20).to_string(),
        dice.below(2).to_string(),
        dice.of(ENVIRONMENTS).to_string(),
    ]
}

/// One of the suite's queries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Query {
    /// The largest of some figures in each minute, of some hosts together.
    SingleGroupBy {
        /// The first so many of [`FIELDS`].
        fields: usize,
        /// How many hosts.
        hosts: usize,
        /// How long.
        hours: i64,
    },
    /// The largest of all figures in each of eight hours, of some hosts together.
    CpuMaxAll {
        /// How many hosts.
        hosts: usize,
    },
    /// The means of some figures by hour and host, over twelve hours.
    DoubleGroupBy {
        /// The first so many of [`FIELDS`].
        fields: usize,
    },
    /// All that is known of the readings with a `usage_user` above [`HIGH`], over twelve hours, in order of time.
    HighCpu {
        /// Of one host, or of all.
        one: bool,
    },
    /// The newest row of each host.
    LastPoint,
    /// The largest `usage_user` of all hosts in each of the five newest minutes that have rows before an instant, the newest first.
    GroupByOrderByLimit,
}

/// The suite's names of its queries.
pub const QUERIES: [(&str, Query); 15] = [
    ("single-groupby-1-1-1", Query::SingleGroupBy { fields: 1, hosts: 1, hours: 1 }),
    ("single-groupby-1-1-12", Query::SingleGroupBy { fields: 1, hosts: 1, hours: 12 }),
    ("single-groupby-1-8-1", Query::SingleGroupBy { fields: 1, hosts: 8, hours: 1 }),
    ("single-groupby-5-1-1", Query::SingleGroupBy { fields: 5, hosts: 1, hours: 1 }),
    ("single-groupby-5-1-12", Query::SingleGroupBy { fields: 5, hosts: 1, hours: 12 }),
    ("single-groupby-5-8-1", Query::SingleGroupBy { fields: 5, hosts: 8, hours: 1 }),
    ("cpu-max-all-1", Query::CpuMaxAll { hosts: 1 }),
    ("cpu-max-all-8", Query::CpuMaxAll { hosts: 8 }),
    ("double-groupby-1", Query::DoubleGroupBy { fields: 1 }),
    ("double-groupby-5", Query::DoubleGroupBy { fields: 5 }),
    ("double-groupby-all", Query::DoubleGroupBy { fields: 10 }),
    ("high-cpu-1", Query::HighCpu { one: true }),
    ("high-cpu-all", Query::HighCpu { one: false }),
    ("lastpoint", Query::LastPoint),
    ("groupby-orderby-limit", Query::GroupByOrderByLimit),
];

/// What a query is asked about: each time another host and another time, as the suite does it.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Numbers of hosts; none where all are meant.
    pub hosts: Vec<usize>,
    /// The first instant, in whole seconds; of [`Query::GroupByOrderByLimit`] an hour before the last.
    pub from: i64,
    /// The instant behind the last.
    pub to: i64,
}

impl Query {
    /// Hosts and a time within the data at random.
    pub fn asked(&self, cpu: &Cpu, dice: &mut Dice) -> Asked {
        let (hosts, hours) = match *self {
            Query::SingleGroupBy { hosts, hours, .. } => (hosts, hours),
            Query::CpuMaxAll { hosts } => (hosts, 8),
            Query::DoubleGroupBy { .. } => (0, 12),
            Query::HighCpu { one } => (usize::from(one), 12),
            Query::LastPoint => (0, 0),
            Query::GroupByOrderByLimit => (0, 1),
        };
        let mut numbers: Vec<usize> = (0..cpu.tags.len()).collect();
        for place in 0..hosts.min(numbers.len()) {
            let other = place + dice.below(numbers.len() - place);
            numbers.swap(place, other);
        }
        numbers.truncate(hosts);
        let room = (cpu.end() - BEGIN - hours * HOUR).max(0) / SECOND;
        let from = BEGIN + dice.below(room as usize + 1) as i64 * SECOND;
        Asked { hosts: numbers, from, to: from + hours * HOUR }
    }

    /// What the series holds.
    pub fn answer(&self, series: &Series, asked: &Asked) -> Result<Columns, Failed> {
        let range = || series.scan().from(Timestamp(asked.from)).to(Timestamp(asked.to));
        Ok(match *self {
            Query::SingleGroupBy { fields, .. } => {
                largest(of_hosts(range(), asked), Every::minutes(1), fields).collect()?
            }
            Query::CpuMaxAll { .. } => {
                largest(of_hosts(range(), asked), Every::hours(1), FIELDS.len()).collect()?
            }
            Query::DoubleGroupBy { fields } => {
                let hours = range().resample(Every::hours(1)).by(TAGS[0]).fill(Fill::None);
                hours.aggregates(FIELDS[..fields].iter().map(|field| Aggregate::mean(field))).collect()?
            }
            Query::HighCpu { .. } => {
                of_hosts(range(), asked).filter(FIELDS[0], Predicate::Above(HIGH.into())).collect()?
            }
            Query::LastPoint => series.last_points()?,
            Query::GroupByOrderByLimit => {
                let before = series.scan().to(Timestamp(asked.to));
                let minutes = largest(before, Every::minutes(1), 1).newest(5).collect()?;
                let newest_first: Vec<u32> = (0..minutes.rows() as u32).rev().collect();
                minutes.take(&newest_first)?
            }
        })
    }
}

/// Rows of the hosts that are asked about.
fn of_hosts<'a>(scan: Scan<'a>, asked: &Asked) -> Scan<'a> {
    match &asked.hosts[..] {
        [] => scan,
        [one] => scan.key(TAGS[0], host(*one)),
        several => scan.keys(TAGS[0], several.iter().map(|number| host(*number))),
    }
}

/// The largest values of the first so many fields in each window that has rows.
fn largest<'a>(scan: Scan<'a>, every: Every, fields: usize) -> Resample<'a> {
    let windows = scan.resample(every).fill(Fill::None);
    windows.aggregates(FIELDS[..fields].iter().map(|field| Aggregate::max(field)))
}

/// A number that tells answers apart: rows, figures, minutes since [`BEGIN`] and numbers of hosts, added up.
pub fn check(answer: &Columns) -> f64 {
    let of_column = |(name, column): (&str, &Column)| -> f64 {
        match column.column_type() {
            ColumnType::Timestamp => {
                let times = answer.timestamps(name).unwrap_or_default();
                times.iter().map(|at| (at - BEGIN) as f64 / MINUTE as f64).sum()
            }
            ColumnType::F64 => answer.f64s(name).unwrap_or_default().iter().sum(),
            _ if name == TAGS[0] => {
                let number = |row| match answer.value(name, row) {
                    Some(value) => {
                        value.as_str().and_then(|name| name.strip_prefix("host_")?.parse::<f64>().ok())
                    }
                    None => None,
                };
                (0..answer.rows()).filter_map(number).sum::<f64>()
            }
            _ => 0.0,
        }
    };
    answer.rows() as f64 + answer.iter().map(|(name, column)| of_column((&**name, column))).sum::<f64>()
}
