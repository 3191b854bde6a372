"""What can stand between client and provider: nothing, this checkout, nginx, LiteLLM. Each says how it is started.

The sidecar has its whole feature set on: a policy with two candidates, prices, priors, limits, a required success rate.
nginx passes bytes on and decides nothing, so it is the floor and not a rival.
"""

import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from loadtests.process import ROOT, clean_environ

DIRECT: Final = "direct"
NGINX: Final = "nginx"
_LITELLM: Final = ROOT / ".venvs" / "litellm"
_INSTALL_S: Final = 900
# LiteLLM takes 25 ms of CPU a request: more connections would only wait.
_LITELLM_CONNS: Final = 16
_ASK_S: Final = 60
_CATALOG: Final = """[[provider]]
name = "fake"
adapter = "{adapter}"
base_url = "http://127.0.0.1:{upstream}/v1"
limits = {{ rpm = 100000000, tpm = 100000000000, concurrency = 100000 }}

[[model]]
provider = "fake"
id = "first"
quality = 7
price = {{ input = 0.15, output = 0.6 }}
latency = {{ p50_ms = 300, p99_ms = 2000 }}

[[model]]
provider = "fake"
id = "second"
quality = 8
price = {{ input = 0.3, output = 1.2 }}
latency = {{ p50_ms = 500, p99_ms = 3000 }}
"""
_POLICY: Final = """strategy = "balanced"
candidates = ["fake/first", "fake/second"]
require = { min_success_rate = 0.5 }
"""
_NGINX: Final = """worker_processes 1; pid {here}/nginx.pid; error_log stderr error; worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;
  uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi; keepalive_requests 1000000000;
  client_max_body_size 8m; client_body_buffer_size 4m;
  upstream fake {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096; proxy_buffering off; proxy_http_version 1.1;
    location / {{ proxy_pass http://fake; proxy_set_header Connection ""; }}
  }}
}}
"""
_LITELLM_CONFIG: Final = """model_list:
  - model_name: bench
    litellm_params:
      model: openai/gpt-4o-mini
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
litellm_settings:
  telemetry: false
  num_retries: 0
# The sidecar asks no client for a key here either. Loopback only, in front of a fake provider.
general_settings:
  dangerously_permit_weak_or_unset_master_key: true
"""


class Ports(NamedTuple):
    """Where the upstream listens, and where the gateway shall."""

    upstream: int
    gateway: int


class Gateway(NamedTuple):
    """A row of the tables. `command` writes what it needs to a directory, for an upstream that an adapter of that
    name speaks with, and returns how to start it; None: nothing.
    """

    name: str
    command: Callable[[Path, Ports, str], list[str]] | None
    translates: bool = False
    most_conns: int | None = None
    start_s: float = 20.0


def direct() -> Gateway:
    """Return the way without a gateway."""
    return Gateway(DIRECT, None)


def sidecar(name: str, python: str) -> Gateway:
    """Return this checkout, run by the interpreter `python`."""

    def command(directory: Path, ports: Ports, adapter: str) -> list[str]:
        policies = directory / "policies"
        policies.mkdir()
        (policies / "catalog.toml").write_text(_CATALOG.format(adapter=adapter, upstream=ports.upstream))
        (policies / "bench.toml").write_text(_POLICY)
        return [python, "-m", "proxy", "serve", "--port", str(ports.gateway), "--policies", str(policies)]

    return Gateway(name, command, translates=True)


def sidecars(pythons: Sequence[str]) -> dict[str, Gateway]:
    """Return a gateway for each interpreter, by what it says of itself. Raises RuntimeError when one does not run."""
    found: dict[str, Gateway] = {}
    for python in pythons or [sys.executable]:
        version, facts = _facts(python)
        name = "sidecar" if len(pythons) < 2 else f"sidecar, {version}"
        while name in (gateway.name for gateway in found.values()):
            name += "'"
        found[f"{name}: {facts}"] = sidecar(name, python)
    return found


def _facts(python: str) -> tuple[str, str]:
    code = (
        "import platform\n"
        "from loadtests.report import build, interpreter\n"
        "print(platform.python_version(), build())\n"
        "print(interpreter())"
    )
    try:
        done = subprocess.run(
            [python, "-c", code],
            cwd=ROOT,
            env=clean_environ(),
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise RuntimeError(f"{python} does not run this checkout: {said[-500:]}") from error
    version, facts = done.stdout.splitlines()
    return version, facts


def nginx(program: str) -> Gateway:
    """Return nginx: one worker, kept connections to the upstream, no buffering of answers."""

    def command(directory: Path, ports: Ports, _adapter: str) -> list[str]:
        file = directory / "nginx.conf"
        file.write_text(_NGINX.format(here=directory, port=ports.gateway, upstream=ports.upstream))
        return [program, "-p", str(directory), "-c", str(file), "-g", "daemon off;"]

    return Gateway(NGINX, command)


def nginx_version(program: str) -> str:
    """Return nginx's name and version. Raises RuntimeError when it does not run."""
    try:
        done = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=_ASK_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{program} does not run: {error}") from error
    return done.stderr.strip().rpartition("/")[2].join(("nginx ", ""))


def litellm() -> tuple[Gateway, str]:
    """Return LiteLLM's proxy in an environment of its own, made when it is not there yet, and its version."""
    program = _LITELLM / "bin" / "litellm"
    if not program.exists():
        print(f"installing LiteLLM in {_LITELLM.relative_to(ROOT)}", file=sys.stderr)
        venv.create(_LITELLM, with_pip=True)
        command = [str(_LITELLM / "bin" / "python"), "-m", "pip", "install", "--quiet", "litellm[proxy]"]
        # pip may need a proxy or an index that the caller's environment names.
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"LiteLLM could not be installed: {done.stderr[-800:]}")

    def command_of(directory: Path, ports: Ports, _adapter: str) -> list[str]:
        config = directory / "litellm.yaml"
        config.write_text(_LITELLM_CONFIG.format(upstream=ports.upstream))
        where = ["--host", "127.0.0.1", "--port", str(ports.gateway), "--num_workers", "1", "--telemetry", "False"]
        # Otherwise it asks the network for prices when it starts.
        return ["env", "LITELLM_LOCAL_MODEL_COST_MAP=True", str(program), "--config", str(config), *where]

    code = "from importlib.metadata import version; print(version('litellm'))"
    command = [str(_LITELLM / "bin" / "python"), "-c", code]
    version = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False).stdout.strip()
    fact = f"LiteLLM {version} with at most {_LITELLM_CONNS} connections"
    return Gateway("litellm", command_of, most_conns=_LITELLM_CONNS, start_s=120.0), fact
