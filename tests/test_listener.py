"""The listening socket: every connection of a burst is served, and none is lost when file descriptors run out."""

import asyncio
import os
import resource
import socket
from typing import Any

from proxy.listener import Listener
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
