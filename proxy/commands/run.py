"""`llm-sidecar run -- CMD`: a sidecar on a free port beside one command, and one screen of bill at its end."""

import argparse
import asyncio
import os
import signal
from collections.abc import Mapping

import uvloop

from proxy.app import App, Options, StartError, raise_file_limit
from proxy.log import tell
from proxy.metrics import Metrics


def run(args: argparse.Namespace) -> int:
    """Return the command's exit code; 2 when there is none or the sidecar cannot start, 127 if it is not found."""
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        tell("llm-sidecar: nothing to run; write: llm-sidecar run -- CMD ...")
        return 2
    options = Options(policies=args.policies, port=0, demo=args.demo, drain_timeout_s=2.0)
    try:
        return uvloop.run(_run(App(options, os.environ, lambda lines: None), command))
    except StartError as error:
        tell(f"llm-sidecar: {error}")
    return 2


async def _run(app: App, command: list[str]) -> int:
    raise_file_limit()
    await app.start()
    try:
        tell(f"llm-sidecar listens on {app.address} for: {' '.join(command)}")
        child = await asyncio.create_subprocess_exec(*command, env=environment(app.address, os.environ))
        loop = asyncio.get_running_loop()
        # Ctrl-C reaches the child by itself; the sidecar stays until the child has ended.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, child.terminate)
        code = await child.wait()
    except OSError as error:
        tell(f"llm-sidecar: cannot run {command[0]}: {error.strerror}")
        return 127
    finally:
        await app.stop()
    for line in bill(app.metrics):
        tell(line)
    return code if code >= 0 else 128 - code


def environment(address: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with the variables that point OpenAI's and Anthropic's SDKs at `address`.

    The command gets a placeholder key: the real ones stay with the sidecar.
    """
    own = environ.get("SIDECAR_API_KEYS", "").partition(",")[0].strip() or "llm-sidecar"
    return {
        **environ,
        "OPENAI_BASE_URL": f"{address}/v1",
        "OPENAI_API_BASE": f"{address}/v1",
        "OPENAI_API_KEY": own,
        "ANTHROPIC_BASE_URL": address,
        "ANTHROPIC_API_KEY": own,
    }


def bill(metrics: Metrics) -> list[str]:
    """Return what was asked, of whom, and what it cost."""
    requests, failed = int(metrics.requests.total()), 0
    for (_, _, status), count in metrics.requests.values.items():
        failed += int(count) if status != "200" else 0
    spent = metrics.usd.total()
    lines = [f"{requests} requests, {failed} failed, {int(metrics.fallbacks.total())} fallbacks, ${spent:.6f}"]
    for upstream in sorted({labels[0] for labels in metrics.attempts.values}):
        answered = int(metrics.attempts.values.get((upstream, "ok"), 0))
        tokens_in = int(metrics.tokens.values.get((upstream, "input"), 0))
        tokens_out = int(metrics.tokens.values.get((upstream, "output"), 0))
        usd = metrics.usd.values.get((upstream,))
        cost = "price unknown" if usd is None and answered else f"${usd or 0:.6f}"
        lines.append(f"  {upstream:32} {answered:6} answers  {tokens_in:9} tokens in  {tokens_out:9} out  {cost}")
    return lines
