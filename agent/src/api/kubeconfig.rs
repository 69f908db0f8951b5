//! root's kubeconfig: where the API listens, whom to trust, and root's certificate, all in one file.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::certificates::Certificates;
use crate::durable_file;

/// The file's name in the run folder.
pub(crate) const KUBECONFIG: &str = "kubeconfig";

/// Writes it into the run folder. Blocks.
pub(crate) fn write(run_dir: &Path, certificates: &Certificates, listening: SocketAddr) -> io::Result<()> {
    let text = kubeconfig(certificates, reachable(listening));
    Ok(durable_file::write(run_dir, KUBECONFIG, text.as_bytes())?)
}

/// Removes it from the run folder: with TLS turned off it leads nowhere. Blocks.
pub(crate) fn remove(run_dir: &Path) {
    if let Err(error) = durable_file::remove_if_there(&run_dir.join(KUBECONFIG)) {
        tracing::warn!("cannot remove the kubeconfig of before: {error}");
    }
}

/// Where somebody on this node reaches a server that listens there.
pub(crate) fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

fn kubeconfig(certificates: &Certificates, server: SocketAddr) -> String {
    let authority = STANDARD.encode(&certificates.authority_pem);
    let client = STANDARD.encode(&certificates.client_pem);
    let key = STANDARD.encode(&certificates.client_key_pem);
    format!(
        r#"# Written by debuglet, and again when it starts and when a certificate is made anew.
apiVersion: v1
kind: Config
clusters:
- name: debuglet
  cluster:
    server: https://{server}
    certificate-authority-data: {authority}
users:
- name: root
  user:
    client-certificate-data: {client}
    client-key-data: {key}
contexts:
- name: debuglet
  context:
    cluster: debuglet
    user: root
current-context: debuglet
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_reached_over_loopback() {
        for (listening, server) in [
            ("127.0.0.1:10260", "127.0.0.1:10260"),
            ("0.0.0.0:10260", "127.0.0.1:10260"),
            ("[::]:7", "[::1]:7"),
            ("192.0.2.7:443", "192.0.2.7:443"),
        ] {
            let listening = listening.parse().expect("an address");
            assert_eq!(reachable(listening).to_string(), server);
        }
    }
}
