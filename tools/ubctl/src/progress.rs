//! Progress of long work: a bar on a terminal, nothing on a pipe.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    // A template that does not parse leaves the plain bar.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A bar over bytes that are read.
pub(crate) fn bytes(total: u64, what: String) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    styled(bar, "{msg} {wide_bar} {bytes}/{total_bytes} {eta}").with_message(what)
}

/// A bar over rows.
pub(crate) fn rows(total: u64, what: String) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    styled(bar, "{msg} {wide_bar} {human_pos}/{human_len} rows {per_sec} {eta}").with_message(what)
}

/// A bar over steps; the number of steps is told as they are made.
pub(crate) fn steps(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
    styled(bar, "{msg} {wide_bar} {pos}/{len} {eta}").with_message(what)
}
