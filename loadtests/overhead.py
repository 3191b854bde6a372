"""What the hop costs: CPU per request and requests a second on one core, in front of a C upstream, beside nginx.

    python -m loadtests.overhead                        three interleaved rounds of each, about four minutes
    python -m loadtests.overhead --rounds 1 --scale 0.4 a quick look
    python -m loadtests.overhead --nginx /opt/nginx     nginx from elsewhere than the PATH

The upstream, the load client (both in C, every answer checked) and the runner are a bench kit that lies beside the
checkout (`--kit`); the kit is built with gcc in a temporary directory. Without kit or gcc this says so and ends with
exit code 2. Without nginx the direct path alone stands beside the sidecar. Exit code 1 when an answer was wrong.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from loadtests.process import ROOT, free_port
from loadtests.report import machine, table

KIT: Final = ROOT.parent / "shared" / "bench"
_SOURCES: Final = ("bench.py", "load.c", "mock.c")
# The runner's names: 64 connections, whole answers; 16 streams, 10 ms between events; 64 streams without a pause.
SCENARIOS: Final = {
    "sat64": "64 connections, complete",
    "stream16": "16 streams, an event every 10 ms",
    "stream_sat": "64 streams, saturated",
}
_LIMIT_S: Final = 300
_CATALOG: Final = """[[provider]]
name = "mock"
base_url = "http://127.0.0.1:{port}/v1"

[[model]]
provider = "mock"
id = "gpt-4o-mini"
quality = 7
price = {{ input = 0.15, output = 0.6 }}
"""
_POLICY: Final = 'strategy = "balanced"\nrequire = { min_success_rate = 0.5 }\n'
_NGINX: Final = """worker_processes 1; pid {here}/nginx.pid; error_log stderr error; worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;
  uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi; keepalive_requests 1000000000; client_body_buffer_size 1m;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096; proxy_buffering off; proxy_http_version 1.1;
    location / {{ proxy_pass http://mock; proxy_set_header Connection ""; }}
  }}
}}
"""

Result = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    args = _parser().parse_args(argv)
    missing = [str(args.kit / name) for name in _SOURCES if not (args.kit / name).is_file()]
    if shutil.which("gcc") is None:
        missing.append("gcc")
    if missing:
        print(f"nothing measured: {', '.join(missing)} not found", file=sys.stderr)
        return 2
    print(machine())
    with TemporaryDirectory() as directory:
        kit, port = build(args.kit, Path(directory)), free_port()
        targets = {"direct": ["--direct"], "sidecar": sidecar(kit, port)}
        if args.nginx is not None:
            targets["nginx"] = nginx(kit, port, args.nginx)
        rounds = [
            {name: run(kit, name, port, options, args.scale) for name, options in targets.items()}
            for _ in range(args.rounds)
        ]
    print(f"\n{report(rounds)}")
    return 1 if any(result["errors"] for one in rounds for found in one.values() for result in found.values()) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kit", type=Path, default=KIT, metavar="DIR", help="bench.py, mock.c and load.c")
    parser.add_argument("--nginx", default=shutil.which("nginx"), metavar="PROGRAM", help="default: the PATH's, if any")
    parser.add_argument("--rounds", type=int, choices=range(1, 11), default=3, metavar="N", help="1-10 (default 3)")
    parser.add_argument(
        "--scale", type=_scale, default=1.0, metavar="X", help="times 5 s a scenario (0.1-5, default 1)"
    )
    return parser


def _scale(text: str) -> float:
    return min(max(float(text), 0.1), 5.0)


def build(kit: Path, directory: Path) -> Path:
    """Copy the kit to `directory` and build it there; returns `directory`."""
    for name in _SOURCES:
        shutil.copy(kit / name, directory)
    for name in ("mock", "load"):
        command = ["gcc", "-O2", "-w", "-o", name, f"{name}.c"]
        subprocess.run(command, cwd=directory, check=True, timeout=120)
    return directory


def sidecar(directory: Path, upstream: int) -> list[str]:
    """Return the runner's options for a sidecar that chooses by policy."""
    port, policies = free_port(), directory / "policies"
    policies.mkdir()
    (policies / "catalog.toml").write_text(_CATALOG.format(port=upstream))
    (policies / "bench.toml").write_text(_POLICY)
    command = f"{sys.executable} -m proxy serve --port {port} --policies {policies}"
    return ["--cmd", command, "--cwd", str(ROOT), "--clean-env", "--model", "bench", *_url(port)]


def nginx(directory: Path, upstream: int, program: str) -> list[str]:
    """Return the runner's options for nginx: one worker, kept connections to the upstream, no buffering."""
    port, file = free_port(), directory / "nginx.conf"
    file.write_text(_NGINX.format(here=directory, port=port, upstream=upstream))
    return ["--cmd", f"{program} -p {directory} -c {file} -g 'daemon off;'", *_url(port)]


def _url(port: int) -> list[str]:
    return ["--url", f"http://127.0.0.1:{port}/v1/chat/completions"]


def run(kit: Path, name: str, port: int, options: list[str], scale: float) -> dict[str, Result]:
    """Return the runner's results by scenario. Raises RuntimeError with its last words."""
    command = [sys.executable, str(kit / "bench.py"), "--name", name, "--mock-port", str(port), "--scale", str(scale)]
    command += ["--scenarios", ",".join(SCENARIOS), *options]
    done = subprocess.run(command, cwd=kit, capture_output=True, timeout=_LIMIT_S * max(1.0, scale), check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr.decode(errors='replace')[-1500:]}")
    found: dict[str, Result] = msgspec.json.decode(done.stdout.splitlines()[-1])["scenarios"]
    return found


def report(rounds: Sequence[dict[str, dict[str, Result]]]) -> str:
    """Return one table, medians over the rounds. The CPU of `direct` is the upstream's own."""
    rows = []
    for scenario, what in SCENARIOS.items():
        unit = "cpu_us_per_req" if scenario == "sat64" else "cpu_us_per_chunk"
        for name in rounds[0]:
            results = [one[name][scenario] for one in rounds]
            cpu = [result[unit] for result in results]
            beside = [one["nginx"][scenario][unit] for one in rounds] if "nginx" in rounds[0] else []
            ratio = f"{median(a / b for a, b in zip(cpu, beside, strict=True)):.1f}" if beside else ""
            rate = median(result["events_per_s" if scenario != "sat64" else "rps"] for result in results)
            errors = sum(result["errors"] for result in results)
            # The upstream shares its core with the load client, so noise cannot be told there.
            noise = "" if name == "direct" else f"{max(result['foreign'] or 0 for result in results):.2f}"
            spread = f"{median(cpu):.1f} ({min(cpu):.1f}-{max(cpu):.1f})"
            rows.append([what, name, spread, "" if name == "direct" else ratio, f"{rate:.0f}", f"{errors}", noise])
    head = ("case", "through", "CPU us per request or event", "x nginx", "per second", "errors", "noise")
    return table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
