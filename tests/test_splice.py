"""One value changes, every other byte stays."""

import msgspec
import pytest

from proxy import splice

# Spacing, order, numbers and escapes that a decoder and encoder would not give back.
ODD = b' {\n "a" : 1.0 ,\t"model":"x", "n":1e3,"big":12345678901234567890, "s":"\\u00e9\\"}{", "o":{"model":[1,{}]} }\n'


def test_only_the_value_changes() -> None:
    """Numbers, spacing, key order and nested keys of the same name are left alone."""
    assert splice.set_value(ODD, b"model", b'"new"') == ODD.replace(b'"model":"x"', b'"model":"new"')
    assert splice.replace_known(ODD, b"model", b"7") == ODD.replace(b'"model":"x"', b'"model":7')


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b'{"model":"a","m":1}', b'{"model":0,"m":1}'),
        (b'{"m":1,"model":"a"}', b'{"m":1,"model":0}'),
        (b'{"m":{"model":1},"model":[1,[2]]}', b'{"m":{"model":1},"model":0}'),
        (b'{"m":"model","model":null}', b'{"m":"model","model":0}'),
        (b'{"m":"x\\"model","model" : {"a":"}"} }', b'{"m":"x\\"model","model" : 0 }'),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":0}'),
        (b'{"m":{"model":1},"\\u006dodel":"a"}', b'{"m":{"model":1},"\\u006dodel":0}'),
        (b'{"model":1,"model":2}', b'{"model":1,"model":0}'),
        (b'{ "model" : 1}', b'{ "model" : 0}'),
    ],
)
def test_the_right_key_is_found(body: bytes, changed: bytes) -> None:
    """The top-level key counts, however it is spelled; of two, the last, as decoders see it."""
    assert splice.replace_known(body, b"model", b"0") == changed
    assert splice.set_value(body, b"model", b"0") == changed


def test_a_nested_key_is_not_found() -> None:
    """Only the top level is looked at."""
    assert splice.find(b'{"a":{"model":1}}', b"model") is None


@pytest.mark.parametrize("body", [b"{}", b'{"a":"model"}', b'{"a":"model","b":"model"}'])
def test_a_key_that_is_not_there_is_an_error(body: bytes) -> None:
    """A value of that name is not the key."""
    with pytest.raises(LookupError):
        splice.replace_known(body, b"model", b"0")


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b"{}", b'{"x":1}'),
        (b"{ }\n", b'{ "x":1}\n'),
        (b'{"a":{}}', b'{"a":{},"x":1}'),
        (b'{"a":"x"}', b'{"a":"x","x":1}'),
        (b'{"a":"\\u0061"}', b'{"a":"\\u0061","x":1}'),
    ],
)
def test_a_missing_key_is_added_at_the_end(body: bytes, changed: bytes) -> None:
    """With a comma only where something stands before it."""
    assert splice.set_value(body, b"x", b"1") == changed


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b'{"old": 1, "a": 2}', b'{"new": 1, "a": 2}'),
        (b'{"a":{"old":1}}', b'{"a":{"old":1}}'),
        (b'{"a":1}', b'{"a":1}'),
        (b'{"ol\\u0064":1}', b'{"new":1}'),
        (b'{"a":"\\u0064"}', b'{"a":"\\u0064"}'),
        (b'{"old":1,"new":2}', b'{"new":2}'),
        (b'{"new":2,"old":1}', b'{"new":2}'),
        (b'{"old":1,"a":2,"ol\\u0064":3,"b":4}', b'{"a":2,"new":3,"b":4}'),
        (b'{"old":1,"new":2,"old":3}', b'{"new":2}'),
    ],
)
def test_rename_leaves_one_key(body: bytes, changed: bytes) -> None:
    """The value keeps its place; where the new name is there already, it stands and the old one goes."""
    assert splice.rename(body, b"old", b"new") == changed


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b'{"x":1,"a":2}', b'{"a":2}'),
        (b'{"a":2, "x":[1,{"x":2}]}', b'{"a":2}'),
        (b'{"a":2, "x":1, "b":"}"}', b'{"a":2, "b":"}"}'),
        (b'{"x":1}', b"{}"),
        (b'{"a":{"x":1}}', b'{"a":{"x":1}}'),
        (b'{"x":1,"a":2, "x":3,"x":4}', b'{"a":2}'),
        (b'{ "x":1 , "x":2 }', b"{  }"),
        (b'{"x":1,"a":2,"x":3,"b":4}', b'{"a":2,"b":4}'),
    ],
)
def test_remove_leaves_valid_json(body: bytes, changed: bytes) -> None:
    """First, middle, last or only member: the commas are right afterwards; nested ones stay."""
    assert splice.remove(body, b"x") == changed
    assert msgspec.json.decode(changed) is not None


@pytest.mark.parametrize(
    ("body", "twice"),
    [
        (b'{"model":1}', False),
        (b'{"model":1,"a":{"model":2}}', False),
        (b'{"model":1,"model":2}', True),
        (b'{"model":1,"mod\\u0065l":2}', True),
        (b'{"model":1,"a":"\\u0065"}', False),
    ],
)
def test_repeated_keys_are_seen(body: bytes, twice: bool) -> None:
    """Decoders differ on which of two keys counts, so it must be known, escaped spellings included."""
    assert splice.repeats(body, b"model") is twice


def test_members_are_where_they_say() -> None:
    """Names come decoded; positions cut the body exactly."""
    found = splice.members(ODD)

    assert [member.name for member in found] == [b"a", b"model", b"n", b"big", b"s", b"o"]
    assert ODD[found[2].value : found[2].end] == b"1e3"
    assert ODD[found[4].key : found[4].key_end] == b'"s"'
    assert ODD[found[5].value : found[5].end] == b'{"model":[1,{}]}'


@pytest.mark.parametrize("body", [b'{"a"', b'{"a":', b'{"a":"x', b'{"a":[1', b'{"a":1'])
def test_half_an_object_ends_the_search(body: bytes) -> None:
    """Callers pass whole objects; half a one must not hang or raise."""
    assert [member.name for member in splice.members(body)] == [b"a"]


def test_a_search_in_windows_finds_what_a_search_does() -> None:
    """Wherever it stands: in a window, across two, at the very end, or nowhere."""
    for size in (0, 10, 24_990, 25_000, 25_010, 60_000):
        for place in {0, size // 2, max(0, size - 8), 24_996, 25_000, 49_998} & set(range(size + 1)):
            body = b"x" * place + b'"model"' + b"x" * (size - place)
            for start in (0, 1, place, place + 1):
                assert splice.seek(body, b'"model"', start) == body.find(b'"model"', start)
    assert splice.seek(b"x" * 80_000, b'"model"') == -1


@pytest.mark.parametrize(
    ("body", "at"),
    [
        (b'{"model":"a","m":1}', b'"a"'),
        (b'{"m":[1], "model" :\n "a b" }', b'"a b"'),
        (b'{"model":"a\\n"}', None),
        (b'{"model":"a","m":{"model":"b"}}', None),
        (b'{"role":"model","model":"a"}', None),
        (b'{"model":"a","mod\\u0065l":"b"}', None),
        (b'{"m":1}', None),
    ],
)
def test_a_place_that_is_plain_to_see(body: bytes, at: bytes | None) -> None:
    """Only what cannot be anything else; for the rest it takes a walk."""
    found = splice.only(body, b"model")
    assert (None if found is None else body[slice(*found)]) == at
