//! Listening sockets that the service manager has opened and passes to the program, as
//! sd_listen_fds(3) of systemd specifies. They are taken once, before the program has threads.

use std::io;

use listenfd::ListenFd;
use relay_http::ListeningSocket;
use rustix::net::sockopt::socket_acceptconn;

const NUMBER_VARIABLE: &str = "LISTEN_FDS";
const PROCESS_VARIABLE: &str = "LISTEN_PID";
const NAMES_VARIABLE: &str = "LISTEN_FDNAMES";
/// Not of systemd, but the library reads it.
const FIRST_VARIABLE: &str = "LISTEN_FDS_FIRST_FD";

/// The most sockets that are taken.
const SOCKETS_MAX: usize = 64;

/// The first descriptor.
const FIRST: usize = 3;

/// The sockets, with their names, until the relay takes them.
#[derive(Debug, Default)]
pub(crate) struct PassedSockets(Vec<(String, ListeningSocket)>);

impl PassedSockets {
    /// Takes the sockets that are meant for this process, and removes the variables, so that no
    /// child takes them again.
    ///
    /// # Errors
    /// What is wrong with a variable or a socket.
    pub(crate) fn from_environment(variables: &[(String, String)]) -> io::Result<Self> {
        let value = |name| variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        let Some((number, process)) = value(NUMBER_VARIABLE).zip(value(PROCESS_VARIABLE)) else {
            return Ok(Self::default());
        };
        let process: u32 = process.parse().map_err(|_| invalid(PROCESS_VARIABLE, "is no process id"))?;
        if process != std::process::id() {
            // They are for a parent of this process.
            return Ok(Self::default());
        }
        let number = number.parse().ok().filter(|number| *number <= SOCKETS_MAX);
        let number = number.ok_or_else(|| invalid(NUMBER_VARIABLE, "is no number of at most 64 sockets"))?;
        if value(FIRST_VARIABLE).is_some() {
            return Err(invalid(FIRST_VARIABLE, "is not supported"));
        }
        let names: Vec<&str> = match value(NAMES_VARIABLE) {
            Some(names) if !names.is_empty() => names.split(':').collect(),
            _ => vec!["unknown"; number],
        };
        if names.len() != number {
            return Err(invalid(NAMES_VARIABLE, "has not as many names as there are sockets"));
        }
        let mut passed = ListenFd::from_env();
        let sockets = names.into_iter().enumerate();
        sockets
            .map(|(index, name)| Ok((name.to_owned(), take(&mut passed, index)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Takes all sockets with this name.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn take(&mut self, name: &str) -> io::Result<Vec<ListeningSocket>> {
        let (found, others) = std::mem::take(&mut self.0).into_iter().partition(|(other, _)| other == name);
        self.0 = others;
        let found: Vec<_> = Vec::into_iter(found).map(|(_, socket)| socket).collect();
        if found.is_empty() {
            let why = match self.names() {
                names if names.is_empty() => "the service manager has passed no socket".to_owned(),
                names => format!("the service manager has passed other sockets: {names}"),
            };
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        Ok(found)
    }

    /// Checks that all sockets are taken. Clients would connect to the others, and wait for ever.
    ///
    /// # Errors
    /// If one is not.
    pub(crate) fn all_are_taken(&self) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let names = self.names();
        Err(io::Error::other(format!(
            "the service manager has passed sockets that no address names: {names}; set address = \"systemd:NAME\""
        )))
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        relay_core::excerpt(&names.join(", "), 200)
    }
}

fn take(passed: &mut ListenFd, index: usize) -> io::Result<ListeningSocket> {
    let unusable = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let descriptor = FIRST + index;
    let socket = match passed.take_tcp_listener(index) {
        Ok(Some(socket)) => ListeningSocket::Tcp(socket),
        _ => match passed.take_unix_listener(index) {
            Ok(Some(socket)) => ListeningSocket::Unix(socket),
            _ => {
                return Err(unusable(format!(
                    "descriptor {descriptor} of the service manager is no TCP and no Unix stream socket"
                )));
            }
        },
    };
    let listens = match &socket {
        ListeningSocket::Tcp(socket) => socket_acceptconn(socket)?,
        ListeningSocket::Unix(socket) => socket_acceptconn(socket)?,
    };
    if !listens {
        return Err(unusable(format!(
            "descriptor {descriptor} of the service manager does not listen; set Accept=no in its unit"
        )));
    }
    Ok(socket)
}

fn invalid(variable: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("the environment variable {variable} {why}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn taken(variables: &[(&str, &str)]) -> io::Result<PassedSockets> {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        PassedSockets::from_environment(&variables)
    }

    #[test]
    fn sockets_of_another_process_are_not_taken() {
        let other = (std::process::id() + 1).to_string();
        for variables in [
            [].as_slice(),
            &[("LISTEN_FDS", "1")],
            &[("LISTEN_PID", "1")],
            &[("LISTEN_FDS", "1"), ("LISTEN_PID", &other)],
        ] {
            assert!(taken(variables).unwrap().0.is_empty(), "{variables:?}");
        }
    }

    #[test]
    fn wrong_variables_are_refused_by_their_names() {
        let own = std::process::id().to_string();
        for (variables, expected) in [
            ([("LISTEN_FDS", "1"), ("LISTEN_PID", "x"), ("A", "")], "variable LISTEN_PID is no process id"),
            ([("LISTEN_FDS", "-1"), ("LISTEN_PID", &own), ("A", "")], "variable LISTEN_FDS is no number"),
            ([("LISTEN_FDS", "65"), ("LISTEN_PID", &own), ("A", "")], "variable LISTEN_FDS is no number"),
            (
                [("LISTEN_FDS", "2"), ("LISTEN_PID", &own), ("LISTEN_FDNAMES", "a")],
                "variable LISTEN_FDNAMES has not as many names",
            ),
            (
                [("LISTEN_FDS", "1"), ("LISTEN_PID", &own), ("LISTEN_FDS_FIRST_FD", "2147483647")],
                "variable LISTEN_FDS_FIRST_FD is not supported",
            ),
        ] {
            let error = taken(&variables).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
