"""What a decision may know of a request: a few numbers and salted hashes, never its words. Pure.

Providers keep the beginnings of prompts for some minutes and read them again at a tenth to a half of the price. Whether
a prompt begins like an earlier one is told by `prefix`: one hash per block of BLOCK_BYTES, each over all blocks so far,
so that two prompts share as many hashes as they share whole blocks from their beginnings on. (512 tokens a block, as
in Mooncake's published traces; providers count in steps of 64 to 128.)
"""

from typing import Final

import msgspec

from proxy.splice import seek

BLOCK_TOKENS: Final = 512
# Four bytes a token, as everywhere before a tokeniser has had its say.
BLOCK_BYTES: Final = 4 * BLOCK_TOKENS
# As much of a prompt as is hashed: 131 072 tokens.
MAX_BLOCKS: Final = 256

# The estimate reckons with four bytes per token, as in English and code. Twelve is more than any text has: Chinese that
# a client spelled in escapes comes to six bytes per character, and to two characters per token at most.
_SURE: Final = 3
# Base64 has far more bytes than the picture has tokens: its size says nothing.
_MEDIA: Final = frozenset(("vision", "audio", "files"))


class Ask(msgspec.Struct, frozen=True):
    """What a decision needs to know of a request.

    `now` is monotonic seconds, `tokens` the estimated input, `max_tokens` the answer's limit, 0 for none, `prefix` the
    hashes of the prompt's blocks (empty where no cache could matter), `policy` what answers are learned under, `task`
    the class of the request, "" for none.
    """

    now: float
    stream: bool = False
    tokens: int = 0
    needs: frozenset[str] = frozenset()
    max_tokens: int = 0
    prefix: tuple[int, ...] = ()
    policy: str = ""
    task: str = ""

    @property
    def media(self) -> bool:
        """True when the estimate says nothing: there is more than text in the prompt."""
        return not self.needs.isdisjoint(_MEDIA)

    @property
    def least(self) -> int:
        """The tokens that the request takes for certain, its answer's limit included."""
        return self.max_tokens + (0 if self.media else self.tokens // _SURE)


def prefix(body: bytes, *, tools: bool) -> tuple[int, ...]:
    """Return the hashes of the prompt in `body`, a chat request: its `tools`, if any, then messages, as providers read.

    What comes last, and is no whole block, is left out. Python keys its hash of bytes with a secret of the process
    (PEP 456): nobody can guess texts and compare, and nothing of it outlives the process.
    """
    messages, called = seek(body, b'"messages"'), seek(body, b'"tools"') if tools else -1
    regions = [(called, len(body)), (messages, called)]
    if called < messages or messages < 0:
        regions = [(max(messages if called < 0 else called, 0), len(body))]
    view, found, last = memoryview(body), list[int](), 0
    for begins, ends in regions:
        most = begins + (MAX_BLOCKS - len(found)) * BLOCK_BYTES
        for at in range(begins, min(ends - BLOCK_BYTES + 1, most), BLOCK_BYTES):
            last = hash((last, hash(view[at : at + BLOCK_BYTES])))
            found.append(last)
    return tuple(found)
