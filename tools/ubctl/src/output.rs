//! What goes to standard output: listings and single facts, as a table, as CSV or as JSON.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use underbelly::{Column, Decimal, LogicalType, Nested, Timestamp, Value, Values, nested};

use crate::error::Failed;
use crate::time::in_zone;

/// The form of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// Comma-separated values with a header; null is empty.
    Csv,
    /// An array of objects; NaN and infinities are text.
    Json,
}

/// The option that every listing takes.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct FormatArg {
    /// The form of the output
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) format: Format,
}

/// One field of a listing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field<'a> {
    Null,
    Bool(bool),
    Count(u64),
    I64(i64),
    F64(f64),
    Decimal(Decimal),
    Text(Cow<'a, str>),
    Array(Vec<f64>),
    Texts(Vec<String>),
    /// A value of several, as JSON writes it.
    Json(String),
}

impl<'a> Field<'a> {
    /// The value of a column in a row that it has.
    pub(crate) fn of(column: &'a Column, row: usize) -> Field<'a> {
        if let Values::Utf8(_) = column.values() {
            return column.str_at(row).map_or(Field::Null, |text| Field::Text(Cow::Borrowed(text)));
        }
        Field::of_value(&column.get(row))
    }

    /// The same of a column that is said to be something else than what is stored.
    pub(crate) fn typed(column: &'a Column, row: usize, logical: Option<&LogicalType>) -> Field<'a> {
        if let (Values::Timestamp(v), Some(zone)) = (column.values(), logical.and_then(LogicalType::zone)) {
            let shown = |at: &i64| Field::instant(Timestamp(*at), Some(zone));
            return v.get(row).filter(|_| !column.is_null(row)).map_or(Field::Null, shown);
        }
        match (Field::of(column, row), logical) {
            (Field::I64(unscaled), Some(LogicalType::Decimal(scale))) => {
                Decimal::new(unscaled, *scale).map_or(Field::I64(unscaled), Field::Decimal)
            }
            (field, _) => field,
        }
    }

    /// An instant as the clocks of a zone show it; in UTC where none is named.
    pub(crate) fn instant(at: Timestamp, zone: Option<&str>) -> Field<'static> {
        Field::text(zone.map_or_else(|| at.to_string(), |zone| in_zone(at, zone)))
    }

    /// A single value.
    pub(crate) fn of_value(value: &Value) -> Field<'a> {
        match value {
            Value::Null => Field::Null,
            Value::Bool(v) => Field::Bool(*v),
            Value::I64(v) => Field::I64(*v),
            Value::F64(v) => Field::F64(*v),
            Value::I32(v) => Field::I64(i64::from(*v)),
            // With as many digits as tell it from other numbers of its length.
            Value::F32(v) => Field::F64(v.to_string().parse().unwrap_or(f64::from(*v))),
            other => Field::Text(other.to_string().into()),
        }
    }

    /// Anything that prints itself, as text.
    pub(crate) fn text(value: impl ToString) -> Field<'static> {
        Field::Text(value.to_string().into())
    }

    /// As it stands in a table or in CSV. A float keeps its point, so that it reads back as one.
    pub(crate) fn plain(&self) -> Cow<'_, str> {
        match self {
            Field::Null => "".into(),
            Field::Bool(v) => v.to_string().into(),
            Field::Count(v) => v.to_string().into(),
            Field::I64(v) => v.to_string().into(),
            Field::F64(v) => format!("{v:?}").into(),
            Field::Decimal(v) => v.to_string().into(),
            Field::Text(v) => Cow::Borrowed(v),
            Field::Array(values) => {
                let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
                format!("[{}]", values.join(",")).into()
            }
            Field::Texts(texts) => texts.join(",").into(),
            Field::Json(v) => Cow::Borrowed(v),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Field::Null => serde_json::Value::Null,
            Field::Bool(v) => (*v).into(),
            Field::Count(v) => (*v).into(),
            Field::I64(v) => (*v).into(),
            Field::F64(v) if v.is_finite() => (*v).into(),
            Field::F64(_) => self.plain().into_owned().into(),
            // A number with all its digits.
            Field::Decimal(v) => {
                serde_json::from_str(&v.to_string()).unwrap_or_else(|_| v.to_string().into())
            }
            Field::Text(v) => v.as_ref().into(),
            Field::Array(values) => values.iter().map(|value| Field::F64(*value).json()).collect(),
            Field::Texts(texts) => texts.iter().map(String::as_str).collect(),
            Field::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Field::Count(_) | Field::I64(_) | Field::F64(_) | Field::Decimal(_))
    }
}

impl<'a> From<&'a str> for Field<'a> {
    fn from(text: &'a str) -> Field<'a> {
        Field::Text(text.into())
    }
}

impl From<String> for Field<'_> {
    fn from(text: String) -> Self {
        Field::Text(text.into())
    }
}

impl From<bool> for Field<'_> {
    fn from(value: bool) -> Self {
        Field::Bool(value)
    }
}

impl From<u64> for Field<'_> {
    fn from(value: u64) -> Self {
        Field::Count(value)
    }
}

impl From<usize> for Field<'_> {
    fn from(value: usize) -> Self {
        Field::Count(value as u64)
    }
}

impl From<f64> for Field<'_> {
    fn from(value: f64) -> Self {
        Field::F64(value)
    }
}

impl<'a, T: Into<Field<'a>>> From<Option<T>> for Field<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Field::Null, Into::into)
    }
}

/// Standard output, locked and buffered.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// Writes a text to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failed> {
    let mut out = stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failed::output)
}

/// Writes a JSON value to standard output, indented.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Failed> {
    print(&format!("{value:#}\n"))
}

/// A listing under way. CSV and JSON are written row by row; a table is kept until its end, which its widths need.
pub(crate) struct Listing<W: Write> {
    /// How the columns stand in objects of JSON.
    places: Vec<(Arc<str>, Nested)>,
    form: Form<W>,
    rows: u64,
}

enum Form<W: Write> {
    Table(Box<Table>, W),
    Csv(Box<csv::Writer<W>>),
    Json(W),
}

impl Listing<BufWriter<StdoutLock<'static>>> {
    /// Begins a listing on standard output.
    pub(crate) fn begin<S: Into<String>>(
        format: Format,
        names: impl IntoIterator<Item = S>,
    ) -> Result<Self, Failed> {
        Listing::on(stdout(), format, names)
    }

    /// Begins a listing of rows of a series, which are nested objects in JSON.
    pub(crate) fn begin_rows<S: AsRef<str>>(format: Format, names: &[S]) -> Result<Self, Failed> {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let places = nested(&names);
        Ok(Listing { places, ..Listing::begin(format, names)? })
    }
}

impl<W: Write> Listing<W> {
    /// Begins a listing on any output.
    pub(crate) fn on<S: Into<String>>(
        mut out: W,
        format: Format,
        names: impl IntoIterator<Item = S>,
    ) -> Result<Self, Failed> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let form = match format {
            Format::Table => {
                let mut table = Table::new();
                table.load_preset(presets::NOTHING).set_header(&names);
                if io::stdout().is_terminal() {
                    table.set_content_arrangement(ContentArrangement::Dynamic);
                }
                Form::Table(Box::new(table), out)
            }
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(out);
                writer.write_record(&names).map_err(csv_failed)?;
                Form::Csv(Box::new(writer))
            }
            Format::Json => {
                out.write_all(b"[").map_err(Failed::output)?;
                Form::Json(out)
            }
        };
        let places = names.iter().enumerate().map(|(at, name)| (name.as_str().into(), Nested::Column(at)));
        Ok(Listing { places: places.collect(), form, rows: 0 })
    }

    /// Writes a row: a field for each name.
    pub(crate) fn row<'a>(&mut self, fields: impl IntoIterator<Item = Field<'a>>) -> Result<(), Failed> {
        match &mut self.form {
            Form::Table(table, _) => {
                table.add_row(fields.into_iter().map(|field| {
                    let cell = comfy_table::Cell::new(printable(&field.plain()));
                    let right = field.is_number();
                    cell.set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
                }));
            }
            Form::Csv(writer) => {
                for field in fields {
                    writer.write_field(field.plain().as_bytes()).map_err(csv_failed)?;
                }
                writer.write_record(None::<&[u8]>).map_err(csv_failed)?;
            }
            Form::Json(out) => {
                let fields: Vec<Field<'_>> = fields.into_iter().collect();
                let mut text = String::from(if self.rows == 0 { "\n" } else { ",\n" });
                object(&mut text, &self.places, &fields);
                out.write_all(text.as_bytes()).map_err(Failed::output)?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Ends the listing. `closing` is a line for people, under a table alone.
    pub(crate) fn end(self, closing: Option<&str>) -> Result<(), Failed> {
        match self.form {
            Form::Table(table, mut out) => {
                for line in table.lines() {
                    let line = line.strip_prefix(' ').unwrap_or(&line).trim_end();
                    writeln!(out, "{line}").map_err(Failed::output)?;
                }
                if let Some(closing) = closing {
                    writeln!(out, "{closing}").map_err(Failed::output)?;
                }
                out.flush().map_err(Failed::output)
            }
            Form::Csv(mut writer) => writer.flush().map_err(Failed::output),
            Form::Json(mut out) => {
                let end = if self.rows == 0 { "]\n" } else { "\n]\n" };
                out.write_all(end.as_bytes()).and_then(|()| out.flush()).map_err(Failed::output)
            }
        }
    }
}

/// Control characters would break the lines of a table or tree, or the terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().flat_map(|c| {
        let escaped: Vec<char> = if c.is_control() { c.escape_default().collect() } else { vec![c] };
        escaped
    });
    Cow::Owned(shown.collect())
}

/// Writes fields as an object, with objects in it where they are nested: null where all that it holds is.
fn object(text: &mut String, places: &[(Arc<str>, Nested)], fields: &[Field<'_>]) {
    for (at, (name, place)) in places.iter().enumerate() {
        text.push(if at == 0 { '{' } else { ',' });
        text.push_str(&serde_json::Value::from(&**name).to_string());
        text.push(':');
        match place {
            Nested::Column(at) => {
                let field = fields.get(*at).unwrap_or(&Field::Null);
                text.push_str(&field.json().to_string());
            }
            inner if is_null(inner, fields) => text.push_str("null"),
            Nested::Object(inner) => object(text, inner, fields),
        }
    }
    text.push_str(if places.is_empty() { "{}" } else { "}" });
}

fn is_null(place: &Nested, fields: &[Field<'_>]) -> bool {
    match place {
        Nested::Column(at) => fields.get(*at).is_none_or(|field| *field == Field::Null),
        Nested::Object(inner) => inner.iter().all(|(_, place)| is_null(place, fields)),
    }
}

/// Fields as a JSON object in a line.
pub(crate) fn json_line(names: &[&str], fields: &[Field<'_>]) -> String {
    let mut text = String::new();
    object(&mut text, &nested(names), fields);
    text.push('\n');
    text
}

fn members<'a>(text: &mut String, names: &[String], fields: impl IntoIterator<Item = Field<'a>>) {
    for (i, (name, field)) in names.iter().zip(fields).enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(name.as_str()).to_string());
        text.push(':');
        text.push_str(&field.json().to_string());
    }
}

fn csv_failed(error: csv::Error) -> Failed {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Failed::output(error),
        other => Failed::Output(io::Error::other(format!("{other:?}"))),
    }
}

/// Milliseconds, to a microsecond.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    microseconds(duration).round() / 1e3
}

/// Microseconds, to a nanosecond.
pub(crate) fn microseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

/// Named facts about one thing: a line each in a table or in CSV, one object in JSON.
#[derive(Default)]
pub(crate) struct Facts(Vec<(String, Field<'static>)>);

impl Facts {
    /// Adds a fact.
    pub(crate) fn add(&mut self, name: impl Into<String>, field: impl Into<Field<'static>>) -> &mut Facts {
        self.0.push((name.into(), field.into()));
        self
    }

    /// Writes them to standard output.
    pub(crate) fn print(self, format: Format) -> Result<(), Failed> {
        if format == Format::Json {
            let (names, fields): (Vec<String>, Vec<Field<'_>>) = self.0.into_iter().unzip();
            let mut text = String::from("{");
            members(&mut text, &names, fields);
            text.push_str("}\n");
            return print(&text);
        }
        if format == Format::Csv {
            let mut listing = Listing::begin(format, ["name", "value"])?;
            self.0.iter().try_for_each(|(name, field)| listing.row([name.as_str().into(), field.clone()]))?;
            return listing.end(None);
        }
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let line = |(name, field): &(String, Field<'_>)| {
            format!("{:width$}  {}", name.replace('_', " "), printable(&field.plain()))
        };
        print(&self.0.iter().map(|fact| line(fact).trim_end().to_string() + "\n").collect::<String>())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_decimals() {
        let duration = Duration::from_nanos(2_094_081);
        assert_eq!((milliseconds(duration), microseconds(duration)), (2.094, 2_094.081));
        assert_eq!(microseconds(Duration::from_nanos(17_923)), 17.923);
    }

    fn written(format: Format) -> String {
        let mut out = Vec::new();
        let mut listing = Listing::on(&mut out, format, ["name", "x"]).unwrap();
        listing.row(["a,\"b\"".into(), Field::F64(1.0)]).unwrap();
        listing.row(["tab\there".into(), Field::F64(f64::NAN)]).unwrap();
        listing.row([Field::Null, Field::I64(-7)]).unwrap();
        listing.end(Some("3 rows")).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn csv_quotes_and_floats_keep_their_point() {
        assert_eq!(written(Format::Csv), "name,x\n\"a,\"\"b\"\"\",1.0\ntab\there,NaN\n,-7\n");
    }

    #[test]
    fn json_is_an_array_in_order_of_the_columns() {
        let text = written(Format::Json);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json[0]["x"], 1.0);
        assert_eq!(json[1]["x"], "NaN");
        assert_eq!(json[2]["name"], serde_json::Value::Null);
        assert!(text.find("name").unwrap() < text.find("\"x\"").unwrap());
        let mut out = Vec::new();
        Listing::on(&mut out, Format::Json, ["a"]).unwrap().end(None).unwrap();
        assert_eq!(out, b"[]\n");
    }

    #[test]
    fn tables_show_control_characters_and_a_closing_line() {
        let text = written(Format::Table);
        assert!(text.contains("tab\\there"), "{text}");
        assert!(text.ends_with("3 rows\n"), "{text}");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
    }
}
