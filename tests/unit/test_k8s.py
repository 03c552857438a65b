"""The manifests of k8s/base: rules of the API server and of the KubeRay 1.7 operator, and what r1ray itself needs."""

import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from r1ray.cli import check_command_line
from r1ray.config import Config
from r1ray.roles import section_of

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "k8s" / "base"
SCHEMAS = ROOT.parent / "shared" / "kuberay" / "crds-v1.json.gz"
ROLES = {"rollout", "policy", "reference", "reward"}
# Behind feature gates that are off by default in KubeRay 1.7: the operator refuses them.
GATED = ("networkPolicy", "tlsOptions", "historyServerOptions")
# Of the rules with the same condition, a later one must delete more.
IMPACT = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")


def documents() -> list[dict[str, Any]]:
    files = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    return [document for name in files for document in yaml.safe_load_all((BASE / name).read_text())]


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents() if document["kind"] == kind]
    return found


def cluster_spec(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"]["rayClusterSpec"] if document["kind"] == "RayJob" else document["spec"]


def pod_templates(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    groups = {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"]} | groups


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as the API server applies it under strict field validation: unknown fields are refused."""
    schema = dict(schema)
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in schema:
        schema["properties"] = {name: closed(part) for name, part in schema["properties"].items()}
        schema.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            schema[key] = closed(schema[key])
    return schema


def with_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """Defaults are filled in before `required` is looked at: minReplicas is both required and defaulted."""
    if isinstance(value, dict):
        parts = schema.get("properties", {})
        filled = {name: part["default"] for name, part in parts.items() if "default" in part} | value
        other = schema.get("additionalProperties")
        other = other if isinstance(other, dict) else {}
        return {name: with_defaults(part, parts.get(name, other)) for name, part in filled.items() if part is not None}
    if isinstance(value, list):
        return [with_defaults(part, schema.get("items", {})) for part in value]
    return value


def schema_errors(document: dict[str, Any]) -> list[str]:
    schema = json.loads(gzip.decompress(SCHEMAS.read_bytes()))[document["kind"]]
    errors = jsonschema.Draft202012Validator(closed(schema)).iter_errors(with_defaults(document, schema))
    return [f"{error.json_path}: {error.message}" for error in errors]


def operator_errors(document: dict[str, Any]) -> list[str]:
    """Violations of the rules in KubeRay's validation.go about the fields used here."""
    name, spec, cluster = document["metadata"]["name"], document["spec"], cluster_spec(document)
    errors = []
    if len(name) > (47 if document["kind"] == "RayJob" else 53) or not re.fullmatch(
        r"[a-z]([-a-z0-9]*[a-z0-9])?", name
    ):
        errors.append(f"name {name}")
    for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]:
        started_with = group.get("rayStartParams", {})
        if "labels" in started_with:
            errors.append("labels in rayStartParams")
        if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & set(started_with):
            errors.append("resources twice")
    for group in cluster.get("workerGroupSpecs", []):
        low, high = group.get("minReplicas"), group.get("maxReplicas")
        if low is None or high is None or not 0 <= low <= group["replicas"] <= high:
            errors.append(f"replicas of {group['groupName']}")
    if cluster.get("authOptions", {}).get("mode") == "token":
        version = tuple(int(part) for part in cluster.get("rayVersion", "0").split("."))
        if version < (2, 52):
            errors.append("token auth needs Ray 2.52")
    errors += [f"{field} is behind a feature gate" for field in GATED if field in cluster]
    return errors + (deletion_errors(spec) if document["kind"] == "RayJob" else [])


def deletion_errors(spec: dict[str, Any]) -> list[str]:
    rules = spec.get("deletionStrategy", {}).get("deletionRules", [])
    errors = []
    if rules and spec.get("shutdownAfterJobFinishes"):
        errors.append("deletionRules and shutdownAfterJobFinishes")
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        errors.append("ttl without shutdown")
    by_condition: dict[tuple[Any, Any], list[tuple[int, int]]] = {}
    for rule in rules:
        condition = rule["condition"]
        if ("jobStatus" in condition) == ("jobDeploymentStatus" in condition):
            errors.append("exactly one of jobStatus and jobDeploymentStatus")
        key = (condition.get("jobStatus"), condition.get("jobDeploymentStatus"))
        by_condition.setdefault(key, []).append((IMPACT.index(rule["policy"]), condition["ttlSeconds"]))
    for found in by_condition.values():
        impacts, seconds = zip(*sorted(found), strict=True)
        if len(set(impacts)) < len(impacts) or list(seconds) != sorted(seconds):
            errors.append("deletion rules twice or out of order")
    return errors


def composed() -> Config:
    """The configuration that the RayJob's entrypoint composes."""
    words = of_kind("RayJob")["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "r1ray.main"]
    (run,) = check_command_line(words[3:])
    return run.config


# Each change makes the manifest invalid for the API server or the operator.
BROKEN = {
    "unknown field": lambda spec: spec.update(authOption={"mode": "token"}),
    "unknown auth mode": lambda spec: spec["authOptions"].update(mode="tokens"),
    "replicas as text": lambda spec: spec["workerGroupSpecs"][0].update(replicas="1"),
    "no head": lambda spec: spec.pop("headGroupSpec"),
    "a start parameter that is a number": lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
    "a misspelt container field": lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0].update(
        img="x"
    ),
}
REFUSED = {
    "labels in rayStartParams": lambda doc: cluster_spec(doc)["workerGroupSpecs"][0].update(
        rayStartParams={"labels": "a=b"}
    ),
    "replicas of rollout": lambda doc: cluster_spec(doc)["workerGroupSpecs"][0].update(maxReplicas=0),
    "token auth needs Ray 2.52": lambda doc: cluster_spec(doc).update(rayVersion="2.51.0"),
    "resources twice": lambda doc: cluster_spec(doc)["headGroupSpec"].update(resources={"CPU": "0"}),
    "networkPolicy is behind a feature gate": lambda doc: cluster_spec(doc).update(networkPolicy={"mode": "DenyAll"}),
    "deletionRules and shutdownAfterJobFinishes": lambda doc: doc["spec"].update(shutdownAfterJobFinishes=True),
    "ttl without shutdown": lambda doc: doc["spec"].update(ttlSecondsAfterFinished=60),
}


@pytest.mark.skipif(not SCHEMAS.exists(), reason="KubeRay's schemas are not in ../shared/kuberay")
@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_manifest_matches_the_crd(kind: str) -> None:
    assert schema_errors(of_kind(kind)) == []


@pytest.mark.skipif(not SCHEMAS.exists(), reason="KubeRay's schemas are not in ../shared/kuberay")
@pytest.mark.parametrize("name", BROKEN)
def test_crd_check_finds_the_error(name: str) -> None:
    document = copy.deepcopy(of_kind("RayJob"))
    BROKEN[name](cluster_spec(document))
    assert schema_errors(document)


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_manifest_passes_the_rules_of_the_operator(kind: str) -> None:
    assert operator_errors(of_kind(kind)) == []


@pytest.mark.parametrize("error", REFUSED)
def test_operator_check_finds_the_error(error: str) -> None:
    document = copy.deepcopy(of_kind("RayJob"))
    REFUSED[error](document)
    assert error in operator_errors(document)


def test_later_deletion_rules_must_delete_more() -> None:
    job = copy.deepcopy(of_kind("RayJob"))
    earlier = {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED", "ttlSeconds": 1}}
    job["spec"]["deletionStrategy"]["deletionRules"].append(earlier)
    assert operator_errors(job) == ["deletion rules twice or out of order"]


def test_rayjob_and_raycluster_have_equal_specs() -> None:
    permanent = cluster_spec(of_kind("RayCluster"))
    assert permanent.pop("suspend") is True
    assert permanent == cluster_spec(of_kind("RayJob"))


def test_every_role_has_a_worker_group_that_fits_its_actors() -> None:
    """The numbers of actors in conf/ and the pods in YAML agree, so the placement never waits for a node that does not exist."""
    cfg = composed()
    groups = {group["groupName"]: group for group in cluster_spec(of_kind("RayJob"))["workerGroupSpecs"]}
    assert set(groups) == ROLES == set(cfg.cluster.labels)
    for role, group in groups.items():
        section = getattr(cfg, section_of(role))
        (container,) = group["template"]["spec"]["containers"]
        assert group["labels"] == cfg.cluster.labels[role]
        assert section.num_workers * section.cpus_per_worker <= group["replicas"] * int(
            container["resources"]["limits"]["cpu"]
        )


def test_pods_are_unprivileged_and_have_shared_memory() -> None:
    for role, template in pod_templates(cluster_spec(of_kind("RayJob"))).items():
        pod = template["spec"]
        (container,) = pod["containers"]
        assert template["metadata"]["labels"] == {"r1ray.io/role": role}
        assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert {"/dev/shm", "/runs"} == {mount["mountPath"] for mount in container["volumeMounts"]}
        (runs,) = [volume for volume in pod["volumes"] if volume["name"] == "runs"]
        assert ("persistentVolumeClaim" in runs) == (role != "reward"), "reward pods do not mount the volume of runs"
        assert role != "reward" or "env" not in container, "reward pods have no secrets"


def test_head_gives_a_stopped_run_time_to_save() -> None:
    cfg, spec = composed(), cluster_spec(of_kind("RayJob"))
    head = pod_templates(spec)["head"]["spec"]
    env = {entry["name"]: entry.get("value") for entry in head["containers"][0]["env"]}
    assert cfg.run_dir.startswith("/runs/") and cfg.resume == "auto"
    assert int(env["RAY_JOB_STOP_WAIT_TIME_S"]) < head["terminationGracePeriodSeconds"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "no actor shares the head with the driver"
