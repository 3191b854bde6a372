"""The documents are held to the code: what they list exists, what exists is listed, and their examples run."""

import ast
import asyncio
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy import adapter, errors, policy
from proxy.__main__ import parser
from proxy.config import CATALOG, Config, load, shipped
from proxy.metrics import Counter, Metrics
from proxy.policytest import failures
from proxy.visit import RequestLine
from tests.conftest import StartSidecar, StartUpstream
from tests.fake_upstream import completion

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS]
# The demo providers are upstreams: what they say is no answer of ours. The verbs print for people.
SOURCES = [
    file
    for file in sorted([*(ROOT / "proxy").glob("*.py"), *(ROOT / "adapters").rglob("*.py")])
    if not file.name.startswith("demo")
]
CLASSES: list[type[errors.ProxyError]] = [errors.ProxyError, errors.ClientError, *errors.BY_KIND.values()]
TABLES: dict[str, type[msgspec.Struct]] = {
    "[[provider]]": policy.ProviderRow,
    "login": policy.Login,
    "limits": policy.Limits,
    "cache": policy.Cache,
    "[[model]]": policy.ModelRow,
    "price": policy.Price,
    "tiers": policy.Tier,
    "latency": policy.Latency,
    "A policy file": policy.Policy,
    "weights": policy.Weights,
    "require": policy.Require,
    "[fallback]": policy.Fallback,
    "[timeouts]": policy.Timeouts,
    "[[when]]": policy.When,
    "[[test]]": policy.PolicyTest,
    "expect": policy.Expect,
    "given": policy.Given,
    "request": policy.Asked,
}


def page(name: str) -> str:
    """The text of one document."""
    return (ROOT / "docs" / name).read_text()


def section(text: str, heading: str) -> str:
    """What stands under `heading`, up to the next one."""
    found = re.split(r"^#+ (.*)$", text, flags=re.MULTILINE)
    titles = [title.replace("`", "") for title in found[1::2]]
    text_of: dict[str, str] = dict(zip(titles, found[2::2], strict=True))
    return text_of[heading]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows in `text`."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def quoted(text: str) -> set[str]:
    """All words in backquotes; of `name: value` the name."""
    return {found.partition(":")[0] for found in re.findall(r"`([^`\n]+)`", text)}


def blocks(text: str, language: str) -> list[str]:
    """The code blocks in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def calls(name: str) -> Iterator[ast.Call]:
    """All calls of something called `name`, in all sources."""
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name:
                yield node


def words(node: ast.AST | None) -> set[str]:
    """All string constants in `node`."""
    found = ast.walk(node) if node is not None else ()
    return {one.value for one in found if isinstance(one, ast.Constant) and isinstance(one.value, str)}


# ---- policies.md ------------------------------------------------------------------------------------------------


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """A field's default as the tables write it."""
    value: object = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if field.required:
        return "required"
    if value is None:
        return "-"
    return "{}" if isinstance(value, msgspec.Struct) else msgspec.json.encode(value).decode().replace(",", ", ")


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_is_listed_with_its_default(heading: str) -> None:
    """A table in docs/policies.md has exactly the keys of its type, in its order."""
    table = [cells for cells in rows(section(page("policies.md"), heading)) if len(cells) == 4][2:]
    listed = [(cells[0].strip("`"), cells[2].strip("`")) for cells in table]
    assert listed == [(field.encode_name, default_of(field)) for field in msgspec.structs.fields(TABLES[heading])]


def test_every_table_of_the_schema_is_documented() -> None:
    """A new type in proxy/policy.py needs a table."""
    kinds = {
        kind
        for kind in vars(policy).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and not kind.__name__.startswith("_")
    }
    assert kinds == set(TABLES.values())


def test_the_vocabularies_are_complete() -> None:
    """Every strategy, kind of fault, feature and quirk stands in docs/policies.md."""
    quirks = {quirk for name in adapter.names() for quirk in adapter.load(name).quirks}
    known = {*policy.STRATEGIES, *errors.KINDS, *policy.FEATURES, *quirks, *adapter.names()}
    assert known - quoted(page("policies.md")) == set()
    kinds = [cells[0].strip("`") for cells in rows(section(page("policies.md"), "[fallback]")) if len(cells) == 2]
    assert kinds[2:] == list(errors.KINDS)


# ---- http-api.md ------------------------------------------------------------------------------------------------


async def test_every_door_is_listed(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Each path that is served stands in docs/http-api.md."""
    running = (await sidecar(await upstream())).app.sidecar
    assert {*running._main, *running._admin, *running._free} - quoted(page("http-api.md")) == set()


def test_every_error_code_is_listed() -> None:
    """Each `code` that the sources can put into an error of ours stands in docs/http-api.md."""
    codes = {cls.code for cls in CLASSES} - {None}
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            named = isinstance(node, ast.keyword) and node.arg == "code"
            if isinstance(node, ast.Assign):
                named = ast.unparse(node.targets[0]).rpartition(".")[2] == "code"
            # A call here reads somebody else's code.
            if (
                isinstance(node, ast.keyword | ast.Assign)
                and named
                and isinstance(node.value, ast.Constant | ast.IfExp)
            ):
                codes |= words(node.value)
    codes |= {word for call in calls("_decode") for word in words(call)}
    listed = {code for cells in rows(section(page("http-api.md"), "Errors")) for code in quoted(cells[1])}
    assert codes - listed == set()


def test_every_status_is_listed() -> None:
    """Each status that the sources name stands in the table of errors."""
    found = {cls.status for cls in CLASSES}
    for name in ("ClientError", "ProxyError"):
        for call in calls(name):
            found |= {one.value.value for one in call.keywords if one.arg == "status" and hasattr(one.value, "value")}
    listed = " ".join(cells[0] for cells in rows(section(page("http-api.md"), "Errors")))
    assert {str(status) for status in found} - set(re.findall(r"\d+", listed)) == set()


def test_every_header_is_listed() -> None:
    """Each header that the doors read or write stands in docs/http-api.md."""
    text = "".join(
        (ROOT / "proxy" / f"{name}.py").read_text() for name in ("desk", "visit", "client", "connection", "server")
    )
    said = words(ast.parse(text.replace("from __future__", "")))
    found = {word for word in said if re.fullmatch(r"x(-[a-z]+)+", word)}
    found |= {name for word in said for name in re.findall(r"\b(x(?:-[a-z]+)+): ", word)}
    found |= {"retry-after", "server-timing", "www-authenticate", "allow"}
    assert {word for word in found if word in text} == found
    assert found - quoted(page("http-api.md")) == set()


async def test_every_metric_is_listed(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Each series that /metrics shows stands in docs/http-api.md, with its labels."""
    listed = {cells[0].strip("`"): quoted(cells[1]) for cells in rows(section(page("http-api.md"), "Metrics"))[2:]}
    text = (await (await sidecar(await upstream())).get("/metrics")).body.decode()
    assert set(listed) == set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    for series in vars(Metrics()).values():
        labels = set(series._labels) if isinstance(series, Counter) else set()
        assert listed[series._name] == labels
    for name, labels_text in re.findall(r"^(sidecar_upstream_\w+)\{(.*)\}", text, re.MULTILINE):
        assert listed[name] == set(re.findall(r'(\w+)="', labels_text))


def test_every_log_field_is_listed() -> None:
    """Each event and field that is logged stands in docs/http-api.md, and no other."""
    table = rows(section(page("http-api.md"), "Log"))[2:]
    listed = {cells[0].strip("`"): cells[1] for cells in table}
    logged = {}
    for call in calls("log"):
        event = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
        if isinstance(event, str):  # else it is a logarithm
            # `**fault` stands for the two fields that say where our own fault is.
            logged[event] = {one.arg or "error" for one in call.keywords}
    logged["request"] = set(RequestLine.__struct_fields__) - {"ts"}
    assert set(listed) == set(logged)
    for event, fields in logged.items():
        assert fields - quoted(listed[event]) == set(), event


async def test_the_log_fields_are_real(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A streamed request logs what the table says, and nothing else."""
    running = await sidecar(await upstream(completion("Hi")))
    await running.post()
    cells = next(cells for cells in rows(section(page("http-api.md"), "Log")) if cells[0] == "`request`")
    assert set(running.log("request")[0]) - quoted(cells[1]) == {"ts", "event"}


# ---- all pages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_links_resolve(file: Path) -> None:
    """A relative link leads to a file, and its fragment to a heading there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text()):
        path, _, fragment = target.partition("#")
        if ":" in path:
            continue
        linked = file.parent / path if path else file
        assert linked.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert fragment in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}, target


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_verbs_exist(file: Path) -> None:
    """`llm-sidecar VERB` names a verb, and an option after it is one of its options."""
    verbs: dict[str, Any] = next(action.choices for action in parser()._actions if action.dest == "verb")  # type: ignore[misc]
    for verb, rest in re.findall(r"(?<!/)\bllm-sidecar ([a-z]+)\b([^`\n|]*)", "\n".join(code_in(file.read_text()))):
        assert verb in verbs, verb
        options = {option for action in verbs[verb]._actions for option in action.option_strings}
        own = rest.partition(" -- ")[0]
        assert set(re.findall(r"(?<!\S)--[a-z-]+", own)) - options == set(), rest


def code_in(text: str) -> list[str]:
    """What stands in code blocks and backquotes."""
    return [*re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL), *re.findall(r"`([^`\n]+)`", text)]


def test_the_options_of_serve_are_documented() -> None:
    """Each option of `serve` stands in docs/deployment.md."""
    verbs: dict[str, Any] = next(action.choices for action in parser()._actions if action.dest == "verb")  # type: ignore[misc]
    options = {option for action in verbs["serve"]._actions for option in action.option_strings} - {"-h", "--help"}
    assert {option for option in options if option not in page("deployment.md")} == set()


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_toml_examples_are_valid(file: Path) -> None:
    """A TOML example is a catalog or a policy that loads, and the tests in it pass."""
    catalog = (shipped() / CATALOG).read_bytes()
    for block in blocks(file.read_text(), "toml"):
        name = CATALOG if {"provider", "model"} & set(tomllib.loads(block)) else "example.toml"
        config = load({name: block.encode()}, catalog)
        asyncio.run(run_tests(config))


async def run_tests(config: Config) -> None:
    """Fail with what came instead when a `[[test]]` of a policy does not hold."""
    for name, one in config.policies.items():
        for test in one.test:
            assert failures(config, name, test) is None


def test_the_module_table_is_the_import_order() -> None:
    """docs/architecture.md lists the layers of pyproject.toml, in their order."""
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    ordered = [name.strip().removeprefix("proxy.") for layer in layers for name in layer.split("|")]
    table = rows(section(page("architecture.md"), "Modules"))[2:]
    listed = [name for cells in table for name in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(listed) == sorted(ordered)
    place = {name: number for number, layer in enumerate(layers) for name in re.findall(r"(\w+)(?= \||$)", layer)}
    assert [place[name] for name in listed] == sorted(place[name] for name in listed)


def test_the_floors_are_those_of_the_project() -> None:
    """docs/architecture.md gives each dependency's floor as pyproject.toml does."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    listed = [cells[0] + cells[1].strip("`") for cells in rows(section(page("architecture.md"), "Floors"))[2:]]
    assert sorted(listed) == sorted(wanted)
