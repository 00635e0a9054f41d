//! The events of a stream, as lines of JSON (NDJSON) or as server-sent events.

use bytes::Bytes;

/// How the events of a stream are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventFormat {
    /// One line of JSON for each event.
    Ndjson,
    /// One `data` line for each event (HTML Living Standard, section 9.2).
    Sse,
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bye {
    /// The relay shuts down.
    Draining,
    /// The stream is as old as a connection may become.
    Age,
    /// The proof no longer opens the queue.
    ProofExpired,
    /// The relay cannot read the queue.
    Error,
}

impl EventFormat {
    /// The format that an `Accept` header asks for.
    pub(crate) fn accepted<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Self {
        let is_sse = |value: &[u8]| {
            value.split(|byte| *byte == b',').any(|range| {
                let media_type = range.split(|byte| *byte == b';').next().unwrap_or_default();
                media_type.trim_ascii().eq_ignore_ascii_case(Self::Sse.content_type().as_bytes())
            })
        };
        if values.any(is_sse) { Self::Sse } else { Self::Ndjson }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Sse => "text/event-stream",
        }
    }

    /// What precedes the JSON of an event, which has no line breaks.
    pub(crate) const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Ndjson => b"",
            Self::Sse => b"data: ",
        }
    }

    /// What follows the JSON of an event.
    pub(crate) const fn suffix(self) -> &'static [u8] {
        match self {
            Self::Ndjson => b"\n",
            Self::Sse => b"\n\n",
        }
    }

    /// The event that shows that the stream is alive.
    pub(crate) fn idle(self) -> Bytes {
        self.event(br#"{"idle":true}"#)
    }

    /// The last event.
    pub(crate) fn bye(self, bye: Bye) -> Bytes {
        self.event(format!(r#"{{"bye":"{}"}}"#, bye.as_str()).as_bytes())
    }

    fn event(self, json: &[u8]) -> Bytes {
        [self.prefix(), json, self.suffix()].concat().into()
    }
}

impl Bye {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Age => "age",
            Self::ProofExpired => "proof_expired",
            Self::Error => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_server_sent_events_only_if_it_names_them() {
        let accepted = |values: &[&str]| EventFormat::accepted(values.iter().map(|value| value.as_bytes()));
        for values in
            [&[][..], &["*/*"], &["application/json"], &["text/event-streams"], &["x/text/event-stream"]]
        {
            assert_eq!(accepted(values), EventFormat::Ndjson, "{values:?}");
        }
        for values in
            [&["text/event-stream"][..], &["*/*", " Text/Event-Stream ;q=0.9"], &["a/b, text/event-stream"]]
        {
            assert_eq!(accepted(values), EventFormat::Sse, "{values:?}");
        }
    }

    #[test]
    fn events_are_lines() {
        assert_eq!(EventFormat::Ndjson.idle(), "{\"idle\":true}\n");
        assert_eq!(EventFormat::Sse.bye(Bye::ProofExpired), "data: {\"bye\":\"proof_expired\"}\n\n");
    }
}
