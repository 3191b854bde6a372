"""`llm-sidecar probe PROVIDER`: one tiny real call, the way the sidecar would make it, and what it shows."""

import argparse
import asyncio
import os
import time
from io import BytesIO
from typing import Any, Final

import orjson

from proxy import adapter
from proxy.answers import StreamAnswer
from proxy.attempt import Tools
from proxy.client import Nobody
from proxy.config import Config, load_directory, nearest
from proxy.errors import ClientError, ProxyError, scrub
from proxy.gateway import Gateway, Overrides
from proxy.keys import access
from proxy.log import Log, tell
from proxy.metrics import Metrics
from proxy.policy import ProviderRow
from proxy.transport import Transport
from proxy.wire import decode_chat

# The least that all providers take (OpenAI's Responses: 16); enough for a word, and for reasoning to be cut off.
_MAX_TOKENS: Final = 16
_ADVICE: Final = {
    "auth": "the provider refuses the key: is {source} the right one, still valid, and allowed to use this model?",
    "not_found": "address or model is wrong: try --model with an id from the provider's list",
    "quota": "the key is good, but its account has nothing left: credit or plan",
    "rate_limit": "the key is good, but its limit is reached: wait",
    "overloaded": "the provider is overloaded: wait",
    "timeout": "nothing came in time: a firewall, a wrong port, or a provider that is down",
    "invalid_request": "the key is good, but the provider cannot take this call: try --model, or the provider's quirks",
    "upstream_unreachable": "no connection: is base_url right, and must HTTPS_PROXY be set here?",
    "upstream_tls_error": "no trust: a proxy that opens TLS needs its certificate in SSL_CERT_FILE",
    "upstream_redirect": "base_url leads elsewhere: http instead of https, or a path too much or too little?",
    "upstream_invalid_response": "what answers does not speak this language: are base_url and adapter right?",
}


def run(args: argparse.Namespace) -> int:
    """Print what came of it; returns 1 when no answer did, 2 for bad arguments. Raises PolicyError."""
    config = load_directory(args.policies)
    row = config.providers.get(args.provider)
    if row is None:
        tell(f"llm-sidecar: provider {args.provider!r} is not in the catalog{nearest(args.provider, config.providers)}")
        return 2
    model = args.model or next((one.id for one in config.models.values() if one.provider == row.name), None)
    if model is None:
        tell(f"llm-sidecar: the catalog lists no model of {row.name}; give one by --model ID")
        return 2
    return asyncio.run(_probe(config, row, model, stream=args.stream))


async def _probe(config: Config, row: ProviderRow, model: str, *, stream: bool) -> int:
    found = access(row, os.environ)
    print(f"provider  {row.name}: {found.base_url or row.base_url}, language {row.adapter}")
    print(f"key       {found.off or found.source}")
    if found.off:
        return 1
    print(f"asking    {row.name}/{model}, at most {_MAX_TOKENS} tokens, {'streamed' if stream else 'complete'}")
    transport = Transport()
    began = time.monotonic()
    try:
        usage = await _ask(config, transport, f"{row.name}/{model}", stream=stream)
    except ProxyError as error:
        print(f"failed    after {_ms(began)} ms: {error.code or error.type}: {error.message}")
        for line in _diagnosis(error, found.source):
            print(f"          {line}")
        return 1
    finally:
        await transport.close()
    print(f"answered  after {_ms(began)} ms: {usage}")
    return 0


async def _ask(config: Config, transport: Transport, name: str, *, stream: bool) -> str:
    """Return what the answer was like, in words. Raises ProxyError."""
    body: dict[str, Any] = {"model": name, "messages": [{"role": "user", "content": "Say OK."}], "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    request = decode_chat(orjson.dumps({**body, "max_completion_tokens": _MAX_TOKENS}), int(time.time()))
    tools = Tools(transport, Metrics(), Log(BytesIO().write), time.monotonic, time.time)
    gateway = Gateway(tools, adapter.load, lambda row: access(row, os.environ))
    gateway.install(config)
    said = Overrides(fallback=False)
    plan = gateway.plan(request, said)
    answer = await gateway.go(gateway.walk(request, plan, "probe", said), plan, said)
    if isinstance(answer, StreamAnswer):
        try:
            await answer.pour(Nobody())
        finally:
            answer.close()
    usage, usd = answer.attempt.usage, answer.attempt.usd
    tokens = "no usage told" if usage is None else f"{usage.input} tokens in, {usage.output} out"
    cost = "price unknown" if usd is None else f"${usd:.6f}"
    dropped = f", left out: {', '.join(answer.attempt.dropped)}" if answer.attempt.dropped else ""
    return f"finish {answer.finish}, {tokens}, {cost}{dropped}"


def _diagnosis(error: ProxyError, source: str) -> list[str]:
    """Return what a person may do about `error`, and what the system said where no provider did."""
    kind = getattr(error, "kind", "invalid_request" if isinstance(error, ClientError) else "")
    advice = _ADVICE.get(error.code or "") or _ADVICE.get(kind)
    lines = [advice.format(source=source)] if advice else []
    # What the transport translated; the router hides it, as clients are not told of addresses.
    if error.__context__ is not None and str(error.__context__):
        lines.append(f"({scrub(str(error.__context__))})")
    return lines


def _ms(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.0f}"
