"""The express: the usual request, answered in two calls of the event loop, without a task of its own.

The first call comes when the body is in: decode, decide, write to a kept connection. The second when the upstream has
answered: read, write to the client, close the books. Both take the steps that everybody takes. Whatever else may
happen (no connection is free, a stream, an answer in pieces, a fault, silence, a client that leaves, the end of the
sidecar) starts the task that would have answered from the beginning; it goes on from where the express stands.
"""

from typing import Protocol

from proxy.client import Client, Going
from proxy.gateway import Overrides
from proxy.lane import Rider
from proxy.link import Link
from proxy.router import Asked
from proxy.visit import Visit


class Door(Protocol):
    """The chat door."""

    def serve(self, client: Client, visit: Visit, said: Overrides) -> Going:
        """Return what answers in a task."""
        ...

    def settle(self, client: Client, visit: Visit, asked: Asked, body: bytes) -> bool:
        """Make of `body` the client's answer, and close the books. Returns False when it is none. Must not raise."""
        ...


class Express(Rider, eq=False):
    """One request whose first attempt is under way: `asked`, on `link`."""

    door: Door
    visit: Visit
    said: Overrides
    asked: Asked
    link: Link

    def going(self) -> Going:
        """Return what goes on in a task."""
        self.link.told = None
        return self.door.serve(self.client, self.visit, self.said)

    def told(self) -> None:
        """Something has come, or the wait is over."""
        link, visit, client = self.link, self.visit, self.client
        body = None if visit.stream else link.came()
        if body is None or not self.door.settle(client, visit, self.asked, body):
            self.task()
            return
        link.told = None
        link.take()
        visit.walk.tools.transport.pool.give(link)
        client.wire.arrive(client)
