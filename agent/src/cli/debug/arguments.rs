//! The flags of `debuglet debug`: those of `kubectl debug` that mean something on a node.

use std::path::PathBuf;

use clap::Args;

use crate::cli::PodArgument;
use crate::cli::failure::Failure;
use crate::pod::copied_mounts::Include;
use crate::pod::profile::{CustomError, CustomProfile, Profile};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    debuglet debug -it etcd-node1 -n kube-system --image=busybox --target=etcd\n  \
    debuglet debug cart --image=busybox -c probe -- sh -c 'ls -l /proc/1/root'\n  \
    debuglet debug -it cart --image=busybox --target=web --copy-mounts\n  \
    tar c tools | debuglet debug -i cart --image=busybox -- tar x -C /tmp\n\n\
    Attached, the exit code is the container's. A container that cannot start, or whose command is interrupted\n\
    before it has, is stopped: nothing starts unattended later, unless --keep says so.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) pod: PodArgument,
    /// The debug container's image
    #[arg(long, value_name = "IMAGE", required_unless_present = "copy_to")]
    image: Option<String>,
    /// Give the container a standard input
    #[arg(short = 'i', long)]
    pub(super) stdin: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// The container whose processes the debug container sees
    #[arg(long, value_name = "CONTAINER")]
    pub(super) target: Option<String>,
    /// The debug container's name, instead of debugger-xxxxx
    #[arg(short, long, value_name = "NAME")]
    pub(super) container: Option<String>,
    /// Mount what the target has mounted, or the only container without --target, parts of volumes (subPath) included:
    /// volumes, the default, or all, which adds service account tokens, the hosts file and the termination log
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "volumes",
          value_parser = ["volumes", "all"])]
    pub(super) copy_mounts: Option<String>,
    /// When to pull the image
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub(super) image_pull_policy: Option<String>,
    /// What the container may do: general, baseline, restricted, netadmin, sysadmin or legacy
    #[arg(
        long,
        value_name = "PROFILE",
        default_value = "general",
        hide_default_value = true
    )]
    pub(super) profile: Profile,
    /// A file with a partial container, JSON or YAML, that goes on top of the profile
    #[arg(long, value_name = "FILE")]
    custom: Option<PathBuf>,
    /// An environment variable for the container; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Wait for the container and attach to it [default: with -i]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) attach: Option<bool>,
    /// Take what follows -- as the arguments of the image's own command
    #[arg(long)]
    pub(super) arguments_only: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Leave the container in the pod though it cannot start yet
    #[arg(long)]
    pub(super) keep: bool,
    #[arg(long, hide = true, value_name = "POD")]
    copy_to: Option<String>,
    /// The command, instead of the image's own
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

impl Arguments {
    /// Refuses what cannot be done, before anything is.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.copy_to.is_some() {
            return Err(Failure::new(
                "cannot copy the pod: debuglet runs debug containers in pods that exist, it makes no pods",
            )
            .hint("Leave --copy-to out to debug the pod itself; a copy of it is a manifest of your own."));
        }
        if self.image().is_empty() {
            return Err(Failure::new("--image names no image"));
        }
        if self.tty && !self.stdin {
            return Err(Failure::new(
                "-t needs -i: a terminal without its keyboard is of no use",
            ));
        }
        Ok(())
    }

    /// The debug container's image, as the user wrote it.
    pub(super) fn image(&self) -> &str {
        self.image.as_deref().unwrap_or_default().trim()
    }

    /// Which mounts of the target are copied, if any.
    pub(super) fn include(&self) -> Option<Include> {
        let what = self.copy_mounts.as_deref()?;
        Some(if what == "all" {
            Include::All
        } else {
            Include::Volumes
        })
    }

    /// The custom profile, where there is one.
    #[expect(
        clippy::disallowed_methods,
        reason = "a command reads what its user may read, and holds up nobody else"
    )]
    pub(super) fn custom(&self) -> Result<Option<CustomProfile>, Failure> {
        let Some(file) = &self.custom else { return Ok(None) };
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::new(format!("cannot read --custom {}: {error}", file.display())))?;
        CustomProfile::parse(&text)
            .map(Some)
            .map_err(|error| self.custom_failure(&error))
    }

    /// What is wrong with the custom profile.
    pub(super) fn custom_failure(&self, error: &CustomError) -> Failure {
        let file = self.custom.clone().unwrap_or_default();
        Failure::new(format!("cannot use --custom {}: {error}", file.display()))
    }

    /// The environment variables, in their order; of one name the last counts.
    pub(super) fn environment(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut variables: Vec<(String, String)> = Vec::new();
        for pair in self.env.iter().flat_map(|text| pairs(text)) {
            let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return Err(Failure::new(format!(
                    "--env takes NAME=VALUE, and {pair:?} is not that"
                )));
            };
            variables.retain(|(existing, _)| existing != name);
            variables.push((name.to_owned(), value.to_owned()));
        }
        Ok(variables)
    }
}

/// The pairs in one `--env`: as with kubectl there can be several, separated by commas. With a single `=` all of it
/// is one pair, commas included; quotes keep a comma in a pair.
fn pairs(text: &str) -> Vec<String> {
    if text.matches('=').count() <= 1 {
        return vec![text.trim_matches('"').to_owned()];
    }
    let mut pairs = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => pairs.push(String::new()),
            _ => {
                if let Some(pair) = pairs.last_mut() {
                    pair.push(character);
                }
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &[&str]) -> Arguments {
        Line::try_parse_from([&["debug", "pod"], line].concat())
            .unwrap()
            .arguments
    }

    #[test]
    fn environment_variables_are_given_as_kubectl_takes_them() {
        let arguments = parse(&[
            "--image=b",
            "--env=A=1",
            "--env=LIST=a,b",
            "--env=B=2,C=3",
            "--env=\"D=x,y\",E=5",
            "--env=A=again",
            "--env=EMPTY=",
        ]);
        let expected = [
            ("LIST", "a,b"),
            ("B", "2"),
            ("C", "3"),
            ("D", "x,y"),
            ("E", "5"),
            ("A", "again"),
            ("EMPTY", ""),
        ];
        let expected: Vec<(String, String)> = expected
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        assert_eq!(arguments.environment(), Ok(expected));
        assert!(parse(&["--image=b", "--env=A"]).environment().is_err());
        assert!(parse(&["--image=b", "--env==x"]).environment().is_err());
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_reason() {
        let refusal = |line: &[&str]| parse(line).check().unwrap_err().message;
        assert!(refusal(&["--copy-to=x"]).starts_with("cannot copy the pod"));
        assert!(refusal(&["--image=b", "-t"]).starts_with("-t needs -i"));
        assert!(refusal(&["--image="]).contains("no image"));
        assert!(parse(&["--image=b", "-it"]).check().is_ok());
    }

    #[test]
    fn of_the_targets_mounts_volumes_are_copied_unless_all_are_asked_for() {
        assert_eq!(parse(&["--image=b"]).include(), None);
        assert_eq!(
            parse(&["--image=b", "--copy-mounts"]).include(),
            Some(Include::Volumes)
        );
        assert_eq!(
            parse(&["--image=b", "--copy-mounts=all"]).include(),
            Some(Include::All)
        );
        assert!(Line::try_parse_from(["debug", "pod", "--image=b", "--copy-mounts=some"]).is_err());
    }

    #[test]
    fn attaching_is_decided_by_i_unless_said_otherwise() {
        assert_eq!(parse(&["--image=b", "-i"]).attach, None);
        assert_eq!(parse(&["--image=b", "--attach"]).attach, Some(true));
        assert_eq!(parse(&["--image=b", "-i", "--attach=false"]).attach, Some(false));
    }
}
