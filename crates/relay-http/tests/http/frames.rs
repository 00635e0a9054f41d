//! HTTP/2 by hand, over TLS: frames that are wrong, floods of frames that are not, windows that
//! stay shut, and ends that nobody loses anything by.

mod ends;
mod floods;
mod heads;
mod streams;
mod windows;
mod wire;
mod wrong;
