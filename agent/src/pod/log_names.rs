//! What folders and links of a pod's logs are called. A kubelet's names are made of those of the pod; but a sandbox may be
//! called anything, and then only its UID goes into a path.

use k8s_openapi::api::core::v1::Pod;

use super::validation::{is_dns_label, is_dns_subdomain};

/// The longest file name of the file systems that Linux has, in bytes.
const MAX_NAME_BYTES: usize = 255;
const SUFFIX: &str = ".log";

/// The name of a pod's folder below that of all pods' logs: `NAMESPACE_NAME_UID`; the UID alone where namespace or name
/// are not of the form that Kubernetes asks for, or too long together (an external pod; one of ours is refused then). A
/// UID is always of a form that names one file (`uid_of`).
pub(crate) fn log_folder(pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let named = sound_names(pod).map(|(namespace, name)| format!("{namespace}_{name}_{uid}"));
    named
        .filter(|folder| folder.len() <= MAX_NAME_BYTES)
        .unwrap_or_else(|| uid.to_owned())
}

/// The name of the link to a container's log, through which log shippers find it: `NAME_NAMESPACE_CONTAINER-ID.log`, cut
/// where a file system would not take it; with the UID in place of the pod's two names where those are not sound. The
/// container is one of ours.
pub(crate) fn log_link(pod: &Pod, container: &str, container_id: &str) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let of_pod = match sound_names(pod) {
        Some((namespace, name)) => format!("{name}_{namespace}"),
        None => uid.to_owned(),
    };
    let mut link = format!("{of_pod}_{container}-{container_id}");
    // All parts are ASCII by Kubernetes' and the runtime's rules; a cut inside of something else keeps it whole.
    link.truncate(link.floor_char_boundary(MAX_NAME_BYTES - SUFFIX.len()));
    link + SUFFIX
}

/// Whether a container's name can be that of its folder.
pub(crate) fn is_container_name(name: &str) -> bool {
    is_dns_label(name)
}

/// The pod's namespace and name, where both can stand in a path.
fn sound_names(pod: &Pod) -> Option<(&str, &str)> {
    let metadata = &pod.metadata;
    let (namespace, name) = (metadata.namespace.as_deref()?, metadata.name.as_deref()?);
    (is_dns_label(namespace) && is_dns_subdomain(name)).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn pod(namespace: &str, name: &str) -> Pod {
        Pod {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                name: Some(name.to_owned()),
                uid: Some("u-1".to_owned()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        }
    }

    #[test]
    fn a_folder_has_no_longer_name_than_a_file_system_takes() {
        let longest = "c".repeat(255 - "shop__u-1".len());
        assert_eq!(log_folder(&pod("shop", &longest)).len(), 255);
        // Names are sound up to 253 characters.
        assert_eq!(log_folder(&pod("shop", &"c".repeat(253))), "u-1");
    }

    #[test]
    fn only_names_of_kubernetes_form_go_into_paths() {
        for (namespace, name, folder, link) in [
            ("shop", "cart", "shop_cart_u-1", "cart_shop_app-0a1b.log"),
            ("shop", "cart.v1", "shop_cart.v1_u-1", "cart.v1_shop_app-0a1b.log"),
            ("shop", "../../x", "u-1", "u-1_app-0a1b.log"),
            ("shop", "/x", "u-1", "u-1_app-0a1b.log"),
            ("..", "cart", "u-1", "u-1_app-0a1b.log"),
            ("a/b", "cart", "u-1", "u-1_app-0a1b.log"),
            ("", "cart", "u-1", "u-1_app-0a1b.log"),
            ("shop", "", "u-1", "u-1_app-0a1b.log"),
            ("shop", "cart\n", "u-1", "u-1_app-0a1b.log"),
            ("shop", "till_1", "u-1", "u-1_app-0a1b.log"),
        ] {
            let pod = pod(namespace, name);
            assert_eq!(log_folder(&pod), folder, "{namespace:?} {name:?}");
            assert_eq!(log_link(&pod, "app", "0a1b"), link, "{namespace:?} {name:?}");
        }
        for (name, sound) in [
            ("app", true),
            ("..", false),
            ("/etc", false),
            ("a/b", false),
            ("", false),
        ] {
            assert_eq!(is_container_name(name), sound, "{name:?}");
        }
    }

    #[test]
    fn a_link_is_cut_where_a_file_system_would_not_take_it() {
        let long = log_link(&pod("n", &"p".repeat(253)), "c", "0a1b");
        assert_eq!(long.len(), MAX_NAME_BYTES);
        assert!(long.ends_with("p.log"));
    }
}
