//! The events of a stream: as lines of JSON (NDJSON), as server-sent events, or as a sequence of
//! CBOR values.

use bytes::Bytes;
use serde::Serialize;

use super::format::{CBOR_SEQUENCE, Format, names};

/// How the events of a stream are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventFormat {
    /// One line of JSON for each event.
    Ndjson,
    /// One `data` line for each event (HTML Living Standard, section 9.2).
    Sse,
    /// One CBOR value for each event (RFC 8742).
    CborSequence,
}

/// An event that is not a page.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    Idle(bool),
    Bye(Bye),
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
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
    /// The format that `Accept` headers ask for.
    pub(crate) fn accepted<'a>(values: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        match Format::accepted(values.clone()) {
            _ if names(values, Self::Sse.content_type()) => Self::Sse,
            Format::Cbor => Self::CborSequence,
            Format::Json => Self::Ndjson,
        }
    }

    /// The format of each event.
    pub(crate) const fn format(self) -> Format {
        match self {
            Self::Ndjson | Self::Sse => Format::Json,
            Self::CborSequence => Format::Cbor,
        }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Sse => "text/event-stream",
            Self::CborSequence => CBOR_SEQUENCE,
        }
    }

    /// What precedes an event. Its JSON has no line breaks.
    pub(crate) const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Ndjson | Self::CborSequence => b"",
            Self::Sse => b"data: ",
        }
    }

    /// What follows an event.
    pub(crate) const fn suffix(self) -> &'static [u8] {
        match self {
            Self::Ndjson => b"\n",
            Self::Sse => b"\n\n",
            Self::CborSequence => b"",
        }
    }

    /// The event that shows that the stream is alive.
    pub(crate) fn idle(self) -> Bytes {
        self.event(&Event::Idle(true))
    }

    /// The last event.
    pub(crate) fn bye(self, bye: Bye) -> Bytes {
        self.event(&Event::Bye(bye))
    }

    fn event(self, event: &Event) -> Bytes {
        [self.prefix(), &self.format().encode(event), self.suffix()].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_another_format_only_if_it_names_it() {
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
        assert_eq!(accepted(&["application/cbor, text/event-stream"]), EventFormat::Sse);
        for values in [&["application/cbor"][..], &["*/*", "application/cbor-seq;q=0.5"]] {
            assert_eq!(accepted(values), EventFormat::CborSequence, "{values:?}");
        }
    }

    #[test]
    fn events_are_lines() {
        assert_eq!(EventFormat::Ndjson.idle(), "{\"idle\":true}\n");
        assert_eq!(EventFormat::Sse.bye(Bye::ProofExpired), "data: {\"bye\":\"proof_expired\"}\n\n");
    }

    #[test]
    fn events_in_cbor_are_maps() {
        assert_eq!(EventFormat::CborSequence.idle(), &b"\xa1\x64idle\xf5"[..]);
        assert_eq!(EventFormat::CborSequence.bye(Bye::Age), &b"\xa1\x63bye\x63age"[..]);
    }
}
