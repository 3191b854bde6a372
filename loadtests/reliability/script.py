"""What a request asks of the scripted upstream, and the bytes of the right answer; for upstream and client alike.

A script travels in the prompt, so that it passes through any gateway: `nonce=7f-1 events=40 gap=0.1|filler|7f-1`.
"""

import itertools
import os
from typing import Final, NamedTuple, Self

import msgspec

_BEGIN: Final = b'"content":"nonce='
_USAGE: Final = b'"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}'
DONE: Final = b"data: [DONE]\n\n"
_run: Final = os.urandom(4).hex()
_numbers: Final = itertools.count(1)


class DamagedError(Exception):
    """A request did not arrive as it was sent."""


class Script(NamedTuple):
    """One request's script. Seconds: `wait` before the answer, `gap` before each event.

    `fault`: what goes wrong, at the first `faulty` attempts with this nonce. `size`: bytes of filler in the prompt.
    """

    nonce: str
    stream: bool = True
    events: int = 4
    gap: float = 0.0
    wait: float = 0.0
    fault: str = ""
    faulty: int = 1
    size: int = 0

    @classmethod
    def new(cls, *, stream: bool = True, events: int = 4, gap: float = 0.0, wait: float = 0.0, fault: str = "") -> Self:
        """Return a script with a nonce of its own."""
        return cls(f"{_run}-{next(_numbers)}", stream, events, gap, wait, fault)

    def body(self, model: str) -> bytes:
        """Return the request."""
        words = " ".join(f"{name}={getattr(self, name):g}" for name in ("stream", "events", "gap", "wait", "faulty"))
        prompt = f"nonce={self.nonce} {words} fault={self.fault}|{'x' * self.size}|{self.nonce}"
        stream = "true" if self.stream else "false"
        return f'{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"{prompt}"}}]}}'.encode()

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Return the script of a request. Raises DamagedError unless nonces stand at both ends of the prompt."""
        begin = body.find(_BEGIN)
        if begin < 0:  # a gateway wrote the JSON anew, with blanks
            body = msgspec.json.encode(msgspec.json.decode(body))
            begin = body.find(_BEGIN)
        middle, last = body.find(b"|", begin), body.rfind(b"|")
        if begin < 0 or middle < 0:
            raise DamagedError("no script")
        words = dict(word.split("=", 1) for word in body[begin + 11 : middle].decode().split(" "))
        if not body.startswith(f'{words["nonce"]}"'.encode(), last + 1):
            raise DamagedError("the end of the prompt is missing")
        number = {name: float(words[name]) for name in ("stream", "events", "gap", "wait", "faulty")}
        return cls(
            words["nonce"],
            bool(number["stream"]),
            int(number["events"]),
            number["gap"],
            number["wait"],
            words["fault"],
            int(number["faulty"]),
            last - middle - 1,
        )

    @property
    def text(self) -> str:
        """What the right answer says."""
        return "".join(self._word(number) for number in range(self.events))

    def _word(self, number: int) -> str:
        return f"{self.nonce}.{number} "

    def event(self, model: str, number: int) -> bytes:
        """Return a content event, from 0."""
        return self._chunk(model, f'{{"content":"{self._word(number)}"}}')

    def opening(self, model: str) -> bytes:
        """Return the event before the first content."""
        return self._chunk(model, '{"role":"assistant","content":""}')

    def finish(self, model: str) -> bytes:
        """Return the event behind the last content."""
        return self._chunk(model, "{}", '"stop"')

    def usage(self, model: str) -> bytes:
        """Return the event that only comes when usage was asked for."""
        return f"data: {self._about(model, '.chunk')},".encode() + b'"choices":[],' + _USAGE + b"}\n\n"

    def all_events(self, model: str) -> list[bytes]:
        """Return the whole stream as a client gets it that did not ask for usage."""
        said = [self.event(model, number) for number in range(self.events)]
        return [self.opening(model), *said, self.finish(model), DONE]

    def complete(self, model: str) -> bytes:
        """Return the complete answer."""
        message = f'{{"role":"assistant","content":"{self.text}"}}'
        choice = f'"choices":[{{"index":0,"message":{message},"finish_reason":"stop"}}],'
        return f"{self._about(model, '')},{choice}".encode() + _USAGE + b"}"

    def _about(self, model: str, kind: str) -> str:
        about = f'"object":"chat.completion{kind}","created":1,"model":"{model}"'
        return f'{{"id":"chatcmpl-{self.nonce}",{about}'

    def _chunk(self, model: str, delta: str, finish: str = "null") -> bytes:
        choice = f'"choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]'
        return f"data: {self._about(model, '.chunk')},{choice}}}\n\n".encode()
