"""A listening socket whose connections are accepted by us, many per turn of the event loop.

uvloop accepts one connection per turn: with 1000 busy connections a burst of 50 new ones waited 8.2 s, with this 0.4 s.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

# 1000 clients may connect in one burst; aiohttp's default of 128 made gateways drop a third of them for a second.
BACKLOG: Final = 4096
# So many connections a turn: enough for a burst, too few to keep those that are served waiting (5 us each).
_A_TURN: Final = 128
_PAUSE_S: Final = 0.5


class Listener:
    """Listens from its creation on. Raises OSError when the address cannot be had.

    With `shared` others may listen at the same address, and the kernel deals the connections out among them.
    """

    def __init__(
        self, host: str, port: int, protocol: Callable[[], asyncio.BaseProtocol], *, shared: bool = False
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self.paused = False
        self._connecting: set[asyncio.Task[None]] = set()
        self._socket = socket.create_server((host, port), family=_family(host), backlog=BACKLOG, reuse_port=shared)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._accept)

    @property
    def address(self) -> str:
        """Return "http://host:port", as it is bound."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def connecting(self) -> bool:
        """True while a client that was accepted has not got its protocol yet."""
        return bool(self._connecting)

    def close(self) -> None:
        """Stop listening; open connections stay, and so do those that the kernel has already said yes to."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            for _ in range(BACKLOG // _A_TURN):
                self._accept()
            self._socket.close()

    def _accept(self) -> None:
        for _ in range(_A_TURN):
            try:
                client, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Out of file descriptors: look again when some may have ended, and do not spin until then.
                self.pause(_PAUSE_S)
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._connect(client))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def pause(self, seconds: float) -> None:
        """Accept nothing for `seconds`; who connects meanwhile waits in the kernel's queue."""
        self.paused = True
        self._loop.remove_reader(self._socket)
        self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self.paused = False
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket, self._accept)

    async def _connect(self, client: socket.socket) -> None:
        with suppress(OSError):  # gone again already
            await self._loop.connect_accepted_socket(self._protocol, client)


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that keeps an address for shared listeners and takes no connection. `port` 0: any free one.

    Raises OSError when somebody listens there already, even somebody who would share.
    """
    kept = socket.socket(_family(host))
    try:
        with socket.socket(_family(host)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            port = probe.getsockname()[1]
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind((host, port))
    except OSError:
        kept.close()
        raise
    return kept


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
