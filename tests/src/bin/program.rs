//! The program of producers in tests of processes: `program MODE [FOLDER [SOCKET]]` turns slot A into slot B, each number doubled, or
//! does not, as the mode says.

use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use underbelly_protocol::message::{
    Complaint, Goodbye, Hello, Log, Message, Outcome, OutputCell, PutModel, Results, Run as RunMessage,
    RunResult, Span,
};
use underbelly_protocol::{Connection, Receiver, Sender, VERSION, frame};
use underbelly_worker::remote::{Accepted, Cells, Daemon, Producer};
use underbelly_worker::{
    Columns, Date, Definition, Failure, Metadata, Outputs, Run, Timestamp, Value, serve, serve_batch,
};

type Done = Result<(), Box<dyn Error>>;

fn name(run: &Run) -> String {
    run.key("name").map(ToString::to_string).unwrap_or_default()
}

fn rows(n: i64) -> Result<Columns, Failure> {
    Ok(Columns::new().with("n", vec![n].into())?)
}

fn number(run: &Run) -> Result<i64, Failure> {
    let rows = run.input("A")?;
    let numbers = rows.i64s("n").unwrap_or_default();
    numbers.first().copied().ok_or_else(|| Failure::fatal("no number"))
}

fn twice(run: &Run) -> Result<Outputs, Failure> {
    let n = number(run)?;
    eprintln!("doubling {n}");
    println!("this is for nobody");
    Ok(Outputs::new().put("B", rows(2 * n)?))
}

/// What it comes to is in the name.
fn kinds(run: &Run) -> Result<Outputs, Failure> {
    match name(run).as_str() {
        "declined" => Err(Failure::declined("nothing to do")),
        "retry" if run.attempts() < 1 => Err(Failure::retry("the line is down")),
        "fatal" => Err(Failure::fatal("no such thing")),
        "panic" => panic!("at the disco"),
        "error" => Ok(Outputs::new().fail("B", "half of it is missing")),
        "absent" => Ok(Outputs::new()),
        // More than a message takes.
        "long" => Ok(Outputs::new().fail("B", "x".repeat(17 << 20))),
        "verbose" => Err(Failure::declined("ü".repeat(9 << 20))),
        "other" => Ok(Outputs::new().put("C", rows(1)?)),
        "type" => Ok(Outputs::new().put("B", Columns::new().with("n", vec![0.5f64].into())?)),
        _ => twice(run),
    }
}

fn batch(runs: &[Run]) -> Result<Vec<Result<Outputs, Failure>>, Failure> {
    if runs.iter().any(|run| name(run) == "poison") {
        eprintln!("cannot digest this");
        process::exit(3);
    }
    Ok(runs.iter().map(twice).collect())
}

/// Starts another program, which reads its standard input to the end.
fn inherit(run: &Run) -> Result<Outputs, Failure> {
    let read = Command::new("cat").stdout(Stdio::null()).status();
    let read = read.map_err(|error| Failure::fatal(error.to_string()))?;
    if read.success() { twice(run) } else { Err(Failure::fatal(read.to_string())) }
}

/// Dies the first time.
fn once(run: &Run, folder: &Path) -> Result<Outputs, Failure> {
    let mark = folder.join(name(run));
    if !mark.exists() {
        fs::write(mark, "").map_err(|error| Failure::fatal(error.to_string()))?;
        let _ = kill_process(getpid(), Signal::KILL);
    }
    twice(run)
}

/// Waits for a file; leaves its own number behind.
fn slow(run: &Run, folder: &Path) -> Result<Outputs, Failure> {
    let file = folder.join(format!("{}.pid", process::id()));
    fs::write(file, "").map_err(|error| Failure::fatal(error.to_string()))?;
    while !folder.join("go").exists() {
        if run.is_cancelled() {
            let _ = fs::write(folder.join("cancelled"), "");
            return Err(Failure::fatal("was cancelled"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    twice(run)
}

/// Makes a model of slot M and a cell of slot B; or what is none, as the name says.
fn train(run: &Run) -> Result<Outputs, Failure> {
    let (name, n) = (name(run), number(run)?);
    let Value::Date(Date(day)) = *run.date() else { return Err(Failure::fatal("no day")) };
    let at = Timestamp(i64::from(day) * 86_400_000_000_000 + 5);
    let entries = format!(r#""name": "{name}", "of": "{name}", "depth": 3, "rate": 0.5"#);
    let of_type = |model_type: &str| format!(r#"{{"type": "{model_type}", {entries}}}"#);
    let timed = |json: String| Metadata::json(json).instant("timestamp", at);
    let cell = Outputs::new().put("B", rows(n)?);
    Ok(match name.as_str() {
        "list" => cell.put_model(timed("[1]".to_string()), []),
        "nameless" => cell.put_model(timed(r#"{"type": "M"}"#.to_string()), []),
        "timeless" => cell.put_model(Metadata::json(of_type("M")), []),
        "typeless" => cell.put_model(timed(format!("{{{entries}}}")), []),
        "double" => cell.put_model(timed(of_type("M")).instant("depth", at), []),
        "other" => cell.put_model(timed(of_type("N")), []),
        "cells" => cell.put_model(timed(of_type("B")), []),
        "rows" => cell.put("M", Columns::new().with("model", ["x"].into_iter().collect())?),
        "half" => Outputs::new()
            .put("B", Columns::new().with("n", vec![0.5f64].into())?)
            .put_model(timed(of_type("M")), [1]),
        "fail" => cell.fail("M", "it diverges"),
        _ => cell.put_model(timed(of_type("M")), n.to_le_bytes()),
    })
}

/// Multiplies by what the model of slot M holds. With a folder, it waits for a file there once it was called.
fn score(run: &Run, folder: &Path) -> Result<Outputs, Failure> {
    if !folder.as_os_str().is_empty() {
        let _ = fs::write(folder.join("called"), "");
        while !folder.join("go").exists() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let model = run.model("M")?;
    let by = i64::from_le_bytes(model.blob().try_into().map_err(|_| Failure::fatal("not eight bytes"))?);
    eprintln!(
        "version {} holds {by}: {} {:?}",
        model.version(),
        model.metadata().json,
        model.metadata().instants
    );
    Ok(Outputs::new().put("B", rows(number(run)? * by)?))
}

/// Connects to an engine, as a producer that waits for a file.
fn remote(folder: &Path, socket: &str) -> Done {
    let (soon, patience) = (Duration::from_millis(1), Duration::from_secs(60));
    let definition = Definition::new("twice").requires("A").provides("B");
    let definition = definition.lease(Duration::from_secs(600)).retry(3, soon, soon);
    Ok(Producer::connect(socket, definition, patience)?.serve(|run| slow(run, folder))?)
}

/// A daemon that counts up, from behind the last number that was accepted. It dies in the middle of each fifth, leaves at 23, and
/// notes each start.
fn daemon(folder: &Path) -> Done {
    fs::write(folder.join(format!("{}.pid", process::id())), "")?;
    let mut daemon = Daemon::supervised()?;
    println!("counting from {:?}", daemon.last());
    for number in daemon.last().unwrap_or(0) + 1..=23 {
        let key = [("name", format!("n{number}"))];
        let cells =
            Cells::new().put("A", Date::parse("2024-01-02").ok_or("no date")?, key, rows(number as i64)?);
        let accepted = daemon.commit_once(number, &cells)?;
        if daemon.commit_once(number, &cells)? != Accepted::Before {
            return Err("it was committed twice".into());
        }
        if number % 5 == 0 && matches!(accepted, Accepted::Now(_)) {
            eprintln!("dying at {number}");
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
    while !folder.join("go").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(daemon.close()?)
}

/// A daemon that has something to do when it has left.
fn farewell(folder: &Path) -> Done {
    let daemon = Daemon::supervised()?;
    fs::write(folder.join(format!("{}.pid", process::id())), "")?;
    daemon.close()?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(fs::write(folder.join("after"), "")?)
}

/// Writes much to standard error before it has read its run.
fn loud() -> Done {
    let Raw { mut receiver, mut sender } = raw()?;
    receiver.input().fill_buf()?;
    io::stderr().write_all(&vec![b'x'; 1 << 20])?;
    let run = receive(&mut receiver)?;
    sender.send(&Message::Results(result(&run, None)))?;
    let _ = receiver.receive();
    Ok(())
}

type Raw = Connection<BufReader<io::Stdin>, io::Stdout>;

/// A connection that has said hello and was welcomed.
fn raw() -> Result<Raw, Box<dyn Error>> {
    let mut raw = Connection::new(BufReader::new(io::stdin()), io::stdout());
    raw.sender.send(&Message::Hello(Hello { protocol: VERSION, ..Hello::default() }))?;
    let (welcome, _) = raw.receiver.receive()?;
    match welcome {
        Message::Welcome(_) => Ok(raw),
        other => Err(format!("{other:?} instead of a welcome").into()),
    }
}

/// The next batch; the end where there is none.
fn receive(receiver: &mut Receiver<BufReader<io::Stdin>>) -> Result<RunMessage, Box<dyn Error>> {
    match receiver.receive()? {
        (Message::Run(run), _) => Ok(run),
        _ => process::exit(0),
    }
}

fn result(run: &RunMessage, rows: Option<Span>) -> Results {
    let slot = "B".to_string();
    let outputs = vec![OutputCell { slot, rows, ..OutputCell::default() }];
    let pid = run.runs.first().map_or(0, |run| run.pid);
    let result = RunResult { pid, outcome: Outcome::Completed, outputs, ..RunResult::default() };
    Results { batch: run.batch, epoch: run.epoch, results: vec![result] }
}

/// What no program should say.
fn nonsense(kind: &str) -> Done {
    let Raw { mut receiver, mut sender } = raw()?;
    let run = receive(&mut receiver)?;
    let right = result(&run, None);
    let out = |sender: &mut Sender<io::Stdout>, bytes: &[u8]| -> Done {
        sender.output().write_all(bytes)?;
        Ok(sender.output().flush()?)
    };
    match kind {
        "text" => out(&mut sender, b"Traceback (most recent call last):\n  File \"vol.py\"\n")?,
        "long" => out(&mut sender, &[&frame::MAGIC[..], &[0xff; 12]].concat())?,
        "short" => {
            out(&mut sender, &[&frame::MAGIC[..], &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]].concat())?;
            return Ok(());
        }
        "cbor" => frame::write(sender.output(), &[0xff, 0xff], &[])?,
        "run" => {
            let mut wrong = right;
            wrong.results.iter_mut().for_each(|result| result.pid += 77);
            sender.send(&Message::Results(wrong))?;
        }
        "epoch" => sender.send(&Message::Results(Results { epoch: right.epoch + 1, ..right }))?,
        "place" => sender.send(&Message::Hello(Hello::default()))?,
        "arrow" => {
            let wrong = result(&run, Some(Span { at: 0, bytes: 9 }));
            sender.send_with(&Message::Results(wrong), b"not arrow")?;
        }
        "span" => {
            let wrong = result(&run, Some(Span { at: u64::MAX, bytes: 9 }));
            sender.send_with(&Message::Results(wrong), b"not there")?;
        }
        "share" => {
            let mut wrong = result(&run, Some(Span { at: 0, bytes: 9 }));
            let outputs = &mut wrong.results[0].outputs;
            outputs.push(outputs[0].clone());
            sender.send_with(&Message::Results(wrong), b"not arrow")?;
        }
        "blob" => {
            let blob = Span { at: u64::MAX, bytes: 9 };
            let mut wrong = right;
            wrong.results[0].models = vec![PutModel { metadata: Metadata::json("{}"), blob }];
            sender.send_with(&Message::Results(wrong), b"not there")?;
        }
        "shared blob" => {
            let blob = Span { at: 0, bytes: 9 };
            let mut wrong = right;
            wrong.results[0].models = vec![PutModel { metadata: Metadata::json("{}"), blob }; 2];
            sender.send_with(&Message::Results(wrong), b"one of it")?;
        }
        "complaint" => {
            let message = "it is too heavy".to_string();
            sender.send(&Message::Complaint(Complaint {
                about: "run".to_string(),
                message,
                ..Complaint::default()
            }))?;
        }
        other => return Err(format!("no nonsense {other:?}").into()),
    }
    // What is wrong with it ends it.
    let _ = receiver.receive();
    Ok(())
}

/// Says what this version does not know, and lines for the log; leaves by itself after a batch.
fn strange() -> Done {
    let Raw { mut receiver, mut sender } = raw()?;
    let run = receive(&mut receiver)?;
    sender.send(&Message::Unknown("dance".to_string()))?;
    match receiver.receive()? {
        (Message::Complaint(complaint), _) if complaint.about == "dance" => {}
        other => return Err(format!("{other:?}").into()),
    }
    sender.send(&Message::Log(Log { line: "a line for the log".to_string() }))?;
    sender.send(&Message::Results(result(&run, None)))?;
    sender.send(&Message::Goodbye(Goodbye { reason: "that was enough".to_string(), leave: false }))?;
    Ok(())
}

fn main() -> Done {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_default();
    let argument = args.next().unwrap_or_default();
    let folder = PathBuf::from(&argument);
    match mode.as_str() {
        "twice" => serve(twice)?,
        "kinds" => serve(kinds)?,
        "batch" => serve_batch(batch)?,
        "inherit" => serve(inherit)?,
        "once" => serve(|run| once(run, &folder))?,
        "slow" => serve(|run| slow(run, &folder))?,
        "train" => serve(train)?,
        "score" => serve(|run| score(run, &folder))?,
        "remote" => remote(&folder, &args.next().unwrap_or_default())?,
        "nonsense" => nonsense(&argument)?,
        "strange" => strange()?,
        "hung" => {
            let Raw { mut receiver, .. } = raw()?;
            receive(&mut receiver)?;
            std::thread::sleep(Duration::from_secs(3600));
        }
        "daemon" => daemon(&folder)?,
        "farewell" => farewell(&folder)?,
        "loud" => loud()?,
        // It never stops talking.
        "chatter" => {
            let Raw { mut receiver, mut sender } = raw()?;
            receive(&mut receiver)?;
            loop {
                sender.send(&Message::Log(Log { line: "on and on".to_string() }))?;
            }
        }
        "noise" => {
            let Raw { mut receiver, .. } = raw()?;
            receive(&mut receiver)?;
            loop {
                io::stderr().write_all(&[b'x'; 4096])?;
            }
        }
        "mute" => std::thread::sleep(Duration::from_secs(3600)),
        "crash" => {
            eprintln!("no module named pyarrow");
            process::exit(7);
        }
        other => return Err(format!("no mode {other:?}").into()),
    }
    Ok(())
}
