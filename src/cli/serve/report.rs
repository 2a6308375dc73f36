//! What `serve` and `mirror --follow` say of themselves while they run: changes
//! of state in the log, and `status.json` in every directory.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cli::status::StatusFile;
use crate::node::metrics::Status;
use crate::node::{NodeStatus, stopped};

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is reported, and where to.
pub(in crate::cli) struct Report {
    pub(in crate::cli) status: Status,
    pub(in crate::cli) directories: Vec<PathBuf>,
}

/// Reports until `stop` says so, and once more then.
pub(in crate::cli) async fn report(
    report: Report,
    mut hear: impl FnMut(&NodeStatus),
    stop: watch::Receiver<bool>,
) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended = std::pin::pin!(stopped(stop));
    let mut before = NodeStatus::default();
    let mut failing: Option<Instant> = None;
    loop {
        let ends = tokio::select! {
            _ = look.tick() => false,
            () = &mut ended => true,
        };
        let now = (report.status)();
        now.log_changes(&before);
        hear(&now);
        let file = StatusFile::new(&now, ends);
        for directory in &report.directories {
            if let Err(error) = file.write(directory)
                && failing.is_none()
            {
                failing = Some(Instant::now());
                let directory = directory.display();
                tracing::warn!(%directory, %error, "the status could not be written down");
            }
        }
        if failing.is_some_and(|since| since.elapsed() > Duration::from_mins(1)) {
            failing = None;
        }
        before = now;
        if ends {
            return;
        }
    }
}
