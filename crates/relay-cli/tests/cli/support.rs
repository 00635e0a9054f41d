//! A relay over a store in memory, and the program as a process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use relay_core::Limits;
use relay_http::{Options, Transport, testing};
use serde_json::Value;

/// What the program has done.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The objects on standard output, one in each line.
    pub(crate) fn objects(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A relay in this process. Returns its address.
pub(crate) fn relay(limits: Limits) -> String {
    let options = Options { limits, ..testing::options() };
    format!("http://{}", testing::start(Transport::Plain, options).unwrap())
}

/// A relay of a script, which says the status and the body for each path. It takes one request from
/// each connection.
pub(crate) fn scripted(answer: impl Fn(&str) -> (u16, Value) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || respond(stream.unwrap(), &*answer));
        }
    });
    url
}

fn respond(mut stream: TcpStream, answer: &dyn Fn(&str) -> (u16, Value)) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut line, mut len) = (String::new(), 0);
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    while !line.trim_end().is_empty() {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.strip_prefix("content-length: ") {
            len = value.trim_end().parse().ok()?;
        }
    }
    reader.read_exact(&mut vec![0; len]).ok()?;
    let (status, body) = answer(&path);
    let (body, head) = (body.to_string(), format!("HTTP/1.1 {status} -\r\nconnection: close\r\n"));
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).ok()
}

/// The program with these arguments, and with no settings of the caller.
pub(crate) fn command(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay-cli"));
    for name in ["RECIPIENT", "SECRET", "KEY", "AUDIENCE", "TOKEN", "SEND_SECRET"] {
        command.env_remove(format!("RELAY_{name}"));
    }
    command.env("RELAY_URL", url).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub(crate) fn run(url: &str, arguments: &[&str]) -> Ended {
    run_with(command(url, arguments), b"")
}

/// Runs the program and says that it succeeds.
pub(crate) fn succeeds(url: &str, arguments: &[&str]) -> Ended {
    let ended = run(url, arguments);
    assert_eq!((ended.code, &*ended.stderr), (0, ""), "{arguments:?}: {ended:?}");
    ended
}

/// Runs a command with this on its standard input.
pub(crate) fn run_with(mut command: Command, input: &[u8]) -> Ended {
    let mut child = command.spawn().unwrap();
    // It may end without reading.
    drop(child.stdin.take().unwrap().write_all(input));
    end(child)
}

/// Waits for the end of the program.
pub(crate) fn end(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
