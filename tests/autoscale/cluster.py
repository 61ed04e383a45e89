"""Kubernetes for tests, over real HTTP in this process: what the driver and the workers use of it, with its refusals.

The ReplicaSet takes pods away in the order in which the real one ranks them - without a node, pending, not ready, lowest
deletion cost, newest - whatever they do, and notes when one was busy. Workers are simulated: each pod boots, takes jobs, marks
itself by the driver's own `Marker`, and leaves when it is asked and idle.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from millrace.autoscale.drivers.cluster import Api
from millrace.autoscale.drivers.kubernetes import COST, Marker
from millrace.autoscale.signals import Demand, Worker

TOKEN = "a-token"


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


class Cluster:
    """One namespace, `shop`. Everything is done under one lock; the controllers act after each request."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.now = time.time()
        self.version = itertools.count(1)
        self.number = itertools.count(1)
        self.deployments: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.nodes = 100
        self.allowed = True
        self.killed_busy: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.workers: dict[str, Worker] = {}
        self.asked: set[str] = set()

    # -- what the tests set up -----------------------------------------------------------------------------------
    def add_deployment(self, name: str, replicas: int = 0) -> None:
        labels = {"app": name}
        self.deployments[name] = {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": self._about(name),
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}},
        }  # fmt: skip
        self.reconcile()

    def add_suspended_job(self, name: str) -> None:
        own = {"controller-uid": "u", "job-name": name, "batch.kubernetes.io/controller-uid": "u", "app": name}
        self.jobs[name] = {
            "apiVersion": "batch/v1", "kind": "Job", "metadata": self._about(name),
            "spec": {"suspend": True, "backoffLimit": 0, "selector": {"matchLabels": {"controller-uid": "u"}},
                     "template": {"metadata": {"labels": own}, "spec": {"containers": [{"name": "w", "image": "m"}]}}},
        }  # fmt: skip

    # -- what happens in the cluster -----------------------------------------------------------------------------
    def reconcile(self) -> None:
        for name, deployment in self.deployments.items():
            own = [p for p in self.pods.values() if p["metadata"]["labels"].get("app") == name]
            own = [p for p in own if "deletionTimestamp" not in p["metadata"]]
            want = deployment["spec"]["replicas"]
            for _ in range(want - len(own)):
                self._pod(name, {"app": name}, None)
            for pod in sorted(own, key=rank)[: max(0, len(own) - want)]:
                self.kill(pod)
        for job in list(self.jobs.values()):
            if not job["spec"].get("suspend") and "pod" not in job:
                name = job["metadata"]["name"]
                job["pod"] = self._pod(name, job["spec"]["template"]["metadata"]["labels"], name)

    def kill(self, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        worker = self.workers.pop(name, None)
        if worker is not None and worker.state == "busy":
            self.killed_busy.append(name)
        del self.pods[name]

    def boot(self, limit: int | None = None) -> None:
        """Pods get nodes while there are some, and their workers come up."""
        with self.lock:
            for pod in self.pods.values():
                conditions = pod["status"]["conditions"]
                if pod["status"]["phase"] != "Pending":
                    continue
                if sum(p["status"]["phase"] == "Running" for p in self.pods.values()) >= self.nodes:
                    conditions[:] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
                    continue
                if limit is not None and limit <= 0:
                    return
                limit = None if limit is None else limit - 1
                pod["status"]["phase"] = "Running"
                conditions[:] = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]
                name = pod["metadata"]["name"]
                self.workers[name] = Worker(1, name, "idle", self.now, f"id-{name}")

    def tell(self, name: str, state: str, marker: Callable[[str, str], None] | None = None) -> None:
        """A worker is in that state from now on, and marks its pod."""
        self.workers[name] = Worker(1, name, state, self.now, f"id-{name}")
        if marker is not None:
            marker(name, state)

    # -- the crew, as the job table tells it ---------------------------------------------------------------------
    def crew(self, tier: str) -> Sequence[Worker]:
        return list(self.workers.values())

    def ask(self, worker: Worker) -> None:
        self.asked.add(worker.host)

    # -- HTTP ----------------------------------------------------------------------------------------------------
    def answer(self, method: str, path: str, kind: str, token: str, body: Any) -> Any:
        self.requests.append((method, path))
        if token != f"Bearer {TOKEN}":
            raise Refused(401, "Unauthorized")
        split = urlsplit(path)
        found = re.fullmatch(
            r"/(?:api/v1|apis/apps/v1|apis/batch/v1)/namespaces/([^/]+)/(\w+)(?:/([^/]+))?(?:/(\w+))?", split.path
        )
        if found is None:
            raise Refused(404, "the server could not find the requested resource")
        namespace, kinds, name, sub = found.groups()
        right = {"pods": "/api/v1", "deployments": "/apis/apps/v1", "jobs": "/apis/batch/v1"}.get(kinds, "?")
        if not split.path.startswith(right):
            raise Refused(404, "the server could not find the requested resource")
        if namespace != "shop" or not self.allowed:
            raise Refused(
                403, f'{kinds} is forbidden: User "sa" cannot {method.lower()} in the namespace "{namespace}"'
            )
        store = getattr(self, kinds)
        if name is not None and name not in store:
            raise Refused(404, f'{kinds} "{name}" not found')
        query = parse_qs(split.query)
        if method == "GET" and name is None:
            wanted = dict(pair.split("=") for pair in query["labelSelector"][0].split(","))
            items = [one for one in store.values() if wanted.items() <= one["metadata"].get("labels", {}).items()]
            return {"kind": "List", "items": [shown(one) for one in items]}
        if method == "GET" and sub == "scale":
            return self._scale(store[name])
        if method == "GET":
            return shown(store[name])
        if method == "PUT" and sub == "scale":
            return self._rescale(store[name], body)
        if method == "PATCH" and kinds == "pods":
            if kind != "application/merge-patch+json":
                raise Refused(
                    415, f"the body of the request was in an unknown format - accepted media types include: {kind}"
                )
            store[name]["metadata"].setdefault("annotations", {}).update(checked(body["metadata"]["annotations"]))
            return shown(store[name])
        if method == "DELETE":
            if kinds == "jobs":
                self.kill(store[name]["pod"])
                del store[name]
            else:
                self.kill(store[name])
            self.reconcile()
            return {"kind": "Status", "status": "Success"}
        if method == "POST" and kinds == "jobs":
            return self._new_job(body)
        raise Refused(405, "the server does not allow this method on the requested resource")

    def _scale(self, deployment: dict[str, Any]) -> dict[str, Any]:
        about = deployment["metadata"]
        spec = {"replicas": deployment["spec"]["replicas"]} if deployment["spec"]["replicas"] else {}  # as the real one
        return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": dict(about), "spec": spec}

    def _rescale(self, deployment: dict[str, Any], body: Any) -> dict[str, Any]:
        about = deployment["metadata"]
        if body["metadata"]["resourceVersion"] != about["resourceVersion"]:
            raise Refused(
                409, "the object has been modified; please apply your changes to the latest version and try again"
            )
        replicas = body["spec"].get("replicas", 0)
        if not isinstance(replicas, int) or replicas < 0:
            raise Refused(422, f"spec.replicas: Invalid value: {replicas}: must be greater than or equal to 0")
        deployment["spec"]["replicas"] = replicas
        about["resourceVersion"] = str(next(self.version))
        self.reconcile()
        return self._scale(deployment)

    def _new_job(self, body: Any) -> dict[str, Any]:
        labels = body["spec"]["template"]["metadata"]["labels"]
        if "selector" in body["spec"] or any("controller-uid" in label or "job-name" in label for label in labels):
            raise Refused(422, "Job is invalid: spec.selector: Invalid value: `selector` not auto-generated")
        name = body["metadata"]["generateName"] + str(next(self.number))
        self.jobs[name] = {
            **body,
            "metadata": {**self._about(name), "labels": body["metadata"]["labels"]},
            "status": {},
        }
        self.reconcile()
        return shown(self.jobs[name])

    def _pod(self, name: str, labels: dict[str, str], job: str | None) -> dict[str, Any]:
        about = {**self._about(f"{name}-{next(self.number)}"), "labels": labels}
        if job is not None:
            about["ownerReferences"] = [{"kind": "Job", "name": job}]
        pod = {"metadata": about, "status": {"phase": "Pending", "conditions": []}}
        self.pods[about["name"]] = pod
        return pod

    def _about(self, name: str) -> dict[str, Any]:
        stamp = datetime.fromtimestamp(self.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"name": name, "creationTimestamp": stamp, "resourceVersion": str(next(self.version))}


def rank(pod: dict[str, Any]) -> tuple[Any, ...]:
    """Who goes first, as `controller_utils.ActivePodsWithRanks` has it."""
    conditions = {one["type"]: one["status"] for one in pod["status"]["conditions"]}
    cost = int(pod["metadata"].get("annotations", {}).get(COST, "0"))
    newest = -datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()
    return (
        conditions.get("PodScheduled") == "True",
        pod["status"]["phase"] == "Running",
        conditions.get("Ready") == "True",
        cost,
        newest,
    )


def shown(one: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key != "pod"}


def checked(annotations: dict[str, Any]) -> dict[str, str]:
    for key, value in annotations.items():
        if not isinstance(value, str):
            raise Refused(400, f"json: cannot unmarshal {value!r} into annotations of type string")
        if key == COST and not (-(2**31) <= int(value) < 2**31):
            raise Refused(422, f"metadata.annotations[{key}]: Invalid value: not an int32")
    return annotations


@contextmanager
def serving(cluster: Cluster) -> Iterator[str]:
    """The URL of the cluster's API on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            with cluster.lock:
                try:
                    status, said = 200, cluster.answer(
                        self.command, self.path, self.headers.get("Content-Type", ""), self.headers.get("Authorization", ""), body
                    )  # fmt: skip
                except Refused as refused:
                    status = refused.status
                    said = {"kind": "Status", "status": "Failure", "message": refused.message, "code": status}
                raw = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _do

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Markers:
    """Each pod's own marker."""

    def __init__(self, api: Api, say: Callable[[str], None]) -> None:
        self._api, self._say, self._of = api, say, dict[str, Marker]()

    def __call__(self, pod: str, state: str) -> None:
        self._of.setdefault(pod, Marker(self._api, "shop", pod, self._say))(state)


class Work:
    """Jobs that the simulated workers take: a queue of lengths in ticks."""

    def __init__(self, cluster: Cluster, markers: Markers | None) -> None:
        self.cluster, self.markers = cluster, markers
        self.queue: list[int] = []
        self.running: dict[str, int] = {}
        self.done = 0

    def demand(self, tier: str) -> Demand:
        return Demand(len(self.queue), 0.0, len(self.running), 0.0, 0)

    def step(self) -> None:
        """A while later: jobs go on, the idle take new ones, who was asked and is idle leaves."""
        cluster = self.cluster
        for name, left in list(self.running.items()):
            self.running[name] = left - 1
            if left <= 1 and name in cluster.workers:
                del self.running[name]
                self.done += 1
                cluster.tell(name, "idle", self.markers)
        for name, worker in list(cluster.workers.items()):
            if worker.state != "idle":
                continue
            if name in cluster.asked:
                cluster.asked.discard(name)
                if self.markers is not None:
                    cluster.tell(name, "draining", self.markers)
                else:
                    self._ends(name)
            elif self.queue:
                self.running[name] = self.queue.pop(0)
                cluster.tell(name, "busy", self.markers)

    def _ends(self, name: str) -> None:
        """A worker of a Job exits 0, and its Job is complete."""
        cluster = self.cluster
        with cluster.lock:
            pod = cluster.pods[name]
            pod["status"]["phase"] = "Succeeded"
            (owner,) = pod["metadata"]["ownerReferences"]
            cluster.jobs[owner["name"]]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
            del cluster.workers[name]
