"""The driver of Kubernetes over HTTP: a ReplicaSet that takes any pod is never given the chance to take a busy one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import TOKEN, Cluster, Markers, Work, serving
from place import one_tier

from millrace.autoscale.drivers.cluster import Api, ClusterAway, ClusterRefused
from millrace.autoscale.drivers.kubernetes import COST, Deployments, Desired, JobEach, Marker
from millrace.autoscale.loop import Scaler
from millrace.autoscale.told import desired
from millrace.host.pod import pod
from millrace.run.errors import WrongQuestion


class Office:
    def take_office(self, name: str, holder: str, lease_s: float) -> bool:
        return True

    def leave_office(self, name: str, holder: str) -> None:
        """Always there."""


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Api]:
    with serving(cluster) as url:
        yield Api(url, lambda: TOKEN)


SAID: list[str] = []


def at_work(cluster: Cluster, api: Api, mode: str, **more: object) -> tuple[Scaler, Work]:
    SAID.clear()
    work = Work(cluster, None if mode == "jobs" else Markers(api, SAID.append))
    kind = {"deployment": Deployments, "keda": Desired, "jobs": JobEach}[mode]
    if mode != "jobs":
        cluster.add_deployment("millrace-heavy")
    else:
        cluster.add_suspended_job("millrace-heavy")
    driver = kind(api, "shop", lambda tier: f"millrace-{tier.name}", cluster, clock=lambda: cluster.now)
    tiers = one_tier(**({"most": 4, "boot_s": 60.0} | more))  # type: ignore[arg-type]
    scaler = Scaler(tiers, work, driver, Office(), "a", say=SAID.append, clock=lambda: cluster.now)
    return scaler, work


def obeyed(cluster: Cluster, scaler: Scaler) -> None:
    """What KEDA does with what is desired."""
    if isinstance(scaler.driver, Desired):
        with cluster.lock:
            for tier, replicas in scaler.driver.desired.items():
                cluster.deployments[f"millrace-{tier}"]["spec"]["replicas"] = replicas
            cluster.reconcile()


def alive(cluster: Cluster) -> int:
    return sum(p["status"]["phase"] in ("Pending", "Running") for p in cluster.pods.values())


@pytest.mark.parametrize("mode", ["deployment", "keda", "jobs"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_no_busy_pod_goes_and_all_work_is_done(cluster: Cluster, api: Api, mode: str, seed: int) -> None:
    scaler, work = at_work(cluster, api, mode)
    draw, given = random.Random(seed), 0
    for _ in range(150):
        if draw.random() < 0.15:
            lengths = [draw.randint(1, 12) for _ in range(draw.randint(1, 4))]
            work.queue += lengths
            given += len(lengths)
        scaler.tick()
        obeyed(cluster, scaler)
        assert alive(cluster) <= 4
        if draw.random() < 0.7:
            cluster.boot(draw.randint(1, 3))
        work.step()
        cluster.now += 10
    for _ in range(60):
        scaler.tick()
        obeyed(cluster, scaler)
        cluster.boot()
        work.step()
        cluster.now += 10
    assert cluster.killed_busy == [] and work.done == given > 20
    assert alive(cluster) == 0
    assert not [line for line in SAID if "refused" in line]


def test_the_replica_set_alone_would_take_a_busy_one(cluster: Cluster, api: Api) -> None:
    """That the cluster of these tests has the trap: replicas lowered by hand, as an autoscaler does."""
    scaler, work = at_work(cluster, api, "deployment")
    work.queue += [9, 9]
    scaler.tick()
    cluster.boot()
    work.step()
    scaler.driver._set("millrace-heavy", 2, 1)  # type: ignore[attr-defined]
    assert len(cluster.killed_busy) == 1


def with_two(cluster: Cluster, api: Api) -> tuple[Scaler, Work, str, str]:
    """Two pods, one busy for long, one that has drained."""
    scaler, work = at_work(cluster, api, "deployment")
    work.queue += [1, 99]
    scaler.tick()
    cluster.boot()
    work.step()
    work.step()
    scaler.tick()
    cluster.now += 61
    scaler.tick()  # the idle one is asked
    work.step()
    (busy,) = work.running
    (drained,) = set(cluster.pods) - {busy}
    assert cluster.pods[drained]["metadata"]["annotations"][COST] == str(-(2**31))
    assert cluster.pods[busy]["metadata"]["annotations"][COST] == str(2**31 - 1)
    return scaler, work, busy, drained


def test_replicas_go_down_by_those_that_have_drained(cluster: Cluster, api: Api) -> None:
    scaler, _, busy, _ = with_two(cluster, api)
    assert cluster.deployments["millrace-heavy"]["spec"]["replicas"] == 2
    scaler.tick()
    assert cluster.deployments["millrace-heavy"]["spec"]["replicas"] == 1 and set(cluster.pods) == {busy}


def test_while_a_busy_pod_is_not_ready_nothing_goes_down(cluster: Cluster, api: Api) -> None:
    """A pod that is not ready goes before any deletion cost."""
    scaler, _, busy, drained = with_two(cluster, api)
    ready = next(one for one in cluster.pods[busy]["status"]["conditions"] if one["type"] == "Ready")
    ready["status"] = "False"
    scaler.tick()
    assert set(cluster.pods) == {busy, drained}
    ready["status"] = "True"
    scaler.tick()
    assert set(cluster.pods) == {busy}


def test_a_worker_that_lives_and_is_not_seen_is_taken_to_be_busy(cluster: Cluster, api: Api) -> None:
    scaler, _, busy, _ = with_two(cluster, api)
    del cluster.workers[busy]
    supply = scaler.driver.observe(scaler.tiers.tier("heavy"))
    assert (supply.ready, supply.draining, supply.booting_s, supply.idle_s) == (1, 1, (), ())


def test_pods_without_room_say_how_many_the_cluster_holds(cluster: Cluster, api: Api) -> None:
    scaler, work = at_work(cluster, api, "deployment")
    cluster.nodes = 2
    work.queue += [9] * 4
    scaler.tick()
    cluster.boot()
    assert scaler.driver.observe(scaler.tiers.tier("heavy")).capacity == 2


@pytest.mark.parametrize("mode", ["deployment", "jobs"])
def test_a_pod_that_never_comes_up_is_replaced(cluster: Cluster, api: Api, mode: str) -> None:
    scaler, work = at_work(cluster, api, mode)
    work.queue += [1]
    scaler.tick()
    (first,) = cluster.pods
    cluster.now += 121
    scaler.tick()
    assert first not in cluster.pods and alive(cluster) == 1
    cluster.boot()
    for _ in range(3):
        work.step()
    assert work.done == 1


@pytest.mark.parametrize("mode", ["deployment", "jobs"])
def test_twice_is_as_once(cluster: Cluster, api: Api, mode: str) -> None:
    scaler, work = at_work(cluster, api, mode)
    work.queue += [1, 1]
    (up,) = scaler.tick()
    scaler.driver.apply(scaler.tiers.tier("heavy"), up)
    assert alive(cluster) == 2


def test_a_job_each_is_made_after_the_suspended_one(cluster: Cluster, api: Api) -> None:
    scaler, work = at_work(cluster, api, "jobs")
    work.queue += [1]
    scaler.tick()
    (made,) = [job for name, job in cluster.jobs.items() if name != "millrace-heavy"]
    assert made["spec"]["backoffLimit"] == 0 and "suspend" not in made["spec"]
    assert made["spec"]["template"]["metadata"]["labels"] == {"app": "millrace-heavy", "millrace/tier": "heavy"}


def test_a_dry_run_only_reads(cluster: Cluster, api: Api) -> None:
    scaler, work = at_work(cluster, api, "deployment")
    scaler.dry = True
    work.queue += [1]
    assert scaler.tick()[0].start == 1
    assert {method for method, _ in cluster.requests} == {"GET"}


def test_what_is_refused_is_said_and_holds(cluster: Cluster, api: Api) -> None:
    scaler, work = at_work(cluster, api, "deployment")
    work.queue += [1]
    cluster.allowed = False
    (held,) = scaler.tick()
    assert (held.live, held.start, held.alert) == (None, 0, True)
    assert any("(403)" in line and "roles.yaml" in line for line in SAID)
    cluster.allowed = True
    del cluster.deployments["millrace-heavy"]
    with pytest.raises(ClusterRefused, match="not found.*typing error"):
        scaler.driver.observe(scaler.tiers.tier("heavy"))


def test_a_change_by_somebody_else_is_not_written_over(cluster: Cluster, api: Api) -> None:
    scaler, _ = at_work(cluster, api, "deployment")
    cluster.deployments["millrace-heavy"]["spec"]["replicas"] = 3
    with pytest.raises(ClusterRefused, match="somebody else"):
        scaler.driver._set("millrace-heavy", 0, 1)  # type: ignore[attr-defined]


def test_keda_is_told_and_nothing_is_set(cluster: Cluster, api: Api) -> None:
    scaler, work = at_work(cluster, api, "keda")
    assert desired(scaler) == {}  # not known yet
    work.queue += [9, 9]
    scaler.tick()
    assert desired(scaler) == {"heavy": 2} and cluster.deployments["millrace-heavy"]["spec"]["replicas"] == 0
    assert {method for method, _ in cluster.requests} == {"GET"}


def test_a_wrong_token_and_an_api_that_is_away_are_said(cluster: Cluster) -> None:
    with serving(cluster) as url, pytest.raises(ClusterRefused, match="token is not valid"):
        Api(url, lambda: "other").get("/api/v1/namespaces/shop/pods", labelSelector="a=b")
    with pytest.raises(ClusterAway, match="cannot be reached"):
        Api(url, lambda: TOKEN).get("/api/v1/namespaces/shop/pods")


def test_a_mark_that_is_refused_is_tried_again(cluster: Cluster, api: Api) -> None:
    cluster.add_deployment("d", 1)
    (name,) = cluster.pods
    said: list[str] = []
    mark = Marker(api, "shop", name, said.append)
    cluster.allowed = False
    mark("draining")
    assert len(said) == 1
    cluster.allowed = True
    mark("draining")
    assert cluster.pods[name]["metadata"]["annotations"][COST] == str(-(2**31))
    asked = len(cluster.requests)
    mark("draining")
    assert len(cluster.requests) == asked  # once is enough


def test_a_pod_knows_where_it_is_by_what_the_kubelet_gives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(WrongQuestion, match="not in a pod"):
        pod(tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    (tmp_path / "namespace").write_text("shop\n")
    (tmp_path / "token").write_text("t\n")
    found = pod(tmp_path)
    assert (found.api, found.namespace, found.token()) == ("https://10.0.0.1:6443", "shop", "t")
