//! The content of a pod's `/etc/hosts`, which all its containers share.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Pod;

use super::hostname::{Hostname, HostnameError};

/// Where it is mounted.
pub(crate) const PATH: &str = "/etc/hosts";

/// Names that every pod has.
const LOCAL: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// The file's content: the pod's own names and `hostAliases`; on the host's network the host's file
/// (`hosts_of_node`) in the place of the former.
pub(crate) fn etc_hosts(pod: &Pod, pod_ips: &[String], hosts_of_node: &str) -> Result<String, HostnameError> {
    let spec = pod.spec.as_ref();
    let mut content = String::from("# Managed by debuglet: changes do not last.\n");
    if spec.and_then(|spec| spec.host_network) == Some(true) {
        content.push_str(hosts_of_node);
        if !content.ends_with('\n') {
            content.push('\n');
        }
    } else {
        content.push_str(LOCAL);
        let Hostname { name, domain } = Hostname::of(pod)?;
        for ip in pod_ips {
            // Writing to a String cannot fail.
            let _ = match domain.as_str() {
                "" => writeln!(content, "{ip}\t{name}"),
                domain => writeln!(content, "{ip}\t{name}.{domain}\t{name}"),
            };
        }
    }
    let aliases = spec
        .and_then(|spec| spec.host_aliases.as_deref())
        .unwrap_or_default();
    if !aliases.is_empty() {
        content.push_str("\n# From the pod's hostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(content, "{}\t{names}", alias.ip);
    }
    Ok(content)
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // `json!` literals read better without a `&`
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(spec: Value) -> String {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"}, "spec": spec,
        }))
        .expect("a pod");
        let ips = ["10.0.0.2".to_owned(), "fd00::2".to_owned()];
        etc_hosts(&pod, &ips, "192.0.2.7 node1").expect("a file")
    }

    #[test]
    fn a_pod_finds_itself_under_all_its_addresses() {
        let content = of(json!({}));
        assert!(content.contains("127.0.0.1\tlocalhost\n"), "{content}");
        assert!(content.ends_with("10.0.0.2\tweb\nfd00::2\tweb\n"), "{content}");
        assert!(!content.contains("node1"), "{content}");
    }

    #[test]
    fn with_a_subdomain_the_full_name_comes_first() {
        let content = of(json!({"hostname": "db", "subdomain": "set"}));
        assert!(
            content.contains("10.0.0.2\tdb.set.shop.svc.cluster.local\tdb\n"),
            "{content}"
        );
    }

    #[test]
    fn host_aliases_come_last_one_line_per_address() {
        let content =
            of(json!({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}, {"ip": "5.6.7.8"}]}));
        assert!(
            content.ends_with("\n\n# From the pod's hostAliases.\n1.2.3.4\ta\tb\n5.6.7.8\t\n"),
            "{content}"
        );
    }

    #[test]
    fn on_the_hosts_network_the_hosts_file_stands_in() {
        let content =
            of(json!({"hostNetwork": true, "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a"]}]}));
        assert!(content.contains("\n192.0.2.7 node1\n\n#"), "{content}");
        assert!(content.ends_with("1.2.3.4\ta\n"), "{content}");
        assert!(!content.contains("10.0.0.2"), "{content}");
    }
}
