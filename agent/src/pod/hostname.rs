//! What a pod is called inside: its host name and domain.

use k8s_openapi::api::core::v1::Pod;

/// The longest host name that pods get: what Kubernetes says and a DNS label holds.
const MAX_HOSTNAME: usize = 63;
/// The longest name the kernel keeps (`struct utsname`), without the byte that ends it.
const MAX_KERNEL_NAME: usize = 64;
/// The domain of names below `spec.subdomain`. There is no cluster here that would have another one.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// Why a pod cannot have the host name that it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostnameError {
    /// `setHostnameAsFQDN` with a name that the kernel cannot hold.
    #[error("the fully qualified name {name} has {} characters, and a host name has at most {MAX_KERNEL_NAME} (setHostnameAsFQDN)", name.len())]
    TooLong {
        /// The name with its domain.
        name: String,
    },
    /// Nothing is left of the name once it is short enough.
    #[error("{0:?} is no host name")]
    Empty(String),
}

/// The names of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hostname {
    /// `spec.hostname`, or the pod's name, cut to [`MAX_HOSTNAME`].
    pub(crate) name: String,
    /// `SUBDOMAIN.NAMESPACE.svc.cluster.local`; empty without `spec.subdomain`.
    pub(crate) domain: String,
}

impl Hostname {
    /// The names of this pod.
    pub(crate) fn of(pod: &Pod) -> Result<Hostname, HostnameError> {
        let spec = pod.spec.as_ref();
        let given = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
        if let Some(name) = given(spec.and_then(|spec| spec.hostname_override.as_ref())) {
            return Ok(Hostname {
                name: shortened(&name)?,
                domain: String::new(),
            });
        }
        let name = given(spec.and_then(|spec| spec.hostname.as_ref()))
            .or_else(|| pod.metadata.name.clone())
            .unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let domain = given(spec.and_then(|spec| spec.subdomain.as_ref()))
            .map(|subdomain| format!("{subdomain}.{namespace}.svc.{CLUSTER_DOMAIN}"))
            .unwrap_or_default();
        Ok(Hostname {
            name: shortened(&name)?,
            domain,
        })
    }

    /// What the kernel of the pod's sandbox answers to `uname`: with the domain if `setHostnameAsFQDN` says so.
    pub(crate) fn in_kernel(&self, as_fqdn: bool) -> Result<String, HostnameError> {
        if !as_fqdn || self.domain.is_empty() {
            return Ok(self.name.clone());
        }
        let name = format!("{}.{}", self.name, self.domain);
        if name.len() > MAX_KERNEL_NAME {
            return Err(HostnameError::TooLong { name });
        }
        Ok(name)
    }
}

/// The name as far as it fits, without a dash or dot at its end.
fn shortened(name: &str) -> Result<String, HostnameError> {
    let cut = match name.len() > MAX_HOSTNAME {
        true => name[..name.floor_char_boundary(MAX_HOSTNAME)].trim_end_matches(['-', '.']),
        false => name,
    };
    match cut.is_empty() {
        true => Err(HostnameError::Empty(name.to_owned())),
        false => Ok(cut.to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // `json!` literals read better without a `&`
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(name: &str, spec: Value) -> Result<(String, String), HostnameError> {
        let pod = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        Hostname::of(&pod).map(|hostname| (hostname.name, hostname.domain))
    }

    #[test]
    fn a_pod_is_called_by_its_hostname_else_by_its_name() {
        for (spec, name, domain) in [
            (json!({"containers": []}), "web", ""),
            (json!({"containers": [], "hostname": "db"}), "db", ""),
            (
                json!({"containers": [], "subdomain": "set"}),
                "web",
                "set.shop.svc.cluster.local",
            ),
            (
                json!({"containers": [], "hostname": "db", "subdomain": "set"}),
                "db",
                "set.shop.svc.cluster.local",
            ),
            (
                json!({"containers": [], "hostname": "db", "subdomain": "set", "hostnameOverride": "x.example"}),
                "x.example",
                "",
            ),
        ] {
            assert_eq!(
                of("web", spec.clone()),
                Ok((name.into(), domain.into())),
                "{spec}"
            );
        }
    }

    #[test]
    fn a_long_name_is_cut_to_63_characters_and_ends_in_a_letter_or_digit() {
        let spec = json!({"containers": []});
        let long = "a".repeat(70);
        assert_eq!(of(&long, spec.clone()).map(|names| names.0.len()), Ok(63));
        let dashed = format!("{}-.-{}", "a".repeat(60), "b".repeat(20));
        assert_eq!(of(&dashed, spec).map(|names| names.0), Ok("a".repeat(60)));
    }

    #[test]
    fn the_kernel_knows_the_domain_only_if_the_pod_says_so() {
        let hostname = Hostname {
            name: "web".into(),
            domain: "set.shop.svc.cluster.local".into(),
        };
        assert_eq!(hostname.in_kernel(false), Ok("web".into()));
        assert_eq!(
            hostname.in_kernel(true),
            Ok("web.set.shop.svc.cluster.local".into())
        );
        let alone = Hostname {
            name: "web".into(),
            domain: String::new(),
        };
        assert_eq!(alone.in_kernel(true), Ok("web".into()));
        let long = Hostname {
            name: "a".repeat(63),
            domain: "set.shop.svc.cluster.local".into(),
        };
        assert!(matches!(long.in_kernel(true), Err(HostnameError::TooLong { .. })));
    }
}
