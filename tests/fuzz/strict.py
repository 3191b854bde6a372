"""JSON as a second decoder reads it: nothing lost (order, repeated keys, every digit), nothing let through."""

import json
from typing import Any, Final, NamedTuple

Pairs = list[tuple[str, Any]]


class Object(NamedTuple):
    """A JSON object, with every member in its place."""

    pairs: Pairs

    def last(self) -> dict[str, Any]:
        """Return it as most decoders see it: of a repeated key, the last value."""
        return dict(self.pairs)


class Number(NamedTuple):
    """A number, digit by digit."""

    digits: str


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=Object, parse_int=Number, parse_float=Number, parse_constant=_refuse
)


def decode(data: bytes) -> Any:
    """Return the JSON value in `data`. Raises ValueError for anything else, bad UTF-8 included."""
    return _DECODER.decode(data.decode())


def object_in(data: bytes) -> Object:
    """Return the JSON object in `data`. Raises ValueError."""
    found = decode(data)
    if not isinstance(found, Object):
        raise ValueError("no object")
    return found
