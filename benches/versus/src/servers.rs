//! Servers on loopback to compare with: started in a folder of their own, spoken to over plain sockets, ended with their handle.
//!
//! Each client says no more than the comparisons need, so that what is measured is the server and not a library.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use underbelly_benches::Failed;

const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that are sent by themselves.
const LONG_BYTES: usize = 64 << 10;

/// A server that runs as long as this lives.
pub struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of this name, where it is installed.
fn find(name: &str, more: &[&str]) -> Result<PathBuf, Failed> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/usr/local/bin"]).chain(more.iter().copied());
    let found = places.map(|place| Path::new(place).join(name)).find(|program| program.is_file());
    found.ok_or_else(|| format!("{name} is not installed").into())
}

fn free_port() -> Result<u16, Failed> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn start(command: &mut Command, port: u16) -> Result<Server, Failed> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut server = Server { child, port };
    let began = Instant::now();
    while server.connect().is_err() {
        if let Some(status) = server.child.try_wait()? {
            return Err(format!("it ended at once: {status}").into());
        }
        if began.elapsed() > PATIENCE {
            return Err("it does not answer".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

impl Server {
    fn connect(&self) -> Result<TcpStream, Failed> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// Redis, with its log synced at each command or each second.
pub fn redis(folder: &Path, synced: bool) -> Result<Server, Failed> {
    let (program, port) = (find("redis-server", &[])?, free_port()?);
    fs::create_dir_all(folder)?;
    let mut command = Command::new(program);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
    // A gibibyte is longer than what it takes by itself.
    command.args(["--proto-max-bulk-len", "4gb", "--client-query-buffer-limit", "4gb"]);
    command.args(["--appendfsync", if synced { "always" } else { "everysec" }]).arg("--dir").arg(folder);
    start(&mut command, port)
}

/// NATS with JetStream in files. Its version 2.9 syncs those every two minutes and cannot do so before it answers.
pub fn nats(folder: &Path) -> Result<Server, Failed> {
    let (program, port) = (find("nats-server", &[])?, free_port()?);
    fs::create_dir_all(folder)?;
    let mut command = Command::new(program);
    command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(folder);
    start(&mut command, port)
}

/// PostgreSQL. It will not run as root, and runs as the user `postgres` then.
pub fn postgres(folder: &Path) -> Result<Server, Failed> {
    let newest = |mut versions: Vec<PathBuf>| {
        versions.sort();
        versions.pop()
    };
    let versions =
        fs::read_dir("/usr/lib/postgresql").map(|all| all.flatten().map(|one| one.path()).collect());
    let bin = newest(versions.unwrap_or_default()).map(|version| version.join("bin"));
    let bin = bin.filter(|bin| bin.join("initdb").is_file()).ok_or("postgresql is not installed")?;
    let port = free_port()?;
    fs::create_dir_all(folder)?;
    let owner = owner()?;
    if let Some((user, group)) = owner {
        chown(folder, Some(user), Some(group))?;
    }
    let command = |name: &str| {
        let mut command = Command::new(bin.join(name));
        if let Some((user, group)) = owner {
            command.uid(user).gid(group);
        }
        command.current_dir(folder);
        command
    };
    let data = folder.join("data");
    let made =
        command("initdb").args(["-A", "trust", "-U", "postgres", "--no-sync", "-D"]).arg(&data).output()?;
    if !made.status.success() {
        return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr).trim()).into());
    }
    let mut serve = command("postgres");
    serve.args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""]).arg("-D").arg(&data);
    start(&mut serve, port)
}

/// User and group of `postgres`, where this process is root.
fn owner() -> Result<Option<(u32, u32)>, Failed> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let user = users.lines().find(|line| line.starts_with("postgres:")).ok_or("there is no user postgres")?;
    let mut numbers = user.split(':').skip(2);
    let mut number = || Some(numbers.next()?.parse().ok()?);
    Ok(Some(number().zip(number()).ok_or("the user postgres has no number")?))
}

/// A connection to Redis.
pub struct Redis(BufReader<TcpStream>);

/// What Redis answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Text or bytes; empty where there is nothing.
    Text(String),
    /// A number.
    Number(i64),
    /// Several.
    Many(Vec<Reply>),
}

impl Reply {
    /// The texts in it, in order.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Reply::Text(text) => vec![text],
            Reply::Number(_) => Vec::new(),
            Reply::Many(replies) => replies.iter().flat_map(Reply::texts).collect(),
        }
    }
}

impl Redis {
    /// Connects.
    pub fn connect(server: &Server) -> Result<Redis, Failed> {
        Ok(Redis(BufReader::new(server.connect()?)))
    }

    /// The bytes of a command.
    pub fn encode(parts: &[&str], out: &mut Vec<u8>) {
        out.extend(format!("*{}\r\n", parts.len()).bytes());
        parts.iter().for_each(|part| out.extend(format!("${}\r\n{part}\r\n", part.len()).bytes()));
    }

    /// Sends a command and takes its answer.
    pub fn ask(&mut self, parts: &[&str]) -> Result<Reply, Failed> {
        let mut bytes = Vec::new();
        Redis::encode(parts, &mut bytes);
        self.send(&bytes)?;
        self.receive()
    }

    /// Sends a command of bytes and takes the bytes of its answer; none where there is nothing.
    pub fn ask_bytes(&mut self, parts: &[&[u8]]) -> Result<Vec<u8>, Failed> {
        let mut head = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            head.extend(format!("${}\r\n", part.len()).bytes());
            // What is long is not copied together.
            if part.len() > LONG_BYTES {
                self.send(&head)?;
                self.send(part)?;
                head.clear();
            } else {
                head.extend_from_slice(part);
            }
            head.extend(b"\r\n");
        }
        self.send(&head)?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or("redis closed the connection")?;
        match (kind, rest.parse::<usize>()) {
            ("$", Ok(length)) => {
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(bytes)
            }
            ("+" | ":" | "$", _) => Ok(Vec::new()),
            _ => Err(format!("redis: {line}").into()),
        }
    }

    /// Sends commands.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        Ok(self.0.get_mut().write_all(bytes)?)
    }

    /// The next answer.
    pub fn receive(&mut self) -> Result<Reply, Failed> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or("redis closed the connection")?;
        match kind {
            "+" => Ok(Reply::Text(rest.to_string())),
            ":" => Ok(Reply::Number(rest.parse()?)),
            "$" => {
                let Ok(length) = usize::try_from(rest.parse::<i64>()?) else {
                    return Ok(Reply::Text(String::new()));
                };
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(Reply::Text(String::from_utf8(bytes)?))
            }
            "*" => {
                let count = rest.parse::<i64>()?.max(0);
                Ok(Reply::Many((0..count).map(|_| self.receive()).collect::<Result<_, _>>()?))
            }
            _ => Err(format!("redis: {line}").into()),
        }
    }
}

/// A connection to NATS.
pub struct Nats(BufReader<TcpStream>);

impl Nats {
    /// Connects.
    pub fn connect(server: &Server) -> Result<Nats, Failed> {
        let mut nats = Nats(BufReader::new(server.connect()?));
        let mut info = String::new();
        nats.0.read_line(&mut info)?;
        nats.send("CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\nPING\r\n")?;
        let mut pong = String::new();
        nats.0.read_line(&mut pong)?;
        if pong.trim() == "PONG" { Ok(nats) } else { Err(format!("nats: {pong}").into()) }
    }

    fn send(&mut self, text: &str) -> Result<(), Failed> {
        Ok(self.0.get_mut().write_all(text.as_bytes())?)
    }

    /// Hears what comes on a subject.
    pub fn subscribe(&mut self, subject: &str, number: u32) -> Result<(), Failed> {
        self.send(&format!("SUB {subject} {number}\r\n"))
    }

    /// Publishes, with a subject for the answer.
    pub fn publish(&mut self, subject: &str, reply: &str, payload: &str) -> Result<(), Failed> {
        self.send(&format!("PUB {subject} {reply} {}\r\n{payload}\r\n", payload.len()))
    }

    /// The payload of the next message.
    pub fn receive(&mut self) -> Result<String, Failed> {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            let line = line.trim_end();
            let words: Vec<&str> = line.split(' ').collect();
            match words.first() {
                Some(&"MSG" | &"HMSG") => {
                    let length: usize = words.last().ok_or("nats: no length")?.parse()?;
                    let mut bytes = vec![0; length + 2];
                    self.0.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    return Ok(String::from_utf8(bytes)?);
                }
                Some(&"PING") => self.send("PONG\r\n")?,
                Some(&"+OK" | &"PONG" | &"INFO") => {}
                _ => return Err(format!("nats: {line:?}").into()),
            }
        }
    }

    /// Asks the server's own interface of JetStream, on the inbox that was subscribed.
    pub fn ask(&mut self, subject: &str, inbox: &str, body: &str) -> Result<String, Failed> {
        self.publish(subject, inbox, body)?;
        let answer = self.receive()?;
        if answer.contains("\"error\"") { Err(format!("nats: {answer}").into()) } else { Ok(answer) }
    }
}

/// A connection to PostgreSQL, in the simple form of its protocol.
pub struct Postgres(BufReader<TcpStream>);

impl Postgres {
    /// Connects.
    pub fn connect(server: &Server) -> Result<Postgres, Failed> {
        let began = Instant::now();
        loop {
            let mut postgres = Postgres(BufReader::new(server.connect()?));
            let mut body = 196_608u32.to_be_bytes().to_vec();
            body.extend(b"user\0postgres\0database\0postgres\0\0");
            let mut message = (body.len() as u32 + 4).to_be_bytes().to_vec();
            message.extend(body);
            postgres.0.get_mut().write_all(&message)?;
            match postgres.ready() {
                Ok(_) => return Ok(postgres),
                // It listens before it is ready.
                Err(_) if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(error),
            }
        }
    }

    fn message(&mut self) -> Result<(u8, Vec<u8>), Failed> {
        let mut head = [0; 5];
        self.0.read_exact(&mut head)?;
        let [kind, a, b, c, d] = head;
        let length = u32::from_be_bytes([a, b, c, d]).saturating_sub(4);
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body)?;
        if kind == b'E' {
            let text = String::from_utf8_lossy(&body).replace('\0', " ");
            return Err(format!("postgres: {text}").into());
        }
        Ok((kind, body))
    }

    /// Reads until it is ready for the next query; how many rows came.
    fn ready(&mut self) -> Result<usize, Failed> {
        let mut rows = 0;
        loop {
            match self.message()?.0 {
                b'Z' => return Ok(rows),
                b'D' => rows += 1,
                _ => {}
            }
        }
    }

    /// Runs statements as one transaction; how many rows came.
    pub fn query(&mut self, sql: &str) -> Result<usize, Failed> {
        let mut message = vec![b'Q'];
        message.extend((sql.len() as u32 + 5).to_be_bytes());
        message.extend(sql.bytes());
        message.push(0);
        self.0.get_mut().write_all(&message)?;
        self.ready()
    }

    /// Waits for the next notification.
    pub fn notified(&mut self) -> Result<(), Failed> {
        while self.message()?.0 != b'A' {}
        Ok(())
    }
}
