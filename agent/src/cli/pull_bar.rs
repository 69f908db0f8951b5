//! The bar that shows on stderr how much of an image has arrived.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::visible::visible;

/// How often the bar moves on while nothing new is known.
const TICK: Duration = Duration::from_millis(120);

/// A bar on a line of stderr, taken away when it is dropped.
#[derive(Debug)]
pub(crate) struct PullBar(ProgressBar);

impl PullBar {
    /// A bar that says `title`.
    #[expect(clippy::disallowed_methods, reason = "what it draws is made visible here")]
    pub(crate) fn new(title: &str) -> PullBar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        PullBar(bar.with_prefix(visible(title).into_owned()))
    }

    /// Shows `arrived` bytes of `total`, or that something goes on where `total` is 0, and what `message` says.
    pub(crate) fn show(&self, arrived: u64, total: u64, message: &str) {
        let template = match total {
            0 => "{prefix}   {spinner}   {msg}",
            _ => "{prefix}   {bar:20}   {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style.progress_chars("█░"));
        }
        self.0.set_length(total.max(1));
        self.0.set_position(arrived);
        self.0.set_message(visible(message).into_owned());
        self.0.enable_steady_tick(TICK);
    }
}

impl Drop for PullBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
