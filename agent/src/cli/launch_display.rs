//! What a person sees of a launch while they wait: a bar while the image comes, and one line for all else. Without
//! a terminal a line per stage. All of it on stderr.

use indicatif::HumanBytes;

use super::output::{stderr_is_terminal, tell};
use super::pull_bar::PullBar;
use crate::pod::launch::{Launch, PullProgress, Stage};

/// How the launch is shown.
pub(crate) struct LaunchDisplay {
    /// The image as the user wrote it.
    image: String,
    /// The container whose processes are to be seen.
    target: Option<String>,
    quiet: bool,
    terminal: bool,
    bar: Option<PullBar>,
    /// The last line that was told, so that it is told once.
    told: String,
}

impl LaunchDisplay {
    /// Nothing is shown yet; `quiet` keeps it so.
    pub(crate) fn new(image: &str, target: Option<&str>, quiet: bool) -> LaunchDisplay {
        LaunchDisplay {
            image: image.to_owned(),
            target: target.map(str::to_owned),
            quiet,
            terminal: stderr_is_terminal(),
            bar: None,
            told: String::new(),
        }
    }

    /// Shows how far the launch has come.
    pub(crate) fn show(&mut self, launch: &Launch) {
        if self.quiet {
            return;
        }
        match (&launch.pull, launch.stage) {
            (pull, Stage::Pulling) if self.terminal => self.show_bar(&pull.clone().unwrap_or_default()),
            _ => {
                if launch.stage != Stage::Pulling {
                    self.clear();
                }
                let line = stage_line(&self.image, self.target.as_deref(), launch);
                if !line.is_empty() && line != self.told {
                    tell(&line);
                    self.told = line;
                }
            }
        }
    }

    /// Takes the bar away: what comes next has the line to itself.
    pub(crate) fn clear(&mut self) {
        self.bar = None;
    }

    fn show_bar(&mut self, pull: &PullProgress) {
        let (offset, total) = arrived(pull);
        let image = &self.image;
        let bar = self
            .bar
            .get_or_insert_with(|| PullBar::new(&format!("Pulling {image}")));
        bar.show(offset, total, &amount(pull));
    }
}

/// The bytes that have arrived, and those that there are, of all layers.
fn arrived(pull: &PullProgress) -> (u64, u64) {
    let offset = pull.layers.iter().map(|layer| layer.offset).sum();
    let total = pull
        .layers
        .iter()
        .map(|layer| layer.total.max(layer.offset))
        .sum();
    (offset, total)
}

/// `1.3 / 2.1 MiB   registry.example.com`.
fn amount(pull: &PullProgress) -> String {
    match arrived(pull) {
        (_, 0) => pull.registry.clone(),
        (offset, total) => format!(
            "{} / {}   {}",
            HumanBytes(offset),
            HumanBytes(total),
            pull.registry
        ),
    }
}

/// The line that tells of a stage; empty where there is nothing to tell yet.
fn stage_line(image: &str, target: Option<&str>, launch: &Launch) -> String {
    match launch.stage {
        Stage::Pulling => match launch.pull.as_ref().map(|pull| pull.registry.as_str()) {
            None | Some("") => format!("Pulling {image}"),
            Some(registry) => format!("Pulling {image} from {registry}"),
        },
        // What cannot pass is the command's error, and not told twice.
        Stage::Waiting if !launch.permanent => waiting_line(target, launch),
        Stage::Creating => format!("Starting {}", launch.container),
        _ => String::new(),
    }
}

/// What a launch waits for: the agent's sentence, and its reason where it is not about the target.
fn waiting_line(target: Option<&str>, launch: &Launch) -> String {
    let message = launch.message.trim().trim_end_matches('.');
    if let Some(target) = target
        && let Some(state) = message.strip_prefix(&format!("target container {target:?} does not run: "))
    {
        return format!("Waiting for {target}: {state}. Ctrl-C, or without --target to start now.");
    }
    match (message, launch.reason.as_str()) {
        // That it waits for its turn is no news.
        ("", "" | "ContainerCreating") => String::new(),
        ("", reason) => format!("Waiting: {reason}"),
        (message, "") => format!("Waiting: {message}"),
        (message, reason) => format!("Waiting: {message} ({reason})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::launch::LayerProgress;
    use serde_json::{Value, json};

    fn launch(value: Value) -> Launch {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_stage_has_its_line() {
        for (value, line) in [
            (json!({"container": "dbg", "stage": "Accepted"}), ""),
            (json!({"container": "dbg", "stage": "Pulling"}), "Pulling busybox"),
            (
                json!({"container": "dbg", "stage": "Pulling",
                       "pull": {"image": "docker.io/library/busybox:latest", "registry": "docker.io", "layers": []}}),
                "Pulling busybox from docker.io",
            ),
            (json!({"container": "dbg", "stage": "Creating"}), "Starting dbg"),
            (
                json!({"container": "dbg", "stage": "Waiting", "reason": "ErrImagePull", "message": "no route to host"}),
                "Waiting: no route to host (ErrImagePull)",
            ),
            (
                json!({"container": "dbg", "stage": "Waiting", "reason": "CreateContainerError",
                       "message": "target container \"etcd\" does not run: it has not been started yet"}),
                "Waiting for etcd: it has not been started yet. Ctrl-C, or without --target to start now.",
            ),
            (
                json!({"container": "dbg", "stage": "Waiting", "reason": "ErrImagePull", "message": "no such image",
                       "permanent": true}),
                "",
            ),
            (
                json!({"container": "dbg", "stage": "Waiting", "reason": "ContainerCreating"}),
                "",
            ),
            (json!({"container": "dbg", "stage": "Running"}), ""),
        ] {
            assert_eq!(
                stage_line("busybox", Some("etcd"), &launch(value.clone())),
                line,
                "{value}"
            );
        }
    }

    #[test]
    fn a_pull_shows_what_has_arrived_of_all_its_layers() {
        let layer = |offset, total| LayerProgress {
            digest: String::new(),
            offset,
            total,
        };
        let pull = |layers| PullProgress {
            image: "i".into(),
            registry: "registry.example.com".into(),
            layers,
        };
        assert_eq!(amount(&pull(vec![])), "registry.example.com");
        assert_eq!(
            amount(&pull(vec![layer(1024, 2048), layer(512, 0)])),
            "1.50 KiB / 2.50 KiB   registry.example.com"
        );
    }
}
