//! `ubctl var watch`: variables as they change, drawn as sparklines.

use std::collections::{HashSet, VecDeque};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use clap::Args;
use underbelly::{CURSOR_PREFIX, Database, Reader, Scope, VariableValue};

use super::{ScopeArg, field, is_same, note_writer};
use crate::error::Failed;
use crate::output::{printable, stdout};
use crate::stderr;
use crate::time::parse_pause;
use crate::top::{cut, height, width};

/// Values that a line shows.
const WIDTH: usize = 60;
/// Characters up to which values have a column: the bars begin behind the longest of them.
const VALUE: usize = 24;
/// What is shown instead of the value of one that is there no more.
const REMOVED: &str = "removed";
/// Looks at which that is shown, where the variable was not named by who watches.
const REMOVED_LOOKS: u32 = 50;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws variables as they change, those of no log among them, until this is interrupted
///
/// On a terminal each has a line that is drawn anew: the value, and in what is left of the width its last values as bars;
/// what does not fit into the height is counted. Elsewhere a line is written for each change: the name, a tab and the
/// value, or two tabs and `removed`.
#[derive(Args, Debug)]
pub(crate) struct Watch {
    /// The variables, each of which may end with `*`, as 'training/*'; all of the scope but cursors where none is named
    names: Vec<String>,
    #[command(flatten)]
    scope: ScopeArg,
    /// How often they are looked at, as 1s; each fifth of a second by default
    #[arg(long, value_name = "TIME", value_parser = parse_pause)]
    every: Option<Duration>,
    /// Ends after so many looks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    looks: Option<u64>,
}

/// A variable and its last values.
struct Line {
    name: String,
    is_logged: bool,
    /// `None` where it is there no more.
    value: Option<VariableValue>,
    numbers: VecDeque<f64>,
    /// At how many looks it was not there.
    gone: u32,
}

/// What is drawn of a value: a number, the mean of several, the length of bytes.
fn number(value: &VariableValue) -> f64 {
    match value {
        VariableValue::Bool(value) => f64::from(u8::from(*value)),
        VariableValue::I64(value) => *value as f64,
        VariableValue::F64(value) => *value,
        VariableValue::Array(values) => values.iter().sum::<f64>() / values.len().max(1) as f64,
        VariableValue::Bytes(bytes) => bytes.len() as f64,
        _ => f64::NAN,
    }
}

/// Numbers as bars between the least and the greatest of them; a dot for what is no number.
pub(crate) fn sparkline(numbers: impl Iterator<Item = f64> + Clone) -> String {
    let finite = numbers.clone().filter(|number| number.is_finite());
    let (least, greatest) = finite
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), number| (low.min(number), high.max(number)));
    let bar = |number: f64| {
        if !number.is_finite() {
            return '·';
        }
        let share = if greatest > least { (number - least) / (greatest - least) } else { 0.0 };
        let at = (share * (BARS.len() - 1) as f64).round() as usize;
        BARS.get(at).copied().unwrap_or('█')
    };
    numbers.map(bar).collect()
}

fn look(reader: &Reader, scope: &Scope) -> Vec<(String, bool, VariableValue)> {
    let logged = reader.variables().into_iter().filter(|variable| variable.scope == *scope);
    let logged = logged.map(|variable| (variable.name.to_string(), true, variable.value));
    let unlogged = reader.unlogged_variables().into_iter().filter(|(of, ..)| of == scope);
    logged.chain(unlogged.map(|(_, name, value)| (name.to_string(), false, value))).collect()
}

/// The first characters of a text, where it is too long.
fn shortened(text: &str, room: usize) -> String {
    match text.chars().count() <= room {
        true => text.to_string(),
        false => text.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A value in so many characters: a number with as many digits as there is room for, anything else cut.
fn fitted(value: &VariableValue, room: usize) -> String {
    let text = printable(&field(value).plain()).into_owned();
    let number = match value {
        VariableValue::F64(number) => *number,
        VariableValue::I64(number) => *number as f64,
        _ => return shortened(&text, room),
    };
    if text.chars().count() <= room {
        return text;
    }
    let rounded = (0..17).rev().map(|digits| format!("{number:.digits$e}"));
    rounded.into_iter().find(|text| text.len() <= room).unwrap_or_else(|| "…".to_string())
}

/// The lines of a terminal of this width and height. One is left free: the cursor goes back to the first from there, and no
/// further than to the top.
fn drawn(lines: &[Line], width: usize, height: usize) -> String {
    let room = height.saturating_sub(1).max(1);
    let count = if lines.len() > room { room - 1 } else { lines.len() };
    // No more than half of the width goes to names.
    let name_max = (width / 2).max(1);
    let named: Vec<(&Line, String)> =
        lines.iter().take(count).map(|line| (line, shortened(&printable(&line.name), name_max))).collect();
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    let name_width = longest(&mut named.iter().map(|(_, name)| name.chars().count()));
    let left = width.saturating_sub(name_width + 2);
    let value = |line: &Line| {
        line.value.as_ref().map_or_else(|| shortened(REMOVED, left), |value| fitted(value, left))
    };
    let shown: Vec<(&Line, String, String)> =
        named.into_iter().map(|(line, name)| (line, name, value(line))).collect();
    let values = shown.iter().map(|(.., value)| value.chars().count());
    let value_width = longest(&mut values.filter(|length| *length <= VALUE));
    let mut text = String::new();
    for (line, name, value) in shown {
        let begin = format!("{name:<name_width$}  {value:<value_width$}  ");
        // The newest are the last.
        let left = width.saturating_sub(begin.chars().count()).min(line.numbers.len());
        let bars = sparkline(line.numbers.iter().skip(line.numbers.len() - left).copied());
        text.push_str((begin + &bars).trim_end());
        text.push('\n');
    }
    if count < lines.len() {
        text.push_str(&format!("… {} more\n", lines.len() - count));
    }
    cut(&text, width)
}

impl Watch {
    /// Whether a variable is to be shown.
    fn wants(&self, name: &str) -> bool {
        let is_meant = |wanted: &String| match wanted.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => name == wanted,
        };
        match &self.names[..] {
            [] => !name.starts_with(CURSOR_PREFIX),
            names => names.iter().any(is_meant),
        }
    }

    /// Takes what was found at a look; answers which lines are new or changed. What was removed keeps its line for a while.
    fn take(&self, lines: &mut Vec<Line>, found: Vec<(String, bool, VariableValue)>) -> Vec<usize> {
        let mut changed = Vec::new();
        lines.retain(|line| line.gone < REMOVED_LOOKS || self.names.contains(&line.name));
        let there: HashSet<(&str, bool)> = found.iter().map(|(name, logged, _)| (&**name, *logged)).collect();
        for (at, line) in lines.iter_mut().enumerate() {
            if there.contains(&(&*line.name, line.is_logged)) {
                line.gone = 0;
                continue;
            }
            line.gone = line.gone.saturating_add(1);
            if line.value.take().is_some() {
                changed.push(at);
            }
        }
        for (name, is_logged, value) in found {
            if !self.wants(&name) {
                continue;
            }
            let known = lines.iter().position(|line| line.name == name && line.is_logged == is_logged);
            let at = known.unwrap_or(lines.len());
            if known.is_none() {
                lines.push(Line { name, is_logged, value: None, numbers: VecDeque::new(), gone: 0 });
            }
            let Some(line) = lines.get_mut(at) else { continue };
            if !line.value.as_ref().is_some_and(|before| is_same(before, &value)) {
                changed.push(at);
            }
            line.numbers.push_back(number(&value));
            line.value = Some(value);
            if line.numbers.len() > WIDTH {
                line.numbers.pop_front();
            }
        }
        changed
    }

    pub(crate) fn run(&self, dir: &Path) -> Result<(), Failed> {
        let mut reader = Database::open_read_only(dir)?;
        let every = self.every.unwrap_or(Duration::from_millis(200));
        let (mut lines, mut rows, is_terminal): (Vec<Line>, usize, _) =
            (Vec::new(), 0, io::stdout().is_terminal());
        let mut looks = 0;
        loop {
            let found = look(&reader, &self.scope.scope);
            if looks == 0 {
                if found.iter().any(|(_, is_logged, _)| !is_logged) {
                    note_writer(&reader, dir)?;
                }
                let is_there = |wanted: &str| found.iter().any(|(there, ..)| there == wanted);
                for name in self.names.iter().filter(|name| !name.ends_with('*') && !is_there(name)) {
                    let scope = &self.scope.scope;
                    stderr::line(&format!(
                        "no variable of scope {scope} is named {name:?} yet; it is shown once it is there"
                    ));
                }
            }
            let changed = self.take(&mut lines, found);
            let mut text = String::new();
            if is_terminal {
                if rows > 0 {
                    text.push_str(&format!("\x1b[{rows}A\x1b[J"));
                }
                let frame = drawn(&lines, width(), height());
                rows = frame.lines().count();
                text.push_str(&frame);
            } else {
                for line in changed.iter().filter_map(|at| lines.get(*at)) {
                    let value = line.value.as_ref().map(|value| field(value).plain().into_owned());
                    let value = value.unwrap_or_else(|| format!("\t{REMOVED}"));
                    text.push_str(&format!("{}\t{value}\n", line.name));
                }
            }
            let mut out = stdout();
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failed::output)?;
            drop(out);
            looks += 1;
            if self.looks.is_some_and(|most| looks >= most) {
                return Ok(());
            }
            thread::sleep(every);
            reader.refresh()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_a_line_for_each_variable_that_is_there() {
        let watch =
            Watch { names: Vec::new(), scope: ScopeArg { scope: Scope::Global }, every: None, looks: None };
        let found = |names: &[(&str, bool)]| {
            let value = |n: usize| VariableValue::from(vec![n as f64; 40]);
            names
                .iter()
                .enumerate()
                .map(|(n, (name, logged))| (name.to_string(), *logged, value(n)))
                .collect()
        };
        let mut lines = Vec::new();
        assert_eq!(
            watch.take(&mut lines, found(&[("loss", true), ("loss", false), ("x", false)])),
            [0, 1, 2]
        );
        assert_eq!(watch.take(&mut lines, found(&[("loss", true), ("loss", false), ("x", false)])), [0; 0]);
        let text = drawn(&lines, 40, 24);
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.chars().count() == 40), "{text}");
        assert!(text.starts_with("loss  [0.0,0.0,"), "{text}");
        // The second is another variable than the first, and keeps its place without a value until it has one again.
        assert_eq!(watch.take(&mut lines, found(&[("loss", true)])), [1, 2]);
        let text = drawn(&lines, 90, 24);
        let values: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert!(values[0].starts_with("[0.0") && values[1..] == ["removed", "removed"], "{text}");
        assert_eq!(watch.take(&mut lines, found(&[("loss", true)])), [0; 0]);
        assert_eq!(watch.take(&mut lines, found(&[("loss", true), ("loss", false)])), [1]);
        // What comes and goes keeps no line for good.
        for _ in 0..=REMOVED_LOOKS {
            watch.take(&mut lines, found(&[("loss", true)]));
        }
        assert_eq!(lines.len(), 1);
    }

    /// The value is there whatever the width is, and bars have what is left; no more lines than the terminal has.
    #[test]
    fn a_narrow_and_low_terminal_shows_values_first() {
        let line = |name: &str, value: VariableValue| Line {
            name: name.to_string(),
            is_logged: true,
            value: Some(value),
            numbers: (0..WIDTH).map(|n| n as f64).collect(),
            gone: 0,
        };
        let text = |text: &str| VariableValue::from(text.as_bytes());
        let long = "x".repeat(VALUE + 4);
        let lines = [line("loss", 0.25.into()), line("n", text("abcdef")), line("long", text(&long))];
        let shown = drawn(&lines, 40, 24);
        let shown: Vec<&str> = shown.lines().collect();
        assert_eq!(shown[0], format!("loss  0.25    {}", sparkline((34..60).map(f64::from))));
        assert_eq!(shown[1], format!("n     abcdef  {}", sparkline((34..60).map(f64::from))));
        assert_eq!(shown[2], format!("long  {long}  {}", sparkline((56..60).map(f64::from))));
        // No more bars than values, and none where nothing is left.
        assert_eq!(drawn(&lines[..1], 400, 24).trim_end().chars().count(), "loss  0.25  ".len() + WIDTH);
        assert_eq!(drawn(&lines[..1], 10, 24), "loss  0.25\n");
        let counts = |height: usize| {
            let shown = drawn(&lines, 10, height);
            (shown.lines().count(), shown.lines().last().unwrap_or_default().to_string())
        };
        assert_eq!(counts(4), (3, "long  xxx…".to_string()));
        assert_eq!(counts(3), (2, "… 2 more".to_string()));
        assert_eq!(counts(2), (1, "… 3 more".to_string()));
        assert_eq!(counts(0), (1, "… 3 more".to_string()));
        // Numbers are rounded and never cut, and a long name leaves them half of the width.
        let lines = [
            line("averyveryverylongname", 1.5e300.into()),
            line("huge", 123_456_789_012_345_678i64.into()),
            line("tiny", 1.234_567_890_123_456_8e-15.into()),
        ];
        let shown = drawn(&lines, 24, 24);
        assert_eq!(shown, "averyveryve…  1.5e300\nhuge          1.23457e17\ntiny          1.2346e-15\n");
        assert!(drawn(&lines, 60, 24).contains("  123456789012345678  "));
    }

    #[test]
    fn a_sparkline_goes_from_the_least_to_the_greatest() {
        let line = |numbers: &[f64]| sparkline(numbers.iter().copied());
        assert_eq!(line(&[0.0, 1.0, 2.0, 7.0]), "▁▂▃█");
        assert_eq!(line(&[5.0, 5.0]), "▁▁");
        assert_eq!(line(&[1.0, f64::NAN, 2.0]), "▁·█");
        assert_eq!(line(&[]), "");
    }
}
