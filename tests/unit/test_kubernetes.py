"""The manifests in deploy/kubernetes fit the Kubernetes API and StreamGuard, alone and in overlays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import streamguard
from deploy.kubernetes import generate
from streamguard.settings.load import load
from streamguard.settings.sources import of_sources
from tests.composed import ROOT, environment

HERE = ROOT / "deploy" / "kubernetes"
VERSION = "1.34"
"""Kubernetes version of the schemas. Validation is strict: unknown fields are refused."""
OPERATORS = {"PodMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"}
"""Resources of the Prometheus operator and of KEDA, for which Kubernetes has no schemas."""

Resource = dict[str, Any]


def documents(path: Path) -> list[Resource]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def built(directory: Path, before: list[Resource] | None = None) -> list[Resource]:
    """Resources of a directory as `kubectl kustomize` builds them; refuses features that are not used here."""
    (asked,) = documents(directory / "kustomization.yaml")
    known = {"apiVersion", "kind", "resources", "components", "patches", "images", "namespace"}
    assert asked.keys() <= known
    resources = before if before is not None else []
    for name in asked.get("resources", []):
        path = directory / name
        resources += built(path) if path.is_dir() else documents(path)
    for name in asked.get("components", []):
        resources = built(directory / name, resources)
    for patch in asked.get("patches", []):
        chosen = [
            r for r in resources if (r["kind"], r["metadata"]["name"]) == tuple(patch["target"].values())
        ]
        assert len(chosen) == 1, f"{directory.name}: {patch['target']} does not exist"
        for change in yaml.safe_load(patch["patch"]):
            apply(chosen[0], **change)
    for image in asked.get("images", []):
        for container in (c for r in resources for c in containers(r)):
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    if "namespace" in asked:
        for resource in resources:
            if resource["kind"] != "Namespace":
                resource["metadata"]["namespace"] = asked["namespace"]
            for subject in resource.get("subjects", []):
                subject["namespace"] = asked["namespace"]
    return resources


def apply(resource: Any, op: str, path: str, value: Any = None) -> None:
    """Apply one operation of a JSON patch; a replaced or removed value must exist."""
    *way, last = [part.replace("~1", "/") for part in path.split("/")[1:]]
    for part in way:
        resource = resource[int(part)] if isinstance(resource, list) else resource[part]
    if op == "add" and last == "-":
        resource.append(value)
        return
    key = int(last) if isinstance(resource, list) else last
    assert op == "add" or resource[key] is not None
    if op == "remove":
        del resource[key]
    else:
        resource[key] = value


def pod(resource: Resource) -> Resource | None:
    """Pod spec of a resource that runs pods."""
    spec = resource.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
    found: Resource | None = template.get("spec")
    return found


def containers(resource: Resource) -> list[Resource]:
    return (pod(resource) or {}).get("containers", [])


SETS: dict[str, Callable[[], list[Resource]]] = {
    "base": lambda: built(HERE / "base"),
    "example": lambda: built(HERE / "overlays" / "example"),
    "spark": lambda: built(HERE / "overlays" / "spark"),
    "secured": lambda: built(HERE / "overlays" / "secured"),
}

each_set = pytest.mark.parametrize("made", [make() for make in SETS.values()], ids=SETS.keys())


def only(made: list[Resource], kind: str, name: str = "streamguard-worker") -> Resource:
    (found,) = [r for r in made if r["kind"] == kind and r["metadata"]["name"] == name]
    return found


def executor(made: list[Resource]) -> Iterator[Resource]:
    """Pod template of Spark's executors, if there is one."""
    for resource in made:
        if resource["kind"] == "ConfigMap" and "executor.yaml" in resource["data"]:
            template = yaml.safe_load(resource["data"]["executor.yaml"])
            yield {**template, "spec": {"template": template}}


def test_every_file_is_part_of_a_kustomization() -> None:
    named = {
        (path.parent / name).resolve()
        for path in HERE.rglob("kustomization.yaml")
        for name in documents(path)[0].get("resources", [])
    }
    assert {path for path in HERE.rglob("*.yaml") if path.name != "kustomization.yaml"} <= named


@each_set
def test_resources_fit_the_api(made: list[Resource]) -> None:
    for resource in made:
        if resource["kind"] not in OPERATORS:
            kubernetes_validate.validate(resource, VERSION, strict=True)
    names = [(r["kind"], r["metadata"]["name"]) for r in made]
    assert len(set(names)) == len(names)


@each_set
def test_every_pod_is_restricted_limited_and_has_no_needless_token(made: list[Resource]) -> None:
    running = [r for r in made if pod(r)] + list(executor(made))
    assert len(running) >= 3
    for resource in running:
        spec = pod(resource)
        assert spec is not None
        spark = any("spark-submit" in c.get("args", []) for c in spec["containers"])
        assert spec["automountServiceAccountToken"] is spark
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            inside = container["securityContext"]
            assert inside["readOnlyRootFilesystem"] and not inside["allowPrivilegeEscalation"]
            assert inside["capabilities"] == {"drop": ["ALL"]}
            if resource["kind"] != "Pod":  # Spark sets those of an executor
                assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]
                assert re.fullmatch(r"\S+:v?\d+\.\d+\.\d+", container["image"])
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            claimed = {c["metadata"]["name"] for c in resource["spec"].get("volumeClaimTemplates", [])}
            assert mounted == {volume["name"] for volume in spec.get("volumes", [])} | claimed


@each_set
def test_referenced_resources_exist_or_are_optional(made: list[Resource]) -> None:
    have = {(r["kind"], r["metadata"]["name"]) for r in made}
    for resource in made:
        spec = pod(resource) or {"containers": []}
        if spec.get("serviceAccountName"):
            assert ("ServiceAccount", spec["serviceAccountName"]) in have
        for container in spec["containers"]:
            for source in container.get("envFrom", []):
                if "secretRef" in source:
                    assert source["secretRef"]["optional"]
                else:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in have
        for volume in spec.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in have
            elif "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in have
            else:
                assert volume.get("secret", {}).get("optional") or "emptyDir" in volume
    assert not [r for r in made if r["kind"] == "Secret"]


@each_set
def test_settings_are_valid_and_their_directories_are_mounted(made: list[Resource]) -> None:
    common = only(made, "ConfigMap", "streamguard-settings")["data"]
    for resource in made:
        for container in containers(resource):
            if "streamguard-" not in container["image"]:
                continue
            (target,) = re.findall(r"streamguard-(worker|serve|retrain):", container["image"])
            own = {v["name"]: v.get("value", "pod-0") for v in container.get("env", [])}
            settings = load(environ=environment(target) | common | own)
            writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
            mounted = {m["mountPath"] for m in container["volumeMounts"]}
            assert "/tmp" in writable
            if resource["metadata"]["name"] == "streamguard-sources":
                assert resource["kind"] == "StatefulSet" and settings.worker.instance_id
                second = of_sources(settings)
                assert settings.worker.data_dir in writable and second.kafka.folds_sources
                (port,) = container["ports"]
                assert port["containerPort"] == second.worker.metrics_port
                assert second.worker.metrics_host == "0.0.0.0"
            elif resource["kind"] == "StatefulSet":
                assert settings.worker.data_dir in writable and settings.models.registry in mounted - writable
                assert settings.worker.instance_id
                (port,) = container["ports"]
                assert port["containerPort"] == settings.worker.metrics_port
            if resource["metadata"]["name"] == "streamguard-campaigns":
                (port,) = container["ports"]
                assert port["containerPort"] == settings.campaigns.metrics_port
                assert settings.campaigns.metrics_host == "0.0.0.0"
            if resource["metadata"]["name"] == "streamguard-serve":
                ports = {port["name"]: port["containerPort"] for port in container["ports"]}
                assert ports == {"http": settings.serve.port, "metrics": settings.serve.metrics_port}
                assert settings.serve.host == settings.serve.metrics_host == "0.0.0.0"
                assert str(Path(settings.serve.data_dir).parent) in writable
                read = {
                    str(Path(settings.serve.keys_file).parent),
                    settings.models.registry,
                    settings.batch.output,
                }
                assert read <= mounted - writable
            if resource["kind"] == "CronJob":
                assert {settings.batch.output, settings.models.registry} <= writable
                assert str(Path(settings.batch.metrics_file).parent) in writable


@each_set
def test_workers_are_static_members_with_drain_time_and_probes(made: list[Resource]) -> None:
    workers = only(made, "StatefulSet")
    spec = pod(workers)
    assert spec is not None
    (container,) = spec["containers"]
    instance = next(v for v in container["env"] if v["name"] == "STREAMGUARD_WORKER_INSTANCE_ID")
    assert instance["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    session = load(environ={v["name"]: v["value"] for v in container["env"] if "value" in v}).worker
    assert session.session_timeout_seconds > workers["spec"]["minReadySeconds"]
    assert spec["terminationGracePeriodSeconds"] >= 60
    paths = {
        probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert only(made, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    labels = workers["spec"]["template"]["metadata"]["labels"]
    assert [c["topologyKey"] for c in spec["topologySpreadConstraints"]] == [
        "kubernetes.io/hostname", "topology.kubernetes.io/zone",
    ]  # fmt: skip
    selectors = [c["labelSelector"] for c in spec["topologySpreadConstraints"]]
    selectors += [workers["spec"]["selector"], only(made, "PodDisruptionBudget")["spec"]["selector"]]
    assert all(selector["matchLabels"].items() <= labels.items() for selector in selectors)
    assert only(made, "Service")["spec"]["selector"].items() <= labels.items()


@each_set
def test_one_campaigns_process_runs_and_is_probed(made: list[Resource]) -> None:
    deployment = only(made, "Deployment", "streamguard-campaigns")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    (container,) = containers(deployment)
    assert [container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")] == [
        "/healthz", "/healthz", "/readyz",
    ]  # fmt: skip


@each_set
def test_servers_are_replicas_that_are_probed_and_reached_by_one_name(made: list[Resource]) -> None:
    name = "streamguard-serve"
    deployment, service = only(made, "Deployment", name), only(made, "Service", name)
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    (container,) = containers(deployment)
    assert [container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")] == [
        {"path": path, "port": "metrics"} for path in ("/healthz", "/healthz", "/readyz")
    ]
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= labels
    assert service["spec"]["sessionAffinity"] == "ClientIP", "the session of a browser is valid for one pod"
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"], (
        "metrics are for the scraper"
    )
    budget, policy = only(made, "PodDisruptionBudget", name), only(made, "NetworkPolicy", name)
    assert budget["spec"]["maxUnavailable"] == 1
    for selector in (budget["spec"]["selector"], policy["spec"]["podSelector"]):
        assert selector["matchLabels"].items() <= labels
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"] and rule["ports"] == [{"protocol": "TCP", "port": "http"}]
    allowed = only(made, "ConfigMap", "streamguard-settings")["data"]["STREAMGUARD_SERVE_ALLOWED_HOSTS"]
    assert name in allowed.split(",")


@each_set
def test_only_one_retrain_runs_at_a_time(made: list[Resource]) -> None:
    spec = only(made, "CronJob", "streamguard-retrain")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize("name", ["example", "spark", "secured"])
def test_workers_scale_on_lag_up_to_the_partitions(name: str) -> None:
    made = SETS[name]()
    settings = load(environ=only(made, "ConfigMap", "streamguard-settings")["data"])
    scaled = only(made, "ScaledObject")
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    spec = scaled["spec"]
    workers = only(made, "StatefulSet")
    assert spec["scaleTargetRef"] == {
        "apiVersion": workers["apiVersion"], "kind": "StatefulSet", "name": workers["metadata"]["name"],
    }  # fmt: skip
    assert "replicas" not in workers["spec"]
    assert 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"] == settings.kafka.partitions
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "kafka"
    asked = trigger["metadata"]
    assert all(isinstance(value, str) for value in asked.values())
    assert asked["bootstrapServers"] == settings.kafka.bootstrap_servers
    assert asked["consumerGroup"] == settings.worker.app_id
    assert asked["topic"] == settings.kafka.events_topic


def test_keda_authenticates_to_kafka_like_the_workers() -> None:
    made = SETS["secured"]()
    settings = load(environ=only(made, "ConfigMap", "streamguard-settings")["data"])
    authentication = only(made, "TriggerAuthentication", "streamguard-kafka")
    credentials = {
        part["parameter"]: (part["name"], part["key"]) for part in authentication["spec"]["secretTargetRef"]
    }
    (container,) = pod(only(made, "StatefulSet"))["containers"]  # type: ignore[index]
    environment_secrets = {part["secretRef"]["name"] for part in container["envFrom"] if "secretRef" in part}
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "files"]
    (files,) = [v["secret"] for v in pod(only(made, "StatefulSet"))["volumes"] if v["name"] == "files"]  # type: ignore[index]
    assert credentials == {
        "username": (*environment_secrets, "STREAMGUARD_SECURITY_USERNAME"),
        "password": (files["secretName"], Path(settings.security.password_file).name),
        "ca": (files["secretName"], Path(settings.security.ca_file).name),
    }
    read = (settings.security.password_file, settings.security.ca_file)
    assert {str(Path(file).parent) for file in read} == {mount["mountPath"]}
    (trigger,) = only(made, "ScaledObject")["spec"]["triggers"]
    assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    assert trigger["metadata"]["tls"] == "enable"
    assert trigger["metadata"]["sasl"] == settings.security.mechanism.lower().replace("-sha-", "_sha")


def test_default_replica_limit_equals_the_partitions_of_the_base() -> None:
    (scaled,) = documents(HERE / "components" / "autoscaling" / "scaled-object.yaml")
    settings = load(environ=only(SETS["base"](), "ConfigMap", "streamguard-settings")["data"])
    assert scaled["spec"]["maxReplicaCount"] == settings.kafka.partitions


def test_monitors_select_the_pods_and_set_the_job_names() -> None:
    made = SETS["example"]()
    jobs = set()
    for monitor in (r for r in made if r["kind"] == "PodMonitor"):
        assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        found = [
            r for r in made
            if pod(r) and r["kind"] != "CronJob" and wanted <= r["spec"]["template"]["metadata"]["labels"].items()
        ]  # fmt: skip
        assert len(found) == 1
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in {port["name"] for c in containers(found[0]) for port in c["ports"]}
        jobs |= {r["replacement"] for r in endpoint["relabelings"] if r.get("targetLabel") == "job"}
    assert jobs == {f"streamguard-{name}" for name in ("worker", "sources", "campaigns", "serve", "retrain")}


def test_generated_rules_and_dashboards_are_current() -> None:
    for path, text in generate.resources().items():
        assert path.read_text() == text, "run python -m deploy.kubernetes.generate"
    (rule,) = documents(HERE / "components" / "monitoring" / "prometheus-rule.yaml")
    assert rule["kind"] == "PrometheusRule" and rule["apiVersion"] == "monitoring.coreos.com/v1"
    for group in rule["spec"]["groups"]:
        assert group.keys() <= {
            "name",
            "interval",
            "rules",
            "limit",
            "query_offset",
            "labels",
            "partial_response_strategy",
        }
        for each in group["rules"]:
            assert ("alert" in each) != ("record" in each) and isinstance(each["expr"], str)


@each_set
def test_pods_are_reachable_only_through_a_rule(made: list[Resource]) -> None:
    closed = only(made, "NetworkPolicy", "streamguard")["spec"]
    assert closed["ingress"] == [] and closed["policyTypes"] == ["Ingress", "Egress"]
    everywhere = closed["podSelector"]["matchLabels"].items()
    for resource in made:
        if pod(resource):
            spec = resource["spec"].get("jobTemplate", {}).get("spec", resource["spec"])
            assert everywhere <= spec["template"]["metadata"]["labels"].items()
    for template in executor(made):
        assert everywhere <= template["metadata"]["labels"].items()


def test_spark_variant_submits_the_retrain_program_of_the_image() -> None:
    made = SETS["spark"]()
    (container,) = containers(only(made, "CronJob", "streamguard-retrain"))
    job, command, *options, program = container["args"]
    assert (job, command) == ("job", "spark-submit")
    assert {"--master=k8s://https://kubernetes.default.svc", "--deploy-mode=client"} <= set(options)
    assert program == "local:///opt/streamguard/retrain.py"
    given = {v["name"]: v for v in container["env"]}
    assert given["EXECUTOR_IMAGE"]["value"] == container["image"]
    used = {name for option in options for name in re.findall(r"\$\((\w+)\)", option)}
    assert used <= given.keys()
    data = only(made, "ConfigMap", "streamguard-spark")["data"]
    conf = dict(line.split(None, 1) for line in data["retrain.properties"].splitlines())
    assert all(name.startswith("spark.") for name in conf)
    (template,) = executor(made)
    assert [c["name"] for c in containers(template)] == [
        conf["spark.kubernetes.executor.podTemplateContainerName"]
    ]
    kubernetes_validate.validate(
        yaml.safe_load(
            data["executor.yaml"].replace("name: executor\n", "name: executor\n      image: x\n", 1)
        ),
        VERSION,
        strict=True,
    )
    rules = only(made, "Role", "streamguard-retrain")["rules"]
    assert {r for rule in rules for r in rule["resources"]} == {
        "pods",
        "configmaps",
        "persistentvolumeclaims",
    }
    assert only(made, "ServiceAccount", "streamguard-retrain")["automountServiceAccountToken"]


def test_images_have_the_version_of_the_package() -> None:
    for resource in SETS["base"]():
        for container in containers(resource):
            assert container["image"].rpartition(":")[2] == streamguard.__version__
