"""Replicas as pods of a Kubernetes cluster: of a Deployment whose replicas are set, here or by KEDA, or a Job each that ends by
itself.

A Deployment's ReplicaSet chooses which pods go when replicas go down, so they go down only by as many as have drained: a
drained worker waits, its pod marked with the lowest deletion cost, busy ones with the highest, and while a pod that may be busy
is not ready - those go before any cost - nothing goes down. Workers are asked to leave by the job table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from millrace.autoscale.drivers.asking import Ledger, Replica, ask_idle, supply
from millrace.autoscale.drivers.cluster import Api, ClusterRefused
from millrace.autoscale.policy import FAILED_BOOTS, Decision
from millrace.autoscale.signals import UNBOUNDED, Foreman, Supply
from millrace.run.errors import MillraceError
from millrace.tiers import Tier

COST = "controller.kubernetes.io/pod-deletion-cost"
COSTS = {"draining": -(2**31), "idle": 0, "busy": 2**31 - 1}
TIER = "millrace/tier"
_OF_JOB_CONTROLLER = (
    "controller-uid",
    "job-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
)

Pods = list[tuple[dict[str, Any], Replica]]


class Marker:
    """Writes the deletion cost of one's own pod: call it with each state of the worker. `say` hears what was refused; it is
    tried again at the next call, and a pod without its mark is not counted as drained."""

    def __init__(self, api: Api, namespace: str, pod: str, say: Callable[[str], None]) -> None:
        self._api, self._say, self._written = api, say, ""
        self._path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}"

    def __call__(self, state: str) -> None:
        if state == self._written:
            return
        try:
            self._api.merge(self._path, {"metadata": {"annotations": {COST: str(COSTS[state])}}})
        except MillraceError as refused:
            self._say(str(refused))
        else:
            self._written = state


class _Cluster:
    """What both modes do."""

    def __init__(
        self, api: Api, namespace: str, workload: Callable[[Tier], str], crew: Foreman,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._api, self._namespace, self._workload, self._crew, self._clock = api, namespace, workload, crew, clock
        self._ledgers: dict[str, Ledger] = {}

    def _path(self, kind: str, name: str = "", sub: str = "") -> str:
        group = {"pods": "/api/v1", "deployments": "/apis/apps/v1", "jobs": "/apis/batch/v1"}[kind]
        parts = [group, "namespaces", quote(self._namespace), kind, quote(name), sub]
        return "/".join(part for part in parts if part)

    def _pods(self, tier: Tier, labels: Mapping[str, str]) -> Pods:
        """The pods that are alive, with their workers."""
        ledger = self._ledgers.setdefault(tier.name, Ledger())
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        crew = {worker.host: worker for worker in self._crew.crew(tier.name)}
        found = []
        for pod in self._api.get(self._path("pods"), labelSelector=selector)["items"]:
            about, status = pod["metadata"], pod.get("status", {})
            if status.get("phase") in ("Succeeded", "Failed"):
                continue
            age_s = max(0.0, self._clock() - _seconds(about["creationTimestamp"]))
            going = "deletionTimestamp" in about
            found.append((pod, ledger.see(about["name"], crew.get(about["name"]), age_s, going)))
        ledger.keep([replica.name for _, replica in found])
        return found

    def _late(self, tier: Tier, pods: Pods) -> list[Replica]:
        limit_s = FAILED_BOOTS * self._ledgers[tier.name].boot_s(tier)
        return [replica for _, replica in pods if not replica.up and not replica.going and replica.age_s > limit_s]

    def _ask(self, tier: Tier, pods: Pods, decision: Decision, coming: int) -> None:
        replicas = [replica for _, replica in pods]
        ask_idle(self._ledgers[tier.name], replicas, decision, self._crew, self._clock(), coming)

    def _supply(self, tier: Tier, pods: Pods, coming: int) -> Supply:
        """A pod that no node has room for says how many the cluster holds: those that have one."""
        homeless = [pod for pod, _ in pods if _condition(pod, "PodScheduled") == ("False", "Unschedulable")]
        capacity = len(pods) - len(homeless) if homeless else UNBOUNDED
        ledger, replicas = self._ledgers[tier.name], [replica for _, replica in pods]
        return supply(tier, ledger, replicas, self._clock(), coming, capacity)


class Deployments(_Cluster):
    """A Deployment a tier. `workload` names it."""

    def observe(self, tier: Tier) -> Supply:
        deployment = self._api.get(self._path("deployments", self._workload(tier)))
        pods = self._pods(tier, deployment["spec"]["selector"]["matchLabels"])
        return self._supply(tier, pods, _coming(deployment["spec"]["replicas"], pods))

    def apply(self, tier: Tier, decision: Decision) -> None:
        """First those that have drained go, then what was decided."""
        if decision.serving is None:
            return
        name = self._workload(tier)
        deployment = self._api.get(self._path("deployments", name))
        pods = self._pods(tier, deployment["spec"]["selector"]["matchLabels"])
        asked_for = int(deployment["spec"]["replicas"])
        drained = [replica for pod, replica in pods if _drained(pod, replica)]
        going_down = len(drained) if drained and not _in_danger(pods) else 0
        staying = asked_for - going_down
        ledger, now = self._ledgers[tier.name], self._clock()
        leaving = sum(ledger.leaving(r, now) and not r.going for _, r in pods) - going_down
        wanted = decision.serving + decision.start + leaving if decision.start else 0
        self._set(name, asked_for, max(staying, min(wanted, tier.most)))
        if decision.give_up:
            for replica in self._late(tier, pods)[: decision.give_up]:  # the ReplicaSet makes another one
                self._api.delete(self._path("pods", replica.name), {"apiVersion": "v1", "kind": "DeleteOptions"})
        if decision.drain:
            self._ask(tier, pods, decision, _coming(asked_for, pods))

    def _set(self, name: str, was: int, replicas: int) -> None:
        if replicas == was:
            return
        path = self._path("deployments", name, "scale")
        scale = self._api.get(path)
        if scale["spec"].get("replicas", 0) != was:
            raise ClusterRefused(
                f"The replicas of {name} were changed by somebody else: the next tick looks again.", 409
            )
        scale["spec"]["replicas"] = replicas
        self._api.put(path, scale)  # with its version: a change in between is refused


class Desired(Deployments):
    """Deployments whose replicas KEDA sets, as `desired` tells; workers are asked to leave, failed boots are ended, and what is
    desired goes down only by as many as have drained: KEDA by itself would let the ReplicaSet choose a busy pod."""

    desired: dict[str, int]

    def observe(self, tier: Tier) -> Supply:
        self._names[self._workload(tier)] = tier.name
        return super().observe(tier)

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._names, self.desired = dict[str, str](), {}

    def _set(self, name: str, was: int, replicas: int) -> None:
        self.desired[self._names[name]] = replicas


class JobEach(_Cluster):
    """A Job a replica, made after a suspended one that `workload` names; its worker ends by itself, and the Job with it."""

    def observe(self, tier: Tier) -> Supply:
        jobs, pods = self._both(tier)
        return self._supply(tier, pods, _coming(len(jobs), pods))

    def apply(self, tier: Tier, decision: Decision) -> None:
        if decision.serving is None:
            return
        jobs, pods = self._both(tier)
        if decision.give_up:
            late = {replica.name for replica in self._late(tier, pods)[: decision.give_up]}
            for job in {_owner(pod) for pod, _ in pods if pod["metadata"]["name"] in late}:
                self._delete(job)
            jobs, pods = self._both(tier)
        ledger, now = self._ledgers[tier.name], self._clock()
        leaving = sum(ledger.leaving(replica, now) for _, replica in pods)
        if decision.start:
            missing = decision.serving + decision.start + leaving - len(jobs)
            for _ in range(max(0, min(missing, tier.most - len(jobs)))):
                self._start(tier)
        if decision.drain:
            self._ask(tier, pods, decision, _coming(len(jobs), pods))

    def _both(self, tier: Tier) -> tuple[list[dict[str, Any]], Pods]:
        found = self._api.get(self._path("jobs"), labelSelector=f"{TIER}={tier.name}")["items"]
        jobs = [job for job in found if not job["spec"].get("suspend") and not _over(job)]
        return jobs, self._pods(tier, {TIER: tier.name})

    def _start(self, tier: Tier) -> None:
        name = self._workload(tier)
        made = self._api.get(self._path("jobs", name))
        spec = {key: value for key, value in made["spec"].items() if key not in ("selector", "suspend")}
        template = dict(spec["template"])
        about = template.get("metadata", {})
        labels = {k: v for k, v in about.get("labels", {}).items() if k not in _OF_JOB_CONTROLLER}
        template["metadata"] = {**about, "labels": {**labels, TIER: tier.name}}
        body = {
            "apiVersion": "batch/v1", "kind": "Job", "spec": {**spec, "template": template},
            "metadata": {"generateName": f"{name}-", "labels": {TIER: tier.name}},
        }  # fmt: skip
        self._api.post(self._path("jobs"), body)

    def _delete(self, job: str) -> None:
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        self._api.delete(self._path("jobs", job), options)


def _drained(pod: Mapping[str, Any], replica: Replica) -> bool:
    """Its worker waits for its end, and the ReplicaSet has been told."""
    marked = pod["metadata"].get("annotations", {}).get(COST) == str(COSTS["draining"])
    return marked and not replica.going and replica.worker is not None and replica.worker.state == "draining"


def _in_danger(pods: Pods) -> bool:
    """Whether a pod that may be busy is not ready: it would go before any that has drained."""
    return any(replica.busy and _condition(pod, "Ready")[0] != "True" for pod, replica in pods)


def _coming(asked_for: int, pods: Pods) -> int:
    return max(0, asked_for - sum(not replica.going for _, replica in pods))


def _condition(pod: Mapping[str, Any], kind: str) -> tuple[str, str]:
    for one in pod.get("status", {}).get("conditions", ()):
        if one["type"] == kind:
            return one["status"], one.get("reason", "")
    return "Unknown", ""


def _over(job: Mapping[str, Any]) -> bool:
    conditions: Sequence[Mapping[str, Any]] = job.get("status", {}).get("conditions", ())
    return any(one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions)


def _owner(pod: Mapping[str, Any]) -> str:
    return next(str(one["name"]) for one in pod["metadata"]["ownerReferences"] if one["kind"] == "Job")


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
