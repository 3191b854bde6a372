"""`llm-sidecar explain`: the decision for one request, as the running sidecar would make it at its start."""

import argparse
import asyncio
import os
import time
from io import BytesIO

import orjson

from proxy import adapter
from proxy.attempt import Tools
from proxy.config import load_directory
from proxy.errors import ClientError
from proxy.gateway import Gateway, Overrides
from proxy.keys import access
from proxy.log import Log, tell
from proxy.metrics import Metrics
from proxy.splice import replace_known
from proxy.transport import Transport
from proxy.wire import decode_chat


def run(args: argparse.Namespace) -> int:
    """Print the decision as JSON; returns 1 when the request is refused, 2 for bad arguments. Raises PolicyError."""
    try:
        body = _body(args)
        found = asyncio.run(_explain(args, body))
    except (OSError, ValueError) as error:
        tell(f"llm-sidecar: {error}")
        return 2
    except ClientError as error:
        tell(f"llm-sidecar: {error.message}")
        return 1
    print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    return 0


def _body(args: argparse.Namespace) -> bytes:
    if args.request is None:
        if args.model is None:
            raise ValueError("explain needs --model NAME or --request FILE")
        return orjson.dumps({"model": args.model, "messages": [{"role": "user", "content": ""}]})
    body: bytes = args.request.read_bytes()
    if args.model is not None:
        decode_chat(body, 0)
        body = replace_known(body, b"model", orjson.dumps(args.model))
    return body


async def _explain(args: argparse.Namespace, body: bytes) -> dict[str, object]:
    transport = Transport()
    try:
        tools = Tools(transport, Metrics(), Log(BytesIO().write), time.monotonic, time.time)
        gateway = Gateway(tools, adapter.load, lambda row: access(row, os.environ))
        gateway.install(load_directory(args.policies))
        return gateway.explain(decode_chat(body, 0), Overrides(strategy=args.strategy))
    finally:
        await transport.close()
