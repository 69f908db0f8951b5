"""The official Python client against whom KUBECONFIG names: the pods web and echo run there."""

import json
import time

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

config.load_kube_config()
core = client.CoreV1Api()

names = sorted(pod.metadata.name for pod in core.list_namespaced_pod("default").items)
assert names == ["echo", "web"], names
first = core.list_pod_for_all_namespaces(limit=1)
assert len(first.items) == 1 and first.metadata._continue
print("list")

version = core.list_namespaced_pod("default").metadata.resource_version
core.patch_namespaced_pod("web", "default", {"metadata": {"labels": {"seen": "here"}}})
for event in watch.Watch().stream(
    core.list_namespaced_pod, "default", resource_version=version, timeout_seconds=30
):
    if event["object"].metadata.labels.get("seen") == "here":
        assert event["type"] == "MODIFIED", event["type"]
        break
else:
    raise AssertionError("the change was not seen")
print("watch")

container = {
    "name": "dbg",
    "image": "docker.io/library/busybox:latest",
    "imagePullPolicy": "IfNotPresent",
    "command": ["sh", "-c", "echo begun; while read line; do echo got $line; done; sleep 600"],
    "stdin": True,
}
core.patch_namespaced_pod_ephemeralcontainers(
    "web", "default", {"spec": {"ephemeralContainers": [container]}}
)
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    statuses = core.read_namespaced_pod("web", "default").status.ephemeral_container_statuses
    if statuses and statuses[0].state.running:
        break
    time.sleep(0.1)
else:
    raise AssertionError(f"it does not run: {statuses}")
print("patch")

attached = stream(
    core.connect_get_namespaced_pod_attach,
    "web",
    "default",
    container="dbg",
    stdin=True,
    stdout=True,
    stderr=True,
    _preload_content=False,
)
attached.write_stdin("this\n")
line = attached.readline_stdout(timeout=30)
assert line == "got this", line
attached.close()
print("attach")

executed = stream(
    core.connect_get_namespaced_pod_exec,
    "web",
    "default",
    container="main",
    command=["sh", "-c", "echo out; echo err >&2; exit 3"],
    stdout=True,
    stderr=True,
    _preload_content=False,
)
executed.run_forever(timeout=30)
assert executed.read_stdout() == "out\n" and executed.read_stderr() == "err\n"
assert executed.returncode == 3, executed.returncode
print("exec")

log = core.read_namespaced_pod_log("web", "default", container="dbg")
assert log == "begun\ngot this\n", log
print("log")

forward = portforward(core.connect_get_namespaced_pod_portforward, "echo", "default", ports="8080")
connection = forward.socket(8080)
connection.setblocking(True)
connection.sendall(b"ping")
answer = b""
while len(answer) < 4:
    piece = connection.recv(4096)
    assert piece, answer
    answer += piece
assert answer == b"ping", answer
assert forward.error(8080) is None, forward.error(8080)
print("portforward")

core.delete_namespaced_pod("web", "default", grace_period_seconds=0)
try:
    core.read_namespaced_pod("nope", "default")
    raise AssertionError("there is no such pod")
except ApiException as refused:
    assert refused.status == 404 and json.loads(refused.body)["reason"] == "NotFound"
print("gone")
