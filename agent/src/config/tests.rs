//! What the configuration file may say, and how it is refused.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/debuglet/config.toml"), "node1")
}

fn refusal(text: &str) -> String {
    parse(text).expect_err("refused").to_string()
}

#[test]
fn an_empty_file_means_the_defaults() {
    let config = parse("").expect("defaults");
    assert_eq!(config.node_name, "node1");
    assert_eq!(
        config.runtime_endpoint,
        Path::new("/run/containerd/containerd.sock")
    );
    assert_eq!(config.runtime_request_timeout, Duration::from_secs(120));
    assert_eq!(config.cgroup_driver, CgroupDriverSetting::Auto);
    assert_eq!(config.state_dir, Path::new("/var/lib/debuglet"));
    assert_eq!(config.log_dir, Path::new("/var/log/pods"));
    assert_eq!(config.api.listen, Some(([127, 0, 0, 1], 10260).into()));
    assert_eq!(config.api.group, None);
    assert!(!config.api.cluster_users);
    assert_eq!(config.manifests.path, Path::new("/etc/debuglet/manifests"));
    assert_eq!(
        config.registry.auth_file,
        Path::new("/etc/debuglet/registry-auth.json")
    );
    assert_eq!(config.socket(), Path::new("/run/debuglet/debuglet.sock"));
}

#[test]
fn every_key_is_taken() {
    let config = parse(
        r#"
node_name = "edge-7.example.com"
runtime_endpoint = "unix:///run/other.sock"
runtime_request_timeout_seconds = 7
cgroup_driver = "systemd"
state_dir = "/srv/state"
run_dir = "/srv/run"
log_dir = "/srv/log"
[api]
listen = "[::1]:6443"
group = "1234"
cluster_users = true
[manifests]
path = "/srv/manifests"
[registry]
auth_file = "/srv/auth.json"
[discovery]
enabled = false
static_manifests = "/srv/static"
[kubernetes]
kubeconfig = "/srv/kubeconfig"
take_over = "never"
kubelet_down_seconds = 5
"#,
    )
    .expect("a good file");
    assert_eq!(
        config,
        Config {
            node_name: "edge-7.example.com".to_owned(),
            runtime_endpoint: PathBuf::from("/run/other.sock"),
            runtime_request_timeout: Duration::from_secs(7),
            cgroup_driver: CgroupDriverSetting::Systemd,
            state_dir: PathBuf::from("/srv/state"),
            run_dir: PathBuf::from("/srv/run"),
            log_dir: PathBuf::from("/srv/log"),
            api: Api {
                listen: Some("[::1]:6443".parse().expect("an address")),
                group: Some(Gid::from_raw(1234)),
                cluster_users: true,
            },
            manifests: Manifests {
                path: PathBuf::from("/srv/manifests")
            },
            registry: Registry {
                auth_file: PathBuf::from("/srv/auth.json")
            },
            discovery: Discovery {
                enabled: false,
                static_manifests: Some(PathBuf::from("/srv/static")),
            },
            kubernetes: Kubernetes {
                kubeconfig: KubeconfigSetting::File(PathBuf::from("/srv/kubeconfig")),
                take_over: TakeOver::Never,
                kubelet_down_seconds: 5,
            },
        }
    );
}

#[test]
fn the_api_server_is_reached_by_a_file_from_within_or_not_at_all() {
    let setting = |text: &str| {
        let text = format!("[kubernetes]\nkubeconfig = {text}");
        parse(&text).expect("a good file").kubernetes.kubeconfig
    };
    assert_eq!(
        parse("").expect("defaults").kubernetes.kubeconfig,
        KubeconfigSetting::Kubelet
    );
    assert_eq!(setting("\"\""), KubeconfigSetting::Off);
    assert_eq!(setting("\"in-cluster\""), KubeconfigSetting::InCluster);
    assert_eq!(setting("\"/a\""), KubeconfigSetting::File(PathBuf::from("/a")));
}

#[test]
fn an_unknown_key_is_refused_by_line_with_the_key_that_was_meant() {
    for (text, expected) in [
        (
            "# a\n\nnodename = \"a\"",
            r#":3: unknown key "nodename"; did you mean "node_name"?"#,
        ),
        (
            "node-name = \"a\"",
            r#":1: unknown key "node-name"; did you mean "node_name"?"#,
        ),
        (
            "[manifests]\npaht = \"/a\"",
            r#":2: unknown key "manifests.paht"; did you mean "manifests.path"?"#,
        ),
        (
            "[registry]\nzzz = 1",
            r#":2: unknown key "registry.zzz"; there are: registry.auth_file"#,
        ),
        (
            "[registries]\n",
            r#":1: unknown key "registries"; did you mean "registry"?"#,
        ),
    ] {
        assert_eq!(refusal(text), format!("/etc/debuglet/config.toml{expected}"));
    }
}

#[test]
fn a_bad_value_is_refused_by_line_and_key() {
    for (text, expected) in [
        (
            "[kubernetes]\nkubelet_down_seconds = 0",
            ":2: kubernetes.kubelet_down_seconds must be a number of seconds, 1 or more",
        ),
        (
            "[kubernetes]\ntake_over = \"always\"",
            ":2: kubernetes.take_over: \"always\" is none of never, when-kubelet-is-down",
        ),
        (
            "[kubernetes]\nkubeconfig = \"admin.conf\"",
            ":2: kubernetes.kubeconfig: \"admin.conf\" is not an absolute path, nor \"in-cluster\"; \"\" turns it off",
        ),
        (
            "\nnode_name = 7",
            ":2: node_name must be a string, not an integer",
        ),
        (
            "manifests = \"/a\"",
            ":1: manifests must be a table, not a string",
        ),
        (
            "node_name = \"Node_1\"",
            ":1: node_name: \"Node_1\" is not a DNS subdomain",
        ),
        (
            "node_name = \"a..b\"",
            ":1: node_name: \"a..b\" is not a DNS subdomain",
        ),
        ("node_name = \"\"", ":1: node_name: \"\" is not a DNS subdomain"),
        (
            "runtime_endpoint = \"tcp://1.2.3.4:5\"",
            "\"tcp://1.2.3.4:5\" is not a Unix socket",
        ),
        (
            "runtime_endpoint = \"unix://run/a.sock\"",
            "does not name an absolute path",
        ),
        ("runtime_endpoint = \"\"", "does not name an absolute path"),
        (
            "cgroup_driver = \"cgroupv2\"",
            "\"cgroupv2\" is none of auto, systemd, cgroupfs",
        ),
        (
            "[api]\nlisten = \"localhost:10260\"",
            ":2: api.listen: \"localhost:10260\" is not an address and a port",
        ),
        (
            "[api]\nlisten = \"127.0.0.1\"",
            ":2: api.listen: \"127.0.0.1\" is not an address and a port",
        ),
        (
            "[api]\nport = 1",
            ":2: unknown key \"api.port\"; there are: api.listen, api.group, api.cluster_users",
        ),
        (
            "api.group = \"no-such-group\"",
            ":1: api.group: there is no group \"no-such-group\" on this node",
        ),
        (
            "state_dir = \"var/lib\"",
            ":1: state_dir: \"var/lib\" is not an absolute path",
        ),
        (
            "log_dir = \"/a/../b\"",
            ":1: log_dir: \"/a/../b\" must not contain \"..\"",
        ),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
}

#[test]
fn what_is_not_toml_is_refused_by_line() {
    for (text, line) in [
        ("a = 1\nnode_name =", ":2: "),
        ("node_name = \"a\"\nnode_name = \"b\"", ":2: "),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(line) && !refusal.contains('\n'), "{refusal}");
    }
}

#[test]
fn an_empty_address_turns_tcp_off_and_a_group_is_taken_by_its_name() {
    let config = parse("[api]\nlisten = \"\"\ngroup = \"root\"").expect("a good file");
    assert_eq!(config.api.listen, None);
    assert_eq!(config.api.group, Some(Gid::from_raw(0)));
}

#[test]
fn a_path_alone_names_the_endpoint_too() {
    let config = parse("runtime_endpoint = \"/run/a.sock\"").expect("a path");
    assert_eq!(config.runtime_endpoint, Path::new("/run/a.sock"));
}

#[test]
fn a_manifests_folder_is_no_kubelets_and_not_in_the_state() {
    for (path, expected) in [
        (
            "/etc/kubernetes/manifests",
            "in /etc/kubernetes, which belongs to a kubelet",
        ),
        (
            "/var/lib/kubelet/pods",
            "in /var/lib/kubelet, which belongs to a kubelet",
        ),
        ("/var/lib/debuglet/manifests", "in state_dir /var/lib/debuglet"),
    ] {
        let refusal = refusal(&format!("\n[manifests]\npath = \"{path}\""));
        assert!(
            refusal.contains(":3: manifests.path: ") && refusal.contains(expected),
            "{refusal}"
        );
    }
    assert_eq!(
        refusal("\nstate_dir = \"/etc/debuglet\""),
        "/etc/debuglet/config.toml:2: manifests.path: /etc/debuglet/manifests is in state_dir /etc/debuglet"
    );
    parse("[manifests]\npath = \"/etc/kubernetes-lab\"").expect("a folder that only begins alike");
}

#[test]
fn a_link_to_a_folder_in_the_state_is_that_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().canonicalize().expect("its path");
    fs::create_dir_all(root.join("state/manifests")).expect("a folder");
    std::os::unix::fs::symlink(root.join("state/manifests"), root.join("link")).expect("a link");
    let text = format!(
        "state_dir = \"{0}/state\"\nmanifests.path = \"{0}/link\"",
        root.display()
    );
    assert!(refusal(&text).contains("is in state_dir"));
}

#[test]
fn the_hosts_name_is_the_nodes_in_lower_case() {
    let file = Path::new("c.toml");
    assert_eq!(
        Config::parse("", file, "Node1").expect("a name").node_name,
        "node1"
    );
    let refused = Config::parse("", file, "my_host")
        .expect_err("refused")
        .to_string();
    assert!(refused.contains("set node_name in c.toml"), "{refused}");
    Config::parse("node_name = \"a\"", file, "my_host").expect("a configured name needs no host's");
}

#[test]
fn a_file_that_is_named_must_exist() {
    let refused = Config::load(Some(Path::new("/nonexistent/c.toml")))
        .expect_err("refused")
        .to_string();
    assert!(
        refused.starts_with("cannot read the configuration /nonexistent/c.toml: "),
        "{refused}"
    );
}
