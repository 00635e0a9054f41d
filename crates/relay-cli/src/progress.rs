//! Progress of long work, on standard error if that is a terminal.

use std::pin::Pin;
use std::task::{Context, Poll};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::{AsyncRead, ReadBuf};

const BYTES: &str = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const MESSAGES: &str = "{bar:30} {pos}/{len} messages {per_sec} {eta}";

/// A bar that is removed when it is dropped. Hidden unless standard error is a terminal.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn of_bytes(total: u64) -> Self {
        Self::new(total, BYTES)
    }

    pub(crate) fn of_messages(total: u64) -> Self {
        Self::new(total, MESSAGES)
    }

    fn new(total: u64, template: &str) -> Self {
        let bar = ProgressBar::new(total);
        Self(match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.inc(count);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A reader that moves a bar.
pub(crate) struct Counted<R> {
    reader: R,
    bar: Bar,
}

impl<R> Counted<R> {
    pub(crate) fn new(reader: R, total: u64) -> Self {
        Self { reader, bar: Bar::of_bytes(total) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.reader).poll_read(context, buffer);
        self.bar.add((buffer.filled().len() - before) as u64);
        result
    }
}
