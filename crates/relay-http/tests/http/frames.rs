//! Tests of HTTP/2 over TLS, frame by frame: malformed frames, floods of valid frames, closed
//! windows, and orderly ends.

mod acks;
mod cbor;
mod ends;
mod events;
mod floods;
mod heads;
mod streams;
mod waits;
mod windows;
mod wire;
mod wrong;
