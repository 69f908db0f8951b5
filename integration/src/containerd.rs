//! containerd of both promised versions: its configuration in a node's folder, and its binaries.

use std::path::{Path, PathBuf};

use crate::images::PAUSE;
use crate::parts;

/// Which containerd a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerdVersion {
    /// 1.6, Debian's package.
    V1_6,
    /// 2.4, built by `integration/setup`.
    V2_4,
}

impl ContainerdVersion {
    /// The daemon.
    pub(crate) fn program(self) -> PathBuf {
        match self {
            ContainerdVersion::V1_6 => parts::debian("usr/bin/containerd"),
            ContainerdVersion::V2_4 => parts::built("containerd/containerd"),
        }
    }

    /// Its command line client.
    pub(crate) fn ctr(self) -> PathBuf {
        match self {
            ContainerdVersion::V1_6 => parts::debian("usr/bin/ctr"),
            ContainerdVersion::V2_4 => parts::built("containerd/ctr"),
        }
    }

    /// The folder whose shim it must find first, as 1.6 and 2.4 have one of the same name.
    pub(crate) fn shims(self) -> PathBuf {
        self.program().parent().unwrap().to_path_buf()
    }

    /// Its configuration, with everything it keeps below `folder`.
    pub(crate) fn configuration(self, folder: &Path) -> String {
        let folder = folder.display();
        match self {
            // restrict_oom_score_adj: root in a container lacks CAP_SYS_RESOURCE.
            ContainerdVersion::V1_6 => format!(
                r#"version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[debug]
  level = "warn"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
"#
            ),
            ContainerdVersion::V2_4 => format!(
                r#"version = 3
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[debug]
  level = "warn"
[grpc]
  address = "{folder}/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{folder}/cni"
"#
            ),
        }
    }
}

/// The pods' network: a bridge of its own, addresses from one subnet.
pub(crate) fn network(folder: &Path) -> String {
    format!(
        r#"{{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {{
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipam": {{
        "type": "host-local",
        "dataDir": "{}/addresses",
        "ranges": [[{{ "subnet": "10.99.0.0/24" }}]],
        "routes": [{{ "dst": "0.0.0.0/0" }}]
      }}
    }},
    {{ "type": "loopback" }}
  ]
}}
"#,
        folder.display()
    )
}
