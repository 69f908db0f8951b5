//! Files that a container, or somebody in its place, made to hurt who reads them.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use integration::{
    Agent, BUSYBOX, ContainerdVersion, ForeignPod, Node, debug_container, eventually, is_running,
    sleeping_pod, state_of,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

on_both_versions!(
    a_huge_etc_hosts_costs_the_agent_no_memory_and_the_pod_goes_on,
    a_pod_whose_etc_hosts_cannot_be_written_to_has_its_debug_containers,
    a_log_that_was_replaced_is_refused_and_holds_up_nothing,
    a_log_goes_into_a_sandbox_s_folder_only_where_root_alone_can_write,
);

async fn a_huge_etc_hosts_costs_the_agent_no_memory_and_the_pod_goes_on(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let mut agent = node.start_agent().await;
    let mut pod = sleeping_pod("web");
    // The first two times it is as any vandal; then it looks what became of it.
    let script = "test $(stat -c %s /etc/hosts) -lt 100000 || exit 3; \
                  echo x >>/scratch/runs; test $(wc -l </scratch/runs) -gt 2 && exec sleep 86400; \
                  truncate -s 400M /etc/hosts; exit 1";
    pod["spec"]["containers"][0]["command"] = json!(["sh", "-c", script]);
    let before = agent.process().most_resident_bytes();
    node.write_manifest("web.json", &pod);
    let served = agent
        .api()
        .pod_until("default", "web", |pod| {
            is_running(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 2
        })
        .await;
    let grown = agent.process().most_resident_bytes() - before;
    assert!(grown < 64 << 20, "the agent has grown by {} MiB", grown >> 20);
    let uid = served["metadata"]["uid"].as_str().unwrap();
    let hosts = node.folder().join(format!("state/pods/{uid}/etc-hosts"));
    let hosts = std::fs::read_to_string(hosts).unwrap();
    assert!(hosts.contains("localhost") && hosts.len() < 10_000, "{hosts}");
}

async fn a_pod_whose_etc_hosts_cannot_be_written_to_has_its_debug_containers(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    agent.api().pod_until("default", "web", is_running).await;
    // A file that runs as a program cannot be written to. (busybox knows by its name what it is to do.)
    let run = "cat /bin/busybox >/etc/hosts && chmod 755 /etc/hosts && ln -s /etc/hosts /tmp/sleep && \
               { /tmp/sleep 86400 >/dev/null 2>&1 & sleep 1; echo >>/etc/hosts || echo busy; }";
    let ran = node.debuglet(["exec", "web", "--", "sh", "-c", run]).await;
    assert!(ran.stdout.contains("busy"), "{ran:?}");
    let debug = debug_container("dbg", &["sh", "-c", "cat /etc/hosts; sleep 86400"]);
    assert_eq!(agent.api().debug("default", "web", &[debug]).await.status, 200);
    let runs = |pod: &serde_json::Value| state_of(pod, "dbg") == "running:";
    agent.api().pod_until("default", "web", runs).await;
    eventually("it has the pod's names", async || {
        let read = node.debuglet(["logs", "web", "-c", "dbg"]).await;
        match read.stdout.contains("localhost") && read.stdout.len() < 10_000 {
            true => Ok(()),
            false => Err(read.stdout.len()),
        }
    })
    .await;
}

async fn a_log_that_was_replaced_is_refused_and_holds_up_nothing(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    node.write_manifest("web.json", &sleeping_pod("web"));
    let served = agent.api().pod_until("default", "web", is_running).await;
    let uid = served["metadata"]["uid"].as_str().unwrap();
    let log = node.folder().join(format!("logs/default_web_{uid}/main/0.log"));
    let secret = node.folder().join("secret");
    std::fs::write(&secret, "2026-11-21T03:12:40.5Z stdout F a secret\n").unwrap();

    let path = log.to_string_lossy().into_owned();
    let put = async |words: &[&str]| {
        std::fs::remove_file(&log).unwrap();
        node.run(words.iter().copied()).await.succeeded();
    };
    for (make, why) in [
        (vec!["mkfifo", &path], "it is not a regular file"),
        // What an open would do to a device is not to be found out: this one is the kernel's random numbers.
        (vec!["mknod", &path, "c", "1", "9"], "it is not a regular file"),
        (
            vec!["ln", "-s", secret.to_str().unwrap(), &path],
            "it is a symbolic link",
        ),
    ] {
        put(&make).await;
        // More often than there are threads, and all at once.
        let query = ["", "tailLines=1", "follow=true", "tailLines=1&follow=true"];
        let all = (0..40).map(|number| read_log(&agent, query[number % query.len()]));
        for answer in futures_util::future::join_all(all).await {
            assert_eq!(answer.status, 500, "{make:?}: {answer:?}");
            let message = answer.body["message"].as_str().unwrap();
            assert!(
                message.contains(why) && message.contains(&path),
                "{make:?}: {message}"
            );
        }
        node.debuglet(["describe", "web"]).await.succeeded();
    }
    let debug = debug_container("dbg", &["sleep", "86400"]);
    assert_eq!(agent.api().debug("default", "web", &[debug]).await.status, 200);
    let runs = |pod: &serde_json::Value| state_of(pod, "dbg") == "running:";
    agent.api().pod_until("default", "web", runs).await;
}

async fn read_log(agent: &Agent, query: &str) -> integration::Answer {
    agent
        .api()
        .get(&format!("/api/v1/namespaces/default/pods/web/log?{query}"))
        .await
}

async fn a_log_goes_into_a_sandbox_s_folder_only_where_root_alone_can_write(version: ContainerdVersion) {
    let node = Node::start(version).await;
    let agent = node.start_agent().await;
    let victim = node.folder().join("victim");
    std::fs::write(&victim, "").unwrap();
    // As crictl's example, which logs to /tmp.
    let open = node.folder().join("open-logs");
    std::fs::create_dir_all(open.join("look")).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::symlink(&victim, open.join("look/0.log")).unwrap();
    std::os::unix::fs::chown(open.join("look"), Some(1000), Some(1000)).unwrap();
    ForeignPod::run_sleeping(&node.cri(), ForeignPod::config(&node, "open", "open-uid")).await;
    ForeignPod::run_sleeping(&node.cri(), ForeignPod::config(&node, "own", "own-uid")).await;
    for (pod, expected) in [
        ("open", node.folder().join("logs/shop_open_open-uid/look/0.log")),
        ("own", node.folder().join("own-logs/look/0.log")),
    ] {
        agent.api().pod_until("shop", pod, is_running).await;
        let debug = debug_container("look", &["sh", "-c", "echo a line; sleep 86400"]);
        assert_eq!(agent.api().debug("shop", pod, &[debug]).await.status, 200);
        let query = format!("/api/v1/namespaces/shop/pods/{pod}/log?container=look");
        eventually("the line is in the log", async || {
            let answer = agent.api().get(&query).await;
            if answer.body == "a line\n" {
                Ok(())
            } else {
                Err(answer)
            }
        })
        .await;
        assert!(expected.is_file(), "{}", expected.display());
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "");
}

/// A file system whose server never answers lies over a folder, as one on an NFS server that is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_whose_server_is_down_is_an_error_that_names_it_and_holds_up_nothing_else() {
    let node = Node::start(ContainerdVersion::V2_4).await;
    let agent = node.start_agent().await;
    let on_host = node.folder().join("on-host");
    std::fs::create_dir(&on_host).unwrap();
    let mut pod = sleeping_pod("web");
    let spec = &mut pod["spec"];
    spec["volumes"] = json!([{"name": "host", "hostPath": {"path": on_host}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "host", "mountPath": "/host"}]);
    node.write_manifest("web.json", &pod);
    agent.api().pod_until("default", "web", is_running).await;

    let script = "exec 9<>/dev/fuse && \
                  mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 dead \"$0\" && \
                  echo mounted && exec sleep 86400";
    let mut server = Command::new("sh");
    server.args(["-c", script]).arg(&on_host).stdin(Stdio::null());
    let server = node.spawn(server);
    eventually("it is mounted", async || match server.stdout().as_str() {
        "mounted\n" => Ok(()),
        _ => Err(server.stderr()),
    })
    .await;

    let image = format!("--image={BUSYBOX}");
    for number in 0..3 {
        let name = format!("looker-{number}");
        let words = [
            "debug",
            "--copy-mounts",
            "web",
            &image,
            "-c",
            &name,
            "--",
            "sleep",
            "1",
        ];
        let refused = node.debuglet(words).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        let why = format!(
            "the volume's server does not answer: nothing came of {} in 10 s",
            on_host.display()
        );
        assert!(refused.stderr.contains(&why), "{refused:?}");
    }
    // All else goes on: what is recorded, started and stopped.
    let debug = debug_container("dbg", &["sleep", "86400"]);
    assert_eq!(agent.api().debug("default", "web", &[debug]).await.status, 200);
    let runs = |pod: &serde_json::Value| state_of(pod, "dbg") == "running:";
    agent.api().pod_until("default", "web", runs).await;
    assert_eq!(
        agent.stop().await,
        0,
        "and a call that hangs does not hold up the end"
    );
    // An end of the server is the end of the mount.
    server.kill().await;
    node.run(["umount", "-l", on_host.to_str().unwrap()]).await;
}

/// Each follower has a place, and all of them one inotify instance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_share_one_inotify_instance_and_those_beyond_the_bound_are_told_to_come_again() {
    const PLACES: usize = 512;
    let node = Node::start(ContainerdVersion::V2_4).await;
    let mut agent = node.start_agent().await;
    let mut pod = sleeping_pod("web");
    pod["spec"]["containers"][0]["command"] = json!(["sh", "-c", "echo a line; exec sleep 86400"]);
    node.write_manifest("web.json", &pod);
    agent.api().pod_until("default", "web", is_running).await;
    let pid = agent.process().pid();
    let instances = || {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let open = open
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok());
        open.filter(|path| path.to_string_lossy().contains("inotify"))
            .count()
    };
    let before = (instances(), agent.resident_bytes());
    let mut followers = Vec::new();
    for _ in 0..PLACES {
        let mut connection = tokio::net::UnixStream::connect(agent.api().socket())
            .await
            .unwrap();
        let request =
            "GET /api/v1/namespaces/default/pods/web/log?follow=true HTTP/1.1\r\nHost: node\r\n\r\n";
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"a line\n\r\n") {
            let count = connection.read_buf(&mut answer).await.unwrap();
            assert_ne!(count, 0, "{}", String::from_utf8_lossy(&answer));
        }
        followers.push(connection);
    }
    assert_eq!(instances(), before.0 + 1);
    let grown = agent.resident_bytes() - before.1;
    println!("{PLACES} followers: {} KiB each", grown / 1024 / PLACES as u64);
    assert!(grown < 64 << 20, "the agent has grown by {} MiB", grown >> 20);

    let refused = read_log(&agent, "follow=true").await;
    assert_eq!(
        (refused.status, &refused.body["reason"]),
        (429, &json!("TooManyRequests"))
    );
    assert_eq!(
        read_log(&agent, "").await.body,
        "a line\n",
        "a log is read all the same"
    );
    followers.truncate(PLACES - 1);
    eventually("a place is free", async || {
        let mut connection = tokio::net::UnixStream::connect(agent.api().socket())
            .await
            .unwrap();
        let request =
            "GET /api/v1/namespaces/default/pods/web/log?follow=true HTTP/1.1\r\nHost: node\r\n\r\n";
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        connection.read_exact(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head).into_owned();
        if head.ends_with("200") { Ok(()) } else { Err(head) }
    })
    .await;
}
