"""The container file, the manifests and the unit are read as their own tools read them, and their commands are run."""

import asyncio
import configparser
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.__main__ import parser
from proxy.app import App, Options
from proxy.config import load
from proxy.policytest import failures
from tests.conftest import StartSidecar, StartUpstream

ROOT = Path(__file__).parent.parent
NON_ROOT = 65532
PORT = "4141"


def containerfile() -> list[tuple[str, str]]:
    """The instructions of the Containerfile with their arguments, in order."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word]


def final_stage() -> dict[str, str]:
    """The last instruction of each kind after the last FROM."""
    steps = containerfile()
    last = max(number for number, (word, _) in enumerate(steps) if word == "FROM")
    return dict(steps[last:])


def manifests() -> dict[str, Any]:
    """The objects of deploy/kubernetes.yaml by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())}


def pod() -> Any:
    """The pod of the example."""
    return manifests()["Deployment"]["spec"]["template"]["spec"]


def sidecar_container() -> Any:
    """The sidecar in it."""
    return next(one for one in pod()["initContainers"] if one["name"] == "llm-sidecar")


def unit() -> dict[str, list[str]]:
    """The [Service] section of the unit; a key may stand several times."""
    found: dict[str, list[str]] = {}
    text = (ROOT / "deploy" / "llm-sidecar.service").read_text()
    for line in text.partition("[Service]\n")[2].partition("[Install]")[0].splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def compose() -> Any:
    """The services of deploy/compose.yaml."""
    return yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]


def probes() -> dict[str, list[str]]:
    """Every probe command of the Containerfile and the pod."""
    one, health = sidecar_container(), final_stage()["HEALTHCHECK"]
    named = {name: one[name]["exec"]["command"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    return {**named, "HEALTHCHECK": json.loads(health.partition("CMD ")[2])}


# ---- container --------------------------------------------------------------------------------------------------


def test_the_image_is_built_on_any_base() -> None:
    """Both stages start from ARG BASE, which has a default; the second only takes what the first has made."""
    steps = containerfile()
    assert steps[0] == ("ARG", "BASE=docker.io/library/python:3.13-slim")
    assert [rest.split()[0] for word, rest in steps if word == "FROM"] == ["${BASE}", "${BASE}"]
    assert "RUN" not in final_stage()
    assert final_stage()["COPY"].startswith("--from=build ")


def test_what_is_copied_exists() -> None:
    """The build copies what the wheel is made of, and nothing that is not there."""
    copied = [
        word for step, rest in containerfile() if step == "COPY" and "--from" not in rest for word in rest.split()[:-1]
    ]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert {"proxy", "adapters", "policies", "pyproject.toml"} <= set(copied)


def test_the_image_runs_as_nobody_and_without_a_shell() -> None:
    """A numeric user that is not root; exec form throughout; SIGTERM, which drains."""
    stage = final_stage()
    assert stage["USER"] == f"{NON_ROOT}:{NON_ROOT}"
    assert (stage["STOPSIGNAL"], stage["EXPOSE"]) == ("SIGTERM", PORT)
    command = [*json.loads(stage["ENTRYPOINT"]), *json.loads(stage["CMD"])]
    assert command[0] == "llm-sidecar"
    assert parser().parse_args(command[1:]).verb == "serve"


# ---- probes -----------------------------------------------------------------------------------------------------


async def probe(command: list[str], port: int) -> int:
    """Run a probe against `port`, with this Python in place of the image's; returns its exit code."""
    assert command[0].rpartition("/")[2] == "python"
    code = command[-1].replace(PORT, str(port))
    assert code != command[-1]
    # A proxy in the environment must not see the probe: this one is not even there.
    environ = {**os.environ, "http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    running = await asyncio.create_subprocess_exec(
        sys.executable, *command[1:-1], code, env=environ, stderr=asyncio.subprocess.DEVNULL
    )
    return await running.wait()


@pytest.mark.parametrize("name", ["HEALTHCHECK", "startupProbe", "readinessProbe", "livenessProbe"])
async def test_probes_tell_ready_from_draining(name: str, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Good while it serves; while it drains it is alive but not ready; gone is neither."""
    app = (await sidecar(await upstream())).app
    port = int(app.address.rpartition(":")[2])
    assert await probe(probes()[name], port) == 0
    app.sidecar.ready = False
    assert (await probe(probes()[name], port) == 0) == (name == "livenessProbe")
    await app.stop()
    assert await probe(probes()[name], port) != 0


# ---- kubernetes -------------------------------------------------------------------------------------------------


async def test_the_policies_of_the_config_map_hold() -> None:
    """The embedded files load without the shipped catalog, and their tests pass."""
    files = {name: text.encode() for name, text in manifests()["ConfigMap"]["data"].items()}
    config = load(files)
    assert [failures(config, name, test) for name, one in config.policies.items() for test in one.test] == [None]


def test_the_sidecar_starts_first_and_stops_last() -> None:
    """A native sidecar, whose drain fits into the time that the pod has."""
    one = sidecar_container()
    assert one["restartPolicy"] == "Always"
    args = parser().parse_args(one["args"])
    assert args.host == "127.0.0.1"
    assert pod()["terminationGracePeriodSeconds"] > args.drain_delay + args.drain_timeout


def test_the_pod_is_hardened() -> None:
    """No root, no writable root, no capability, no way to get any."""
    context = sidecar_container()["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] == NON_ROOT
    assert context["readOnlyRootFilesystem"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_files_are_where_the_sidecar_looks() -> None:
    """Policies are mounted as a directory; each key that the catalog names is in the Secret, readable for the group."""
    mounts = {mount["name"]: mount for mount in sidecar_container()["volumeMounts"]}
    assert "subPath" not in mounts["policies"]
    assert Path(mounts["policies"]["mountPath"]) == parser().parse_args(sidecar_container()["args"]).policies
    catalog = manifests()["ConfigMap"]["data"]["catalog.toml"]
    wanted = [Path(path) for path in re.findall(r'"file:(.*)"', catalog)]
    assert wanted
    assert {str(path.parent) for path in wanted} == {mounts["keys"]["mountPath"]}
    assert {path.name for path in wanted} == set(manifests()["Secret"]["stringData"])
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert volumes["keys"]["secret"]["defaultMode"] == 0o440
    assert volumes["keys"]["secret"]["secretName"] == manifests()["Secret"]["metadata"]["name"]
    assert volumes["policies"]["configMap"]["name"] == manifests()["ConfigMap"]["metadata"]["name"]
    assert pod()["securityContext"]["fsGroup"] == NON_ROOT


async def test_a_mounted_config_map_is_followed(tmp_path: Path) -> None:
    """The kubelet swaps a symlink to a directory of files; the sidecar serves what is behind it."""
    data = manifests()["ConfigMap"]["data"]
    for version, files in (("..1", data), ("..2", {**data, "other.toml": 'strategy = "fastest"'})):
        (tmp_path / version).mkdir()
        for name, text in files.items():
            (tmp_path / version / name).write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    for name in data:
        (tmp_path / name).symlink_to(Path("..data") / name)
    app = App(Options(policies=tmp_path, port=0, drain_timeout_s=1.0), {}, lambda lines: None)
    await app.start()
    try:
        assert list(app.gateway.generation.routes.policies) == ["app"]
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").rename(tmp_path / "..data")
        (tmp_path / "other.toml").symlink_to(Path("..data") / "other.toml")
        app.check_files()
        assert list(app.gateway.generation.routes.policies) == ["app", "other"]
    finally:
        await app.stop()


# ---- systemd and compose ----------------------------------------------------------------------------------------


def test_the_unit_is_an_ini_file() -> None:
    """Three sections, as systemd wants them."""
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]  # keys of units have capitals
    found.read_string((ROOT / "deploy" / "llm-sidecar.service").read_text())
    assert found.sections() == ["Unit", "Service", "Install"]


def test_the_unit_starts_reloads_and_stops_the_sidecar() -> None:
    """The command is one of ours, SIGHUP reloads, the drain fits, and a mistake in the files is not tried again."""
    service = unit()
    (start,) = service["ExecStart"]
    args = parser().parse_args(start.split()[1:])
    assert (args.verb, args.host) == ("serve", "127.0.0.1")
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert int(service["TimeoutStopSec"][0]) > args.drain_delay + args.drain_timeout
    assert service["RestartPreventExitStatus"] == ["2"]


def test_the_unit_is_hardened_but_can_run() -> None:
    """No identity, no privilege, no file of others; but sockets for the loop, and leave to raise the file limit."""
    service = unit()
    assert service["DynamicUser"] == service["NoNewPrivileges"] == ["yes"]
    assert service["CapabilityBoundingSet"] == [""]
    assert service["ProtectSystem"] == ["strict"]
    assert set(service["RestrictAddressFamilies"][0].split()) == {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"}
    assert "@resources" not in " ".join(service["SystemCallFilter"])


def test_keys_come_as_credentials() -> None:
    """The unit's comment names a credential that the unit loads."""
    text = (ROOT / "deploy" / "llm-sidecar.service").read_text()
    loaded = {value.partition(":")[0] for value in unit()["LoadCredential"]}
    assert set(re.findall(r"file:/run/credentials/llm-sidecar\.service/(\w+)", text)) <= loaded


def test_compose_puts_the_sidecar_beside_the_app() -> None:
    """It shares the app's network, and stops in its own time."""
    services = compose()
    one = services["llm-sidecar"]
    args = parser().parse_args(one["command"])
    assert one["network_mode"] == "service:app"
    assert int(one["stop_grace_period"].removesuffix("s")) > args.drain_timeout
    assert one["read_only"]
    assert services["app"]["environment"]["OPENAI_BASE_URL"] == f"http://127.0.0.1:{args.port}/v1"
