"""A JSON schema in, a value that is true to it out."""

import json
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from proxy.demo_schema import sample


class Color(Enum):
    RED = "red"


class Node(BaseModel):
    """Refers to itself, twice."""

    label: str
    kind: Literal["leaf", "branch"]
    parent: "Node | None"
    children: list["Node"]


class Report(BaseModel):
    answer: str
    color: Color
    scores: list[float] = Field(min_length=3)
    tags: dict[str, int]
    either: int | str
    tree: Node


def test_a_sample_is_true_to_a_models_schema() -> None:
    """References, enums, arrays of a least length and unions validate; the user's words fill `answer`."""
    report = Report.model_validate(sample(Report.model_json_schema(), "tell me"))

    assert (report.answer, report.color, len(report.scores)) == ("tell me", Color.RED, 3)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (True, "demo"),
        (False, None),
        ({}, "demo"),
        ({"const": 7}, 7),
        ({"type": ["string", "null"], "minLength": 6}, "demo.."),
        ({"type": "string", "maxLength": 2}, "de"),
        ({"type": "string", "format": "date"}, "2025-01-01"),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": "integer"}, 1),
        ({"type": "integer", "minimum": 5, "multipleOf": 4}, 8),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "exclusiveMaximum": 1}, 0),
        ({"type": "number", "maximum": -3}, -3.0),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, 0.5),
        ({"items": {"type": "integer"}}, [1]),
        ({"items": False, "prefixItems": [{"const": 1}, {"const": 2}]}, [1, 2]),
        ({"type": "array", "maxItems": 0}, []),
        ({"properties": {"a": {"enum": ["x"]}}, "required": ["b"]}, {"a": "x", "b": "demo"}),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
        ({"oneOf": [True]}, "demo"),
        ({"$ref": "#/$defs/gone/x"}, "demo"),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 3}}}, 3),
    ],
)
def test_each_keyword_of_a_schema_is_obeyed(schema: Any, value: Any) -> None:
    """One row per keyword; names without a schema of their own get something."""
    assert sample(schema) == value


def test_recursion_without_an_end_is_ended() -> None:
    """A schema that no value can satisfy still gets an answer, with null where it would go on."""
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}}}

    assert '"a":null' in json.dumps(sample(schema), separators=(",", ":"))


def test_recursion_ends_at_the_least_that_is_valid() -> None:
    """Deep down the choice that nests least is taken, optional names are left out, arrays are empty."""
    node: dict[str, Any] = {"type": "object", "required": ["next", "list", "any"]}
    node["properties"] = {
        "next": {"anyOf": [{"$ref": "#"}, {"type": "array"}, {"type": "string"}, True, {"type": "null"}]},
        "list": {"type": "array", "items": {"$ref": "#"}},
        "any": {"type": ["object", "null"], "properties": {"x": {"$ref": "#"}}},
        "more": {"$ref": "#"},
    }
    text = json.dumps(sample(node))

    assert '{"next": null, "list": [], "any": null}' in text


def test_a_hostile_schema_costs_a_bounded_amount_of_work() -> None:
    """Ten references at each of ten levels would be ten billion values."""
    levels = {str(i): {"properties": {c: {"$ref": f"#/$defs/{i + 1}"} for c in "abcdefghij"}} for i in range(10)}

    assert len(json.dumps(sample({"$ref": "#/$defs/0", "$defs": levels}))) < 100_000
