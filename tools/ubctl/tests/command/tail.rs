//! What transactions changed, as `ubctl tail` shows it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use underbelly::{Batch, ColumnType, Columns, Database, Date, Durability, Options, Scope, SlotDefinition};

use crate::{Place, words};

fn quote(db: &Database, symbol: &str, bid: f64) -> u64 {
    let mut batch = Batch::new();
    let rows = Columns::new().with("bid", vec![bid].into()).unwrap();
    batch.put_slot("Quote", Date::from_ymd(2014, 6, 2).unwrap(), [symbol], rows);
    db.commit(batch).unwrap().seq
}

fn set(db: &Database, x: i64) -> u64 {
    let mut batch = Batch::new();
    batch.set_variable(Scope::Global, "x", x);
    db.commit(batch).unwrap().seq
}

fn open(place: &Place) -> Database {
    Database::open_with(place.db(), Options { workers: 1, ..Options::default() }).unwrap()
}

/// A database with a slot in which two quotes and a variable were put; answers their seqs.
fn quoted() -> (Place, [u64; 3]) {
    let place = Place::new();
    let db = open(&place);
    let slot =
        |name| SlotDefinition::new(name).cell_key("symbol", ColumnType::Utf8).value("bid", ColumnType::F64);
    db.define_slot(slot("Quote")).unwrap();
    db.define_slot(slot("Other")).unwrap();
    let seqs = [quote(&db, "IBM", 1.0), set(&db, 3), quote(&db, "AAPL", 2.0)];
    db.close().unwrap();
    (place, seqs)
}

#[test]
fn the_newest_transactions_are_shown_for_people_and_for_programs() {
    let (place, [first, plain, last]) = quoted();
    let text = place.ok(words("tail -n 3"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    for (line, change) in lines.iter().zip(["void -> updated", "updated -> current"]) {
        assert!(line.starts_with(&format!("{first}  20")), "{text}");
        assert!(line.ends_with(&format!("  Quote 2014-06-02 IBM: {change}, generation 1")), "{text}");
    }
    assert!(lines[2].starts_with(&format!("{plain}  20")), "{text}");
    assert!(lines[2].ends_with("  set variable x to i64 of 8 bytes"), "{text}");
    let json: Vec<serde_json::Value> = place
        .ok(words("tail --from oldest --format json"))
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let seqs: Vec<u64> = json.iter().map(|told| told["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=last).collect::<Vec<u64>>());
    let change = |from: &str, to: &str| {
        serde_json::json!({
            "slot": "Quote", "date": "2014-06-02", "key": "AAPL", "sid": 1,
            "from": from, "to": to, "generation": 1,
        })
    };
    let changes = serde_json::json!([change("void", "updated"), change("updated", "current")]);
    assert_eq!(json[last as usize - 1]["states"], changes);
    assert_eq!(json[plain as usize - 1]["states"], serde_json::json!([]));
    assert_eq!(place.ok(words("tail --states")).lines().count(), 4);
    assert_eq!(place.ok(words("tail --slot Other")), "");
    assert_eq!(place.ok(words("tail --slot Quote --to current --date 2014-06-02 -n 1")).lines().count(), 1);
    assert_eq!(place.ok(words("tail --to stale --from oldest")), "");
    assert_eq!(place.ok(vec!["tail", "--from", &last.to_string()]).lines().count(), 2);
    assert_eq!(place.ok(words("tail --from now")), "");
}

/// However far back they are.
#[test]
fn the_newest_that_pass_are_found_behind_many_that_do_not() {
    let (place, [first, _, second]) = quoted();
    let db = open(&place);
    let mut last = 0;
    for x in 0..100 {
        last = set(&db, x);
    }
    db.close().unwrap();
    let seqs = |line: &str| -> Vec<u64> {
        let text = place.ok(words(line));
        let mut seqs: Vec<u64> =
            text.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        seqs.dedup();
        seqs
    };
    assert_eq!(seqs("tail"), (last - 9..=last).collect::<Vec<u64>>());
    assert_eq!(seqs("tail --states"), [first, second]);
    assert_eq!(seqs("tail --states -n 1"), [second]);
    assert!(seqs("tail --slot Other").is_empty());
    assert!(seqs("tail -n 0").is_empty());
    assert_eq!(seqs("tail -n 1000"), (1..=last).collect::<Vec<u64>>());
}

#[test]
fn what_cannot_be_shown_is_explained() {
    let (place, _) = quoted();
    assert!(place.fails(words("tail --slot Nowhere")).contains("no slot is named \"Nowhere\""));
    assert!(place.fails(words("tail --from 99")).contains("transaction 99 is yet to come"));
    for misuse in
        ["tail --from soon", "tail --cursor a --from 3", "tail --ack", "tail --cursor a --ack --follow"]
    {
        assert_eq!(place.run(words(misuse)).code, 2, "{misuse}");
    }
}

#[test]
fn a_cursor_goes_on_where_it_was() {
    let (place, [first, _, last]) = quoted();
    let seqs = || -> Vec<u64> {
        let told = place.ok(words("tail --cursor report --slot Quote --format json --ack"));
        let seq =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap();
        told.lines().map(seq).collect()
    };
    assert_eq!(seqs(), [first, last]);
    assert_eq!(seqs(), Vec::<u64>::new());
    let next = quote(&open(&place), "IBM", 3.0);
    // Without --ack it stays where it is.
    assert_eq!(place.ok(words("tail --cursor report --slot Quote --to current")).lines().count(), 1);
    assert_eq!(seqs(), [next]);
    assert_eq!(seqs(), Vec::<u64>::new());
    let writer = open(&place);
    assert!(place.fails(words("tail --cursor report --ack")).contains("open for writing"));
    drop(writer);
}

#[test]
fn following_shows_what_a_live_writer_commits() {
    let (place, [_, _, last]) = quoted();
    let db = open(&place);
    let from = last.to_string();
    let arguments = ["tail", "--from", &from, "--follow", "--slot", "Quote", "--format", "json"];
    let mut child = place.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> u64 {
        let line = lines.next().unwrap().unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["seq"].as_u64().unwrap()
    };
    assert_eq!(next(), last);
    for bid in 5..8 {
        set(&db, bid);
        let seq = quote(&db, "IBM", bid as f64);
        if bid == 6 {
            db.checkpoint().unwrap();
        }
        assert_eq!(next(), seq);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_rows_of_a_series_are_followed_by_transaction() {
    let place = Place::new();
    place.write("a.csv", "time_ns,sym,price\n3,IBM,1.5\n1,AIG,\n2,IBM,2.5\n");
    place.ok(words("import a.csv --series trade --time time_ns --key sym"));
    let newest = "1970-01-01T00:00:00.000000002Z  sym IBM  price 2.5\n1970-01-01T00:00:00.000000003Z  sym IBM  price 1.5\n";
    assert_eq!(place.ok(words("tail trade -n 2")), newest);
    place.write("b.csv", "time_ns,sym,price\n2,AIG,7\n");
    place.ok(words("import b.csv --series trade --time time_ns --key sym"));
    let lines = place.ok(words("tail trade --from oldest --format json"));
    let rows: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let prices: Vec<&serde_json::Value> = rows.iter().map(|row| &row["price"]).collect();
    assert_eq!(prices, [&serde_json::Value::Null, &2.5.into(), &1.5.into(), &7.0.into()]);
    let (first, last) = (rows[0]["_seq"].as_u64().unwrap(), rows[3]["_seq"].as_u64().unwrap());
    assert!(first < last && rows[2]["_seq"] == first);
    let after = place.ok(words(&format!("tail trade --from {}", first + 1)));
    assert_eq!(after, format!("{last}  1970-01-01T00:00:00.000000002Z  sym AIG  price 7.0\n"));
    assert!(place.fails(words("tail none")).contains("no series has the type \"none\""));
    assert_eq!(place.run(words("tail trade --slot x")).code, 2);
}

#[test]
fn a_name_of_no_series_moves_no_cursor() {
    let (place, _) = quoted();
    for options in ["--from oldest", "--cursor c --ack", ""] {
        let error = place.fails(words(format!("tail none {options}").trim()));
        assert!(error.contains("no series has the type \"none\""), "{error}");
    }
    let db = open(&place);
    assert_eq!(db.cursor("c").unwrap(), None);
}

/// What a transaction without changes of state does is told as long as the log holds it.
#[test]
fn transactions_are_told_in_words_as_long_as_the_log_holds_them() {
    let place = Place::bare();
    let options = Options { workers: 1, log_file_bytes: 1 << 20, ..Options::default() };
    let db = Database::create_with(place.db(), options).unwrap();
    for round in 0..4 {
        for n in 0..1_000i64 {
            let mut batch = Batch::new();
            batch.set_variable(Scope::Global, "x", vec![n as f64; 100]).durability(Durability::Buffered);
            db.commit(batch).unwrap();
        }
        if round < 3 {
            db.checkpoint().unwrap();
        }
    }
    let mut batch = Batch::new();
    for n in 0..20 {
        batch.set_variable(Scope::Global, &format!("v{n}"), true);
    }
    let last = db.commit(batch).unwrap().seq;
    db.close().unwrap();
    let dump = place.csv(words("wal dump --format csv"));
    let held: Vec<u64> = dump[1..].iter().map(|row| row[0].parse().unwrap()).collect();
    assert!(held[0] > 1_000 && last - held[0] > 1_024, "{} to {last}", held[0]);
    let text = place.ok(words("tail --from oldest"));
    let told: Vec<&str> = text.lines().map(|line| line.splitn(3, "  ").nth(2).unwrap()).collect();
    let split = held[0] as usize - 1;
    assert!(told[..split].iter().all(|words| *words == "the log does not tell"));
    for (words, row) in told[split..].iter().zip(&dump[1..]) {
        assert!(*words == row[5] || row[5].starts_with(words.trim_end_matches("12 more")), "{words} {row:?}");
    }
    assert_eq!(told.len(), split + held.len());
    assert!(told[last as usize - 1].ends_with("; 12 more"), "{}", told[last as usize - 1]);
}
