//! Asks the running relay on its control socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::CommandError;
use crate::config::RelayConfig;
use crate::control::{self, Line, Progress, Request, VERSION};

/// The longest silence of a relay that works: it says something every ten seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The longest line of a response.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// A connection to the running relay.
pub(super) struct RunningRelay {
    stream: UnixStream,
    socket: PathBuf,
}

/// What a relay sends before the end of its response.
pub(super) enum Part {
    Progress(Progress),
    Row(Value),
}

impl RunningRelay {
    /// Connects to the relay of this configuration. It must be one of the user of this command, of
    /// the owner of the directory of the socket, or of root.
    pub(super) fn connect(config: &RelayConfig) -> Result<Self, CommandError> {
        let kind = config.storage.kind.name();
        let socket = control::path(config).ok_or(CommandError::NoSocket { kind })?;
        let no_response = |source| CommandError::NoRelay { path: socket.clone(), source };
        let stream = UnixStream::connect(&socket).map_err(no_response)?;
        stream.set_read_timeout(Some(SILENCE_MAX)).map_err(no_response)?;
        if !is_trusted(&stream, &socket).map_err(no_response)? {
            return Err(CommandError::UntrustedSocket { path: socket });
        }
        Ok(Self { stream, socket })
    }

    /// Runs a command with these arguments, which must be those of an object or `()`.
    pub(super) fn ask<T: DeserializeOwned>(
        self,
        command: &str,
        arguments: &impl Serialize,
        mut watch: impl FnMut(Part),
    ) -> Result<T, CommandError> {
        let failed = |source| CommandError::NoRelay { path: self.socket.clone(), source };
        match send(&self.stream, command, arguments) {
            // A relay that is busy says so without reading the request.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            sent => sent.map_err(failed)?,
        }
        let mut reader = BufReader::new(&self.stream);
        loop {
            match read_line(&mut reader).map_err(failed)? {
                None => {}
                Some(Line::Progress(progress)) => watch(Part::Progress(progress)),
                Some(Line::Row(row)) => watch(Part::Row(row)),
                Some(Line::Done(result)) => {
                    return serde_json::from_value(result).map_err(|error| failed(error.into()));
                }
                Some(Line::Error(refusal)) => return Err(CommandError::Relay(refusal)),
            }
        }
    }
}

fn send(mut stream: &UnixStream, command: &str, arguments: &impl Serialize) -> io::Result<()> {
    let arguments = match serde_json::to_value(arguments)? {
        Value::Object(arguments) => arguments,
        _ => Map::new(),
    };
    let request = Request { version: VERSION, command: command.to_owned(), arguments };
    stream.write_all((serde_json::to_string(&request)? + "\n").as_bytes())
}

/// Reads a line. `None` for a sign of life.
fn read_line(reader: &mut BufReader<&UnixStream>) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    })?;
    match line.as_slice() {
        b"\n" => Ok(None),
        [.., b'\n'] => Ok(Some(serde_json::from_slice(&line)?)),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it disconnected before the end")),
    }
}

/// If other users can change the directory, they can replace the socket. So the process that
/// listens must be one of root, of the user of this command, or of the owner of the directory.
fn is_trusted(stream: &UnixStream, socket: &Path) -> io::Result<bool> {
    let listener = socket_peercred(stream)?.uid;
    let directory = socket.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    Ok(listener.is_root() || listener == geteuid() || listener.as_raw() == directory.metadata()?.uid())
}
