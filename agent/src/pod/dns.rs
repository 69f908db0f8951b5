//! How a pod's containers resolve names (`dnsPolicy`, `dnsConfig`).

use debuglet_proto::v1::DnsConfig;
use k8s_openapi::api::core::v1::{PodDNSConfigOption, PodSpec};

/// What resolvers read, and Kubernetes allows: so many servers,
const MAX_SERVERS: usize = 3;
/// so many search domains,
const MAX_SEARCHES: usize = 32;
/// and so many characters of them, with the spaces between.
const MAX_SEARCH_CHARACTERS: usize = 2048;

/// Reads a `resolv.conf`: all servers, the last list of search domains, all options. What it does not know, it
/// skips, as resolvers do.
pub(crate) fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                // A dot alone is the root, which is searched anyway.
                config.searches = words
                    .filter(|domain| *domain != ".")
                    .map(|domain| domain.strip_suffix('.').unwrap_or(domain).to_owned())
                    .collect();
            }
            Some("options") => words.for_each(|option| set_option(&mut config.options, option)),
            _ => {}
        }
    }
    config
}

/// The resolver configuration of a pod. There is no cluster DNS here, so `ClusterFirst` means the host's
/// configuration as well, which is also what a kubelet without a cluster DNS falls back to.
pub(crate) fn dns_config(spec: &PodSpec, host: &DnsConfig) -> DnsConfig {
    let mut config = match spec.dns_policy.as_deref() {
        Some("None") => DnsConfig::default(),
        _ => host.clone(),
    };
    if let Some(own) = &spec.dns_config {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        for PodDNSConfigOption { name, value } in own.options.iter().flatten() {
            let name = name.as_deref().unwrap_or_default();
            match value.as_deref().unwrap_or_default() {
                "" => set_option(&mut config.options, name),
                value => set_option(&mut config.options, &format!("{name}:{value}")),
            }
        }
    }
    config.servers = distinct(config.servers);
    config.servers.truncate(MAX_SERVERS);
    config.searches = distinct(config.searches);
    config.searches.truncate(MAX_SEARCHES);
    while config.searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        config.searches.pop();
    }
    config
}

/// Adds an option, `NAME` or `NAME:VALUE`, in the place of one with that name.
fn set_option(options: &mut Vec<String>, option: &str) {
    let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    match options.iter_mut().find(|known| name(known) == name(option)) {
        Some(known) => *known = option.to_owned(),
        None => options.push(option.to_owned()),
    }
}

/// The first of each.
fn distinct(mut words: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    words.retain(|word| seen.insert(word.clone()));
    words
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // `json!` literals read better without a `&`
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const HOST: &str = "# made by hand\n\
        nameserver 192.0.2.53\n\
        search old.example\n\
        search example.com. . lan\n\
        ; a comment\n\
        options ndots:2 timeout:1\n\
        options ndots:3 rotate\n\
        sortlist 10.0.0.0\n\
        nameserver 2001:db8::53\n";

    fn of(spec: Value) -> (Vec<String>, Vec<String>, Vec<String>) {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let config = dns_config(&spec, &parse_resolv_conf(HOST));
        (config.servers, config.searches, config.options)
    }

    #[test]
    fn a_resolv_conf_is_read_as_resolvers_do() {
        let config = parse_resolv_conf(HOST);
        assert_eq!(config.servers, ["192.0.2.53", "2001:db8::53"]);
        assert_eq!(config.searches, ["example.com", "lan"]);
        assert_eq!(config.options, ["ndots:3", "timeout:1", "rotate"]);
    }

    #[test]
    fn without_a_cluster_dns_every_policy_but_none_means_the_host() {
        let host = of(json!({}));
        assert_eq!(host.0, ["192.0.2.53", "2001:db8::53"]);
        for policy in ["Default", "ClusterFirst", "ClusterFirstWithHostNet"] {
            assert_eq!(of(json!({"dnsPolicy": policy})), host, "{policy}");
        }
        assert_eq!(of(json!({"dnsPolicy": "None"})), Default::default());
    }

    #[test]
    fn the_pods_own_configuration_is_added_and_its_options_win() {
        let own = json!({
            "nameservers": ["10.0.0.53", "192.0.2.53"],
            "searches": ["lan", "pods.example"],
            "options": [{"name": "ndots", "value": "5"}, {"name": "edns0"}],
        });
        let (servers, searches, options) = of(json!({"dnsConfig": own}));
        assert_eq!(servers, ["192.0.2.53", "2001:db8::53", "10.0.0.53"]);
        assert_eq!(searches, ["example.com", "lan", "pods.example"]);
        assert_eq!(options, ["ndots:5", "timeout:1", "rotate", "edns0"]);

        let (servers, searches, options) = of(json!({"dnsPolicy": "None", "dnsConfig": own}));
        assert_eq!(servers, ["10.0.0.53", "192.0.2.53"]);
        assert_eq!(searches, ["lan", "pods.example"]);
        assert_eq!(options, ["ndots:5", "edns0"]);
    }

    #[test]
    fn more_than_resolvers_read_is_left_out() {
        let many: Vec<_> = (0..40)
            .map(|number| format!("{}.{number}.example", "d".repeat(60)))
            .collect();
        let own = json!({"nameservers": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], "searches": many});
        let (servers, searches, _) = of(json!({"dnsPolicy": "None", "dnsConfig": own}));
        assert_eq!(servers.len(), 3);
        assert!(
            searches.len() < 32 && searches.join(" ").len() <= 2048,
            "{}",
            searches.len()
        );
    }
}
