//! A pod's names and its ways to others: host name, DNS, host aliases, ports of the host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, PodDNSConfig, PodSpec};

use super::findings::Findings;
use super::names;
use crate::pod::field_error::Cause;

/// What libc's resolver takes: name servers, search domains, and characters of all search domains together.
const MAX_NAME_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
/// The longest host name that Linux keeps.
const MAX_HOSTNAME: usize = 64;

pub(super) fn check(spec: &PodSpec, findings: &mut Findings) {
    let host_network = spec.host_network == Some(true);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    findings.one_of("spec.dnsPolicy", spec.dns_policy.as_deref(), &policies);
    let own_dns_only = spec.dns_policy.as_deref() == Some("None");
    match &spec.dns_config {
        None if own_dns_only => {
            findings.add(
                "spec.dnsConfig",
                Cause::Required,
                "must be set where dnsPolicy is None",
            );
        }
        None => {}
        Some(config) => dns_config(config, own_dns_only, findings),
    }
    for (field, name) in [
        ("spec.hostname", &spec.hostname),
        ("spec.subdomain", &spec.subdomain),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            findings.well_formed(field, name, names::dns_label);
        }
    }
    if let Some(name) = &spec.hostname_override {
        let field = "spec.hostnameOverride";
        findings.well_formed(field, name, names::dns_subdomain);
        if name.len() > MAX_HOSTNAME {
            findings.add(
                field,
                Cause::TooLong,
                format!("is longer than {MAX_HOSTNAME} characters"),
            );
        }
        if host_network {
            findings.forbidden(field, "cannot stand beside hostNetwork: true");
        }
        if spec.set_hostname_as_fqdn == Some(true) {
            findings.forbidden(field, "cannot stand beside setHostnameAsFQDN: true");
        }
    }
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = format!("spec.hostAliases[{index}]");
        address(&alias.ip, &format!("{path}.ip"), findings);
        for (index, name) in alias.hostnames.iter().flatten().enumerate() {
            findings.well_formed(format!("{path}.hostnames[{index}]"), name, names::dns_subdomain);
        }
    }
    host_ports(
        &spec.containers,
        "spec.containers",
        host_network,
        &mut BTreeSet::new(),
        findings,
    );
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        // Init containers run one after the other, so each has the host's ports to itself.
        let path = format!("spec.initContainers[{index}]");
        ports(container, &path, host_network, &mut BTreeSet::new(), findings);
    }
}

fn dns_config(config: &PodDNSConfig, own_dns_only: bool, findings: &mut Findings) {
    let path = "spec.dnsConfig";
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let searches = config.searches.as_deref().unwrap_or_default();
    if own_dns_only && servers.is_empty() {
        let message = "needs at least one server where dnsPolicy is None";
        findings.add(format!("{path}.nameservers"), Cause::Required, message);
    }
    if servers.len() > MAX_NAME_SERVERS {
        findings.invalid(
            format!("{path}.nameservers"),
            format!("has more than {MAX_NAME_SERVERS} servers"),
        );
    }
    for (index, server) in servers.iter().enumerate() {
        address(server, &format!("{path}.nameservers[{index}]"), findings);
    }
    if searches.len() > MAX_SEARCHES {
        findings.invalid(
            format!("{path}.searches"),
            format!("has more than {MAX_SEARCHES} domains"),
        );
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        let message = format!("is longer than {MAX_SEARCH_CHARACTERS} characters in all");
        findings.invalid(format!("{path}.searches"), message);
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        findings.well_formed(format!("{path}.searches[{index}]"), search, names::search_domain);
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            findings.required(format!("{path}.options[{index}]"));
        }
    }
}

fn address(text: &str, path: &str, findings: &mut Findings) {
    if text.parse::<IpAddr>().is_err() {
        findings.invalid(path, format!("{text:?} is not an IP address"));
    }
}

/// A port of the host, as no two containers that run at once can have it: number, protocol, address.
type HostPort<'a> = (i32, &'a str, &'a str);

fn host_ports<'a>(
    containers: &'a [Container],
    path: &str,
    host_network: bool,
    taken: &mut BTreeSet<HostPort<'a>>,
    findings: &mut Findings,
) {
    for (index, container) in containers.iter().enumerate() {
        ports(
            container,
            &format!("{path}[{index}]"),
            host_network,
            taken,
            findings,
        );
    }
}

fn ports<'a>(
    container: &'a Container,
    path: &str,
    host_network: bool,
    taken: &mut BTreeSet<HostPort<'a>>,
    findings: &mut Findings,
) {
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let path = format!("{path}.ports[{index}].hostPort");
        let number = port.host_port.unwrap_or_default();
        if host_network && number != port.container_port {
            findings.invalid(
                &path,
                format!(
                    "must be {} as containerPort on the host's network",
                    port.container_port
                ),
            );
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        let address = port.host_ip.as_deref().unwrap_or_default();
        if number != 0 && !taken.insert((number, protocol, address)) {
            let message = format!("{number}/{protocol} of the host is taken by another port of the pod");
            findings.add(path, Cause::Duplicate, message);
        }
    }
}
