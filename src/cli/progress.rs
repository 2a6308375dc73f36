//! Progress bars: on stderr, and only if that is a terminal.

use std::io::IsTerminal as _;
use std::sync::{Arc, OnceLock};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::limits::UNCOVERED_LOG_BYTES;
use crate::node::Progress;
use crate::store::Progress as Opening;

/// A bar over a known number of bytes, or a spinner if `total` is not known.
pub(super) fn bar(total_bytes: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total_bytes {
        Some(total) => (
            ProgressBar::new(total),
            "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} {bytes_per_sec} {msg}",
        ),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        // A bar in the default style beats none.
        Err(_) => bar,
    }
}

/// A bar over entries that come from elsewhere: a spinner until it is known how
/// many they are.
pub(super) struct SyncBar {
    bar: ProgressBar,
    held: u64,
    measured: bool,
}

impl SyncBar {
    /// `held` entries are here already.
    pub(super) fn new(held: u64) -> Self {
        Self {
            bar: bar(None),
            held,
            measured: false,
        }
    }

    /// The same bar, to be cleared at the end.
    pub(super) fn handle(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// Shows how far it is.
    pub(super) fn show(&mut self, progress: Progress) {
        if let Some(target) = progress.target
            && !self.measured
        {
            self.measured = true;
            let template = "{bar:30} {human_pos}/{human_len} entries, {msg}, {per_sec}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
            self.bar
                .set_length(target.entries.saturating_sub(self.held));
            self.bar.reset_eta();
        }
        self.bar.set_position(progress.entries);
        self.bar
            .set_message(HumanBytes(progress.received_bytes).to_string());
    }
}

/// A bar for opening a store. It shows once so much log was read that somebody
/// may wonder: more than a good index leaves to be read.
pub(super) struct OpeningBar(Arc<OnceLock<ProgressBar>>);

impl OpeningBar {
    /// `total_bytes` is asked when it is needed.
    pub(super) fn new(total_bytes: impl Fn() -> u64 + Send + Sync + 'static) -> (Self, Opening) {
        let shown: Arc<OnceLock<ProgressBar>> = Arc::default();
        let bar_of = shown.clone();
        let progress = move |bytes| {
            if bytes < UNCOVERED_LOG_BYTES {
                return;
            }
            let show = || {
                let bar = bar(Some(total_bytes())).with_message("reading the log");
                // What was read unseen tells nothing of the speed.
                bar.set_position(bytes);
                bar.reset_eta();
                bar
            };
            bar_of.get_or_init(show).set_position(bytes);
        };
        (Self(shown), Opening(Arc::new(progress)))
    }
}

impl Drop for OpeningBar {
    fn drop(&mut self) {
        if let Some(bar) = self.0.get() {
            bar.finish_and_clear();
        }
    }
}
