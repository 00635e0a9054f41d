//! How far a long command has come: a bar on standard error if that is a terminal, and nothing
//! otherwise.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";
const ITEMS: &str = "{msg} {wide_bar} {pos}/{len} {eta}";

/// A bar that goes when it is dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn of_bytes(what: &'static str, total: u64) -> Self {
        Self::new(what, total, BYTES)
    }

    pub(super) fn of_items(what: &'static str, total: u64) -> Self {
        Self::new(what, total, ITEMS)
    }

    fn new(what: &'static str, total: u64, template: &str) -> Self {
        // It draws nothing where nobody looks at a terminal.
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self(bar)
    }

    pub(super) fn at(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    pub(super) fn advance(&self, by: u64) {
        self.0.inc(by);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
