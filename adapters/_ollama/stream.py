"""Turn Ollama's lines into chunks, one object per answer.

The stream is JSON lines (https://github.com/ndjson/ndjson-spec): every line is an event. Calls come whole, in any line;
the last line has `done` and the counts.
"""

from adapters._chat.chunks import Chunks, plain
from adapters._ollama.reply import Said, calls_in, decode, finish_of, id_of, logprobs_of, usage_of
from proxy import sse, wire
from proxy.adapter import Target
from proxy.wire import ChatRequest


class Lines(sse.Decoder):
    """Splits a byte stream into JSON lines, for any split of the bytes; keeps at most MAX_EVENT of them."""

    __slots__ = ()

    def _line(self, line: bytes, events: list[sse.Event]) -> None:
        if len(line) > sse.MAX_EVENT:
            self._size = len(line)
        elif line and not line.isspace():
            events.append(sse.Event(b"", line))


class Stream(Chunks):
    """Turns Ollama's lines into chunks; see StreamParser for what the attributes mean."""

    def __init__(self, request: ChatRequest, target: Target) -> None:
        super().__init__(request, target, Lines())

    def _take(self, event: sse.Event) -> None:
        line = decode(event.data)
        said = line.message or Said()
        if self._writer is None:
            self._opened(id_of(line, self._request), line.model)
        self._say_thought(plain(said.thinking))
        text, logprobs = plain(said.content), logprobs_of(line)
        if text or logprobs is not None:
            self._say(wire.Delta(content=text), logprobs)
        for id, name, arguments in calls_in(said, self._request, self.called):
            self._say_call(id, name, arguments)
        if line.done:
            self.model = line.model
            self.usage = self.told = usage_of(line)
            self.done = True
            self._stop(finish_of(line, called=self.called > 0))
