"""The listening socket: every connection of a burst is served, and none is lost when file descriptors run out."""

import asyncio
import os
import resource
import socket
from typing import Any

import pytest

from proxy.listener import Listener, reserve
from tests.conftest import until


class Hello(asyncio.Protocol):
    """Says hello and closes."""

    def connection_made(self, transport: Any) -> None:
        """Greet."""
        transport.write(b"hello")
        transport.close()


async def ask(listener: Listener) -> bytes:
    """Connect and read to the end."""
    host, _, port = listener.address.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_a_burst_is_served() -> None:
    """More connections than one turn accepts all get through."""
    listener = Listener("127.0.0.1", 0, Hello)

    said = await asyncio.gather(*(ask(listener) for _ in range(300)))

    assert said == [b"hello"] * 300
    listener.close()


async def test_closed_twice_is_closed() -> None:
    """After the close nobody gets in, and closing again is no error."""
    listener = Listener("localhost", 0, Hello)
    assert listener.address.startswith("http://127.0.0.1:")
    listener.close()
    listener.close()


async def test_without_file_descriptors_it_waits() -> None:
    """A connection that finds no descriptor left is served as soon as there is one."""
    listener = Listener("127.0.0.1", 0, Hello)
    host, _, port = listener.address.removeprefix("http://").rpartition(":")
    client = socket.create_connection((host, int(port)))  # the kernel has it; nobody has accepted it yet
    client.setblocking(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The next descriptor would be the lowest that is free.
    lowest = os.dup(client.fileno())
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        await until(lambda: listener.paused)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert await asyncio.get_running_loop().sock_recv(client, 100) == b"hello"
    client.close()
    listener.close()


async def test_closed_while_it_waits() -> None:
    """A listener that is closed while it waits for descriptors stays closed."""
    listener = Listener("127.0.0.1", 0, Hello)
    listener.pause(0.0)
    listener.close()
    await until(lambda: not listener.paused)


async def test_shared_listeners_have_one_port() -> None:
    """A reserved port is for those who share it; it takes no connection itself."""
    with reserve("127.0.0.1", 0) as kept:
        port = kept.getsockname()[1]
        first, second = (Listener("127.0.0.1", port, Hello, shared=True) for _ in range(2))
        assert await asyncio.gather(*(ask(first) for _ in range(50))) == [b"hello"] * 50
        first.close()
        assert await asyncio.gather(*(ask(second) for _ in range(50))) == [b"hello"] * 50
        second.close()
        with pytest.raises(ConnectionRefusedError):
            await ask_port(port)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_port_that_somebody_has_is_not_reserved(shared: bool) -> None:
    """Even if they would share it: requests would go astray."""
    listener = Listener("127.0.0.1", 0, Hello, shared=shared)
    with pytest.raises(OSError, match="in use"):
        reserve("127.0.0.1", int(listener.address.rpartition(":")[2]))
    listener.close()


async def ask_port(port: int) -> None:
    """Connect."""
    await asyncio.open_connection("127.0.0.1", port)
