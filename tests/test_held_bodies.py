"""A stream may last for minutes: what it was asked with is not kept for that long."""

import asyncio
import tracemalloc

import pytest

from tests.conftest import StartSidecar, StartUpstream, request
from tests.fake_upstream import chunk, stream

STREAMS = 8
MIB = 1 << 20


@pytest.mark.parametrize("cut", [False, True], ids=["one piece", "pieces"])
async def test_open_streams_hold_no_bodies(sidecar: StartSidecar, upstream: StartUpstream, cut: bool) -> None:
    """Eight streams that were asked for with 1 MiB each, one parsed and seven on the short lane, hold less than two."""
    talking = await upstream(stream(chunk({"content": "Hi"}), then="hang", end=False))
    running = await sidecar(talking)
    asked = request(b'{"model":"test","stream":true,"messages":[{"role":"user","content":"%b"}]}' % (b"x" * MIB))
    writers = []
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(STREAMS):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(running.app.address.rpartition(":")[2]))
            writers.append(writer)
            for piece in (asked[:100_000], asked[100_000:]) if cut else (asked,):
                writer.write(piece)
                await writer.drain()
            async with asyncio.timeout(5):
                assert (await reader.readuntil(b"Hi")).startswith(b"HTTP/1.1 200")
        talking.requests.clear()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        for writer in writers:
            writer.transport.abort()
    assert held < 2 * MIB, f"{held / MIB:.1f} MiB"
