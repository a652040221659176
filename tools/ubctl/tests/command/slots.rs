//! Slots and producers.

use std::time::Duration;

use underbelly::{
    Batch, ColumnType, Columns, Database, Date, Failure, Outputs, ProducerDefinition, SlotDefinition,
};

use serde_json::Value as Json;

use crate::{Place, words};

/// A chain of two slots with a producer between them, one cell each.
fn chain() -> Place {
    let place = Place::new();
    let db = Database::open(place.db()).unwrap();
    let slot = |name: &str| {
        SlotDefinition::new(name)
            .cell_key("issuer", ColumnType::Utf8)
            .cell_key("ccy", ColumnType::Utf8)
            .row_key("strike", ColumnType::F64)
            .value("quote", ColumnType::F64)
    };
    db.define_slot(slot("Market.Option")).unwrap();
    db.define_slot(slot("Param.Smile")).unwrap();
    db.define_slot(SlotDefinition::new("Market.Calendar").row_key("day", ColumnType::Date)).unwrap();
    let producer = ProducerDefinition::new("fit \"it\"").requires("Market.Option").provides("Param.Smile");
    let body = |_: &underbelly::Run| Err::<Outputs, _>(Failure::fatal("no fit"));
    db.register(producer, body).unwrap();
    let rows = Columns::new().with("strike", vec![100.0].into()).unwrap();
    let rows = rows.with("quote", vec![1.5].into()).unwrap();
    let mut batch = Batch::new();
    batch.put_slot("Market.Option", Date::from_ymd(2014, 6, 2).unwrap(), ["EU/RO", "EUR"], rows);
    db.commit(batch).unwrap();
    assert!(db.wait_idle(Duration::from_secs(60)));
    db.close().unwrap();
    place
}

/// Two slots, the second made from the first.
fn doubled() -> Place {
    let place = Place::new();
    let db = Database::open(place.db()).unwrap();
    for name in ["A", "B"] {
        let slot = SlotDefinition::new(name).cell_key("name", ColumnType::Utf8);
        db.define_slot(slot.value("n", ColumnType::I64)).unwrap();
    }
    let producer = ProducerDefinition::new("double").requires("A").provides("B");
    db.register(producer, |run| {
        let n = run.input("A")?.i64s("n").map_or(0, |n| n[0]);
        Ok(Outputs::new().put("B", Columns::new().with("n", vec![2 * n].into())?))
    })
    .unwrap();
    let mut batch = Batch::new();
    for name in ["x", "y"] {
        let rows = Columns::new().with("n", vec![21i64].into()).unwrap();
        batch.put_slot("A", Date::from_ymd(2014, 6, 2).unwrap(), [name], rows);
    }
    db.commit(batch).unwrap();
    assert!(db.wait_idle(Duration::from_secs(60)));
    db.close().unwrap();
    place
}

#[test]
fn the_dependency_tree_is_listed_with_what_was_read() {
    let place = doubled();
    let tree = place.json(words("slot tree B --format json"));
    let row = |one: u64, two: u64| serde_json::json!({"SID1": one, "SID2": two, "GENERATION": 1, "PRODUCER": "double", "INPUT": "A", "PRIORITY": 0});
    let sids: Vec<(u64, u64)> = tree
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["SID1"].as_u64().unwrap(), row["SID2"].as_u64().unwrap()))
        .collect();
    assert_eq!(sids.len(), 2);
    for (at, (one, two)) in sids.into_iter().enumerate() {
        assert!(one < 2 && two >= 2, "{tree}");
        assert_eq!(tree[at], row(one, two));
    }
    assert_eq!(place.csv(words("slot tree A --format csv")).len(), 1, "nothing makes A");
}

#[test]
fn cells_are_listed_and_read() {
    let place = chain();
    let slots = place.json(words("slot ls --format json"));
    assert_eq!((&slots[0]["slot"], &slots[0]["cells"]), (&"Market.Option".into(), &1.into()));
    assert_eq!(slots[0]["cell_keys"], "issuer utf8, ccy utf8");
    let cells = place.csv(words("slot show Market.Option --format csv"));
    assert_eq!(cells[0].join(","), "SLOT_NAME,DATE,SLOT_KEY,SID,SSTATUS,LAST_UPDATED,PRODUCER,PRIORITY,FILE");
    assert_eq!(cells[1][..4], ["Market.Option", "2014-06-02", "EU\\/RO/EUR", "0"]);
    assert_eq!(cells[1][6..8], ["client", "0"]);
    assert_eq!(place.csv(words("slot show Market.Option --date 2014-06-03 --format csv")).len(), 1);
    assert_eq!(place.csv(words("slot show Market.Option --state invalid --format csv")).len(), 1);
    let rows = place.json(words("slot get Market.Option 2014-06-02 EU\\/RO/EUR --format json"));
    assert_eq!(rows, serde_json::json!([{"strike": 100.0, "quote": 1.5}]));
}

/// The columns of a slot are no paths.
#[test]
fn cells_are_flat_whatever_their_columns_are_called() {
    let place = Place::new();
    let db = Database::open(place.db()).unwrap();
    db.define_slot(SlotDefinition::new("A").value("bid.price", ColumnType::F64)).unwrap();
    let rows = Columns::new().with("bid.price", vec![1.5].into()).unwrap();
    let mut batch = Batch::new();
    batch.put_slot("A", Date::from_ymd(2014, 6, 2).unwrap(), [] as [&str; 0], rows);
    db.commit(batch).unwrap();
    db.close().unwrap();
    let cell = place.json(words("slot get A 2014-06-02 --format json"));
    assert_eq!(cell, serde_json::json!([{"bid.price": 1.5}]));
    assert_eq!(place.json(words("slot rows A --format json"))[0]["bid.price"], 1.5);
}

/// The tables have the names and columns that programs know them by.
#[test]
fn tables_of_slots_and_producers_are_listed() {
    let place = chain();
    place.write("q.csv", "strike,quote\n90,2\n80,\n");
    let dry = place.csv(words("slot put Market.Option 2014-06-03 DE/USD q.csv --dry-run --format csv"));
    assert_eq!(dry[0].join(","), "WHAT,NAME,DATE,KEY,FROM,TO");
    assert_eq!(dry[1][..5], ["made", "Market.Option", "2014-06-03", "DE/USD", ""]);
    assert!(!place.ok(words("slot table Market.Option")).contains("2014-06-03"), "nothing was committed");
    place.ok(words("slot put Market.Option 2014-06-03 DE/USD q.csv"));
    let cells = place.csv(words("slot table --format csv"));
    assert_eq!(cells[0].join(","), "SLOT_NAME,DATE,SLOT_KEY,SID,SSTATUS,FILE");
    assert_eq!(cells[1][..4], ["Market.Option", "2014-06-02", "EU\\/RO/EUR", "0"]);
    let of_day = place.csv(words("slot table Market.Option --date 2014-06-03 --format csv"));
    assert_eq!((of_day.len(), &*of_day[1][3]), (2, "1"));
    assert_eq!(place.csv(words("slot table --state invalid --format csv")).len(), 1);

    let rows = place.csv(words("slot rows Market_Option --format csv"));
    assert_eq!(rows[0].join(","), "DATE,SID,LAST_UPDATED,PRODUCER,PRIORITY,issuer,ccy,strike,quote");
    let shown: Vec<String> = rows[1..].iter().map(|row| [&row[..2], &row[3..]].concat().join(",")).collect();
    let expected = [
        "2014-06-02,0,client,0,EU/RO,EUR,100.0,1.5",
        "2014-06-03,1,client,0,DE,USD,80.0,",
        "2014-06-03,1,client,0,DE,USD,90.0,2.0",
    ];
    assert_eq!(shown, expected);
    let rows = place.json(words("slot rows Market.Option --date 2014-06-02 --format json"));
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["strike"]), (1, &100.0.into()));

    let work = place.csv(["producer", "work", "fit \"it\"", "--format", "csv"]);
    let expected = [
        ["SID", "PSTATUS", "GENERATION", "DATE", "KEY"],
        ["0", "failed", "1", "2014-06-02", "EU\\/RO/EUR"],
        ["1", "notified", "1", "2014-06-03", "DE/USD"],
    ];
    assert_eq!(work, expected);
    let running = place.csv(words("producer running --format csv"));
    assert_eq!(running, [["PROD_NAME", "PID", "MACHINE", "START_TIME", "SID", "DATE", "KEY"]]);
    let tree = place.csv(words("slot tree --format csv"));
    assert_eq!(tree, [["SID1", "SID2", "GENERATION", "PRODUCER", "INPUT", "PRIORITY"]]);

    for line in ["slot table Nowhere", "slot tree Nowhere", "slot rows Nowhere"] {
        assert!(place.fails(words(line)).contains("ubctl slot ls"), "{line}");
    }
    for line in ["producer work nobody", "producer running nobody"] {
        assert!(place.fails(words(line)).contains("ubctl producer ls"), "{line}");
    }
}

#[test]
fn rows_of_a_file_are_put() {
    let place = chain();
    place.write("q.csv", "strike,quote\n90,2\n80,\n110,NA\n");
    place.ok(words("slot put Market.Option 2014-06-03 DE/USD q.csv --null NA"));
    let rows = place.csv(words("slot get Market.Option 20140603 DE/USD --format csv"));
    assert_eq!(rows, [["strike", "quote"], ["80.0", ""], ["90.0", "2.0"], ["110.0", ""]]);
    place.write("days.csv", "day\n2014-12-25\n");
    place.ok(words("slot put Market.Calendar 2014-06-03 days.csv"));
    assert_eq!(place.csv(words("slot get Market.Calendar 2014-06-03 --format csv"))[1], ["2014-12-25"]);
    place.write("bad.csv", "strike,quote\n90,2\nhigh,1\n");
    let error = place.fails(words("slot put Market.Option 2014-06-03 DE/USD bad.csv"));
    assert!(error.contains("bad.csv:3:1: column \"strike\": \"high\" is no f64"), "{error}");
    assert!(!error.contains("--columns"), "{error}");
    place.write("other.csv", "strike,bid\n90,2\n");
    let error = place.fails(words("slot put Market.Option 2014-06-03 DE/USD other.csv"));
    assert!(error.contains("no column \"bid\"") && error.contains("strike, quote"), "{error}");
}

#[test]
fn a_key_that_does_not_fit_is_explained() {
    let place = chain();
    let error = place.fails(words("slot put Market.Option 2014-06-02 q.csv"));
    assert!(error.contains("it has 0 values") && error.contains("issuer (utf8)/ccy (utf8)"), "{error}");
    assert!(place.fails(words("slot get Market.Option -- 2014-06-02 -x/y")).contains("slot why"));
    let error = place.fails(words("slot get Market.Option 2014-06-02 EUR"));
    assert!(error.contains("issuer (utf8)/ccy (utf8)"), "{error}");
    assert!(place.fails(words("slot get Market.Option 2014-06-02 x/y")).contains("slot why"));
    assert!(place.fails(words("slot get Nowhere 2014-06-02 x/y")).contains("ubctl slot ls"));
    assert_eq!(place.run(words("slot get Market.Option someday x/y")).code, 2);
    assert_eq!(place.run(words("slot show Market.Option --state bright")).code, 2);
}

#[test]
fn trees_explain_and_lead_on() {
    let place = chain();
    let why = place.ok(words("slot why Param.Smile 2014-06-02 EU\\/RO/EUR"));
    assert!(why.contains("no fit") && why.contains("└─ "), "{why}");
    let why = place.json(words("slot why Param.Smile 2014-06-02 EU\\/RO/EUR --format json"));
    let (work, failure) = (&why["children"][0], &why["children"][0]["children"][0]);
    assert_eq!(
        (&why["kind"], &why["slot"], &why["sid"]),
        (&"missing".into(), &"Param.Smile".into(), &Json::Null)
    );
    assert_eq!((&why["date"], &why["key"]), (&"2014-06-02".into(), &"EU\\/RO/EUR".into()));
    assert_eq!(
        (&work["kind"], &work["status"], &work["producer"]),
        (&"work".into(), &"failed".into(), &"fit \"it\"".into())
    );
    assert_eq!((&failure["kind"], failure["seq"].is_u64()), (&"ended".into(), true), "{failure}");
    let down = place.json(words("slot downstream Market.Option 2014-06-02 EU\\/RO/EUR --format json"));
    assert_eq!(
        (&down["slot"], &down["key"], &down["g"]),
        (&"Market.Option".into(), &"EU\\/RO/EUR".into(), &1.into())
    );
    let up = place.ok(words("slot upstream Market.Option 2014-06-02 EU\\/RO/EUR"));
    assert!(up.starts_with("Market.Option 2014-06-02 EU\\/RO/EUR: "), "{up}");
    assert!(place.fails(words("slot upstream Market.Option 2014-06-09 a/b")).contains("no cell"));
}

/// What was read, through which input, and what was left out.
#[test]
fn lineage_says_what_was_read_and_what_is_left_out() {
    let place = doubled();
    let up = place.json(words("slot upstream B 2014-06-02 x --format json"));
    let source = &up["children"][0];
    assert_eq!((&up["kind"], &up["mode"], &up["state"]), (&"cell".into(), &Json::Null, &"current".into()));
    let link = serde_json::json!(["A", "x", 1, 1, "double", "A", "required", "current", null]);
    let found = ["slot", "key", "g", "read", "producer", "input", "mode", "state", "run"]
        .map(|name| source[name].clone());
    assert_eq!(Json::from(found.to_vec()), link);
    assert!(up["seq"].as_u64() > source["seq"].as_u64() && source["seq"].is_u64());
    let text = place.ok(words("slot upstream B 2014-06-02 x"));
    assert_eq!(
        text,
        "B 2014-06-02 x: current, generation 1\n└─ A 2014-06-02 x: current, generation 1, generation 1 read by double\n"
    );
    let text = place.ok(words("slot downstream A 2014-06-02 x"));
    assert!(
        text.contains("└─ B 2014-06-02 x: current, generation 1, made by double from generation 1"),
        "{text}"
    );

    let cut = place.ok(words("slot downstream A 2014-06-02 x --depth 0"));
    assert_eq!(cut, "A 2014-06-02 x: current, generation 1\n└─ … 1 more\n");
    let cut = place.json(words("slot upstream B 2014-06-02 x --limit 0 --format json"));
    assert_eq!((&cut["more"], &cut["children"]), (&1.into(), &serde_json::json!([])));
    let cut = place.json(words("slot why B 2014-06-02 x --limit 0 --format json"));
    let more = &cut["children"][0]["children"][0];
    assert_eq!(
        (&more["kind"], &more["more"], &more["text"]),
        (&"more".into(), &1.into(), &"and 1 inputs more".into())
    );
    let cut = place.ok(words("slot why B 2014-06-02 x --depth 0"));
    assert_eq!(cut, "B 2014-06-02 x is current; deeper reasons are left out\n");
}

/// A shell has no producers: what it would have run, it says all the same.
#[test]
fn a_dry_run_says_what_detached_producers_would_do() {
    let place = doubled();
    place.write("n.csv", "n\n4\n");
    let dry = |name: &str| {
        let line = format!("slot put A 2014-06-02 {name} n.csv --dry-run --format csv");
        let rows = place.csv(line.split(' '));
        rows[1..].iter().map(|row| row.join(",")).collect::<Vec<_>>()
    };
    let x = ["changed,A,2014-06-02,x,current,updated", "state,B,2014-06-02,x,current,stale"];
    let runs = |name: &str| format!("runs,double,2014-06-02,{name},,");
    place.ok(words("slot put A 2014-06-02 z n.csv"));
    assert_eq!(dry("w"), ["made,A,2014-06-02,w,,updated".to_string(), runs("w")]);
    assert_eq!(dry("x"), [&x.map(String::from)[..], &[runs("x")]].concat(), "whatever else is due");
}

/// What a producer has to do, its work on one bundle, and why there is none.
#[test]
fn the_work_of_producers_is_explained() {
    let place = chain();
    place.write("q.csv", "strike,quote\n90,2\n");
    place.ok(words("slot put Market.Option 2014-06-03 DE/USD q.csv"));
    let why = place.json(["producer", "why", "fit \"it\"", "--format", "json"]);
    assert_eq!(why["text"], "producer fit \"it\" is detached: 1 notified, 1 failed");
    let statuses: Vec<_> =
        why["children"].as_array().unwrap().iter().map(|child| child["status"].clone()).collect();
    assert_eq!(statuses, ["failed", "notified"]);
    let cut = place.json(["producer", "why", "fit \"it\"", "--limit", "1", "--format", "json"]);
    assert_eq!(cut["children"][1]["text"], "and 1 bundles more");
    let one = place.ok(["producer", "why", "fit \"it\"", "2014-06-03", "DE/USD"]);
    assert!(one.contains("is notified") && one.contains("is detached; attach it"), "{one}");
    let none = place.ok(["producer", "why", "fit \"it\"", "2014-06-04", "DE/USD"]);
    assert!(
        none.contains("inputs are missing")
            && none.contains("Market.Option 2014-06-04 DE/USD was never made"),
        "{none}"
    );
    let error = place.fails(["producer", "why", "fit \"it\"", "2014-06-03", "DE"]);
    assert!(error.contains("issuer (utf8)/ccy (utf8)") && error.contains("producer"), "{error}");
    assert!(place.fails(words("producer why nobody")).contains("producer ls"));
}

/// What keys and reasons hold does not break lines, or reach the terminal as a command.
#[test]
fn trees_show_control_characters_and_do_not_obey_them() {
    let place = Place::new();
    let db = Database::open(place.db()).unwrap();
    for name in ["A", "B"] {
        db.define_slot(SlotDefinition::new(name).cell_key("name", ColumnType::Utf8)).unwrap();
    }
    let fit = ProducerDefinition::new("fit").requires("A").provides("B");
    db.register(fit, |_| Err::<Outputs, _>(Failure::fatal("no\n\u{1b}[31mfit"))).unwrap();
    let mut batch = Batch::new();
    batch.put_slot("A", Date::from_ymd(2014, 6, 2).unwrap(), ["a\nb\u{1b}[2J"], Columns::new());
    db.commit(batch).unwrap();
    assert!(db.wait_idle(Duration::from_secs(60)));
    db.close().unwrap();
    let key = "a\nb\u{1b}[2J";
    let why = place.ok(["slot", "why", "B", "2014-06-02", key]);
    assert!(why.contains(r"no\n\u{1b}[31mfit") && why.contains(r"a\nb\u{1b}[2J was never made"), "{why}");
    let tree = place.ok(["slot", "downstream", "A", "2014-06-02", key]);
    assert!(tree.starts_with(r"A 2014-06-02 a\nb\u{1b}[2J: current"), "{tree}");
    let error = place.fails(["producer", "force", "fit", "2014-06-03", key]);
    assert!(error.contains("has no bundle"), "{error}");
    assert!([why, tree, error].iter().all(|text| !text.contains('\u{1b}')));
}

#[test]
fn producers_and_their_runs_are_listed() {
    let place = chain();
    let all = place.json(words("producer ls --format json"));
    assert_eq!((&all[0]["producer"], &all[0]["failed"]), (&"fit \"it\"".into(), &1.into()));
    let runs = place.json(words("producer runs --format json"));
    assert_eq!((&runs[0]["outcome"], &runs[0]["error"]), (&"failed".into(), &"no fit".into()));
    assert_eq!(place.csv(["producer", "runs", "fit \"it\"", "-n", "1", "--format", "csv"]).len(), 2);
    assert!(place.fails(words("producer runs nobody")).contains("producer ls"));
}

#[test]
fn the_graph_is_drawn_in_three_forms() {
    let place = chain();
    let text = place.ok(words("producer graph"));
    assert!(text.contains("[Market.Option]") && text.contains("──▶ (fit \"it\")"), "{text}");
    assert!(text.contains("! no fit") && text.contains("1 failed") && !text.contains('\x1b'), "{text}");
    let dot = place.ok(words("producer graph --format dot"));
    assert!(
        dot.starts_with("digraph") && dot.contains("label=\"fit &quot;it&quot;\\n1 run\\n1 failed"),
        "{dot}"
    );
    assert_eq!(dot.matches(" -> ").count(), 2);
    place.ok(words("producer graph --format svg --output graph.svg"));
    let svg = place.read("graph.svg");
    assert!(
        svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("fit &quot;it&quot;"),
        "{svg}"
    );
    let bare = Place::new();
    assert!(bare.ok(words("producer graph")).contains("no slots"));
    assert!(bare.ok(words("producer graph --format svg")).ends_with("</svg>\n"));
}

#[test]
fn cells_are_drawn_in_three_forms() {
    let place = chain();
    let text = place.ok(words("producer graph --cells"));
    assert!(text.contains("[Market.Option] 2014-06-02  C 1\n"), "{text}");
    assert!(
        text.contains("I Param.Smile 2014-06-02 EU\\/RO/EUR: invalid") || text.contains("[Param.Smile]"),
        "{text}"
    );
    let svg = place.ok(words("producer graph --cells --slot Market.Option --date 2014-06-02 --format svg"));
    assert_eq!(svg.matches("<use ").count(), 1);
    assert!(svg.contains("Market.Option 2014-06-02 EU\\/RO/EUR: current"), "{svg}");
    let dot = place.ok(words("producer graph --cells --date 2014-06-03 --format dot"));
    assert!(dot.starts_with("digraph") && !dot.contains("port="), "{dot}");
    assert!(place.fails(words("producer graph --cells --slot Nowhere")).contains("ubctl slot ls"));
    assert_eq!(place.run(words("producer graph --slot Market.Option")).code, 2);
}

#[test]
fn what_is_done_by_command_is_shown_by_the_states() {
    let place = chain();
    let state = |slot: &str| place.csv(words(&format!("slot show {slot} --format csv")))[1][4].clone();
    let cell = "2014-06-02 EU\\/RO/EUR";
    place.ok(["producer", "force", "fit \"it\"", "2014-06-02", "EU\\/RO/EUR"]);
    let producers = place.json(words("producer ls --format json"));
    assert_eq!(producers[0]["notified"], 1, "{producers}");
    let cancel = ["producer", "cancel", "fit \"it\"", "2014-06-02", "EU\\/RO/EUR", "--reason", "late"];
    place.ok(cancel);
    assert_eq!(place.json(words("producer ls --format json"))[0]["cancelled"], 1);
    let error = place.fails(cancel);
    assert!(error.contains("nothing to cancel"), "{error}");
    place.ok(words(&format!("slot retract Market.Option {cell}")));
    assert_eq!(state("Market.Option"), "void");
    let error = place.fails(words(&format!("slot retract Market.Option {cell} --priority 3")));
    assert!(error.contains("nothing at priority 3"), "{error}");
    place.ok(["producer", "deregister", "fit \"it\""]);
    assert_eq!(place.json(words("producer ls --format json")), serde_json::json!([]));
    let error = place.fails(["producer", "deregister", "fit \"it\""]);
    assert!(error.contains("is not registered"), "{error}");
}
