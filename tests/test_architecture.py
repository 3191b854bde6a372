"""The house rules that a linter does not know."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "proxy").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")])
# proxy.server has the outermost handler, proxy.adapter imports the code of others, proxy.link hands on what is raised
# in a callback of the event loop, which could only log it, and proxy.conform.checks and proxy.when try the code of
# others; nobody else may catch everything.
OUTERMOST = {"server.py", "adapter.py", "link.py", "checks.py", "when.py"}
# The places that import by name at run time: adapters, learned routers, and the verb that was asked for.
BY_NAME = {"adapter.py", "__main__.py", "when.py"}


def nodes(file: Path, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    """All nodes of these kinds in `file`."""
    return (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_stay_small(file: Path) -> None:
    """A file is one noun, a function one step."""
    assert file.read_text().count("\n") <= 350
    for node in nodes(file, ast.FunctionDef, ast.AsyncFunctionDef):
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        length = (node.end_lineno or 0) - node.lineno + 1
        assert length <= 50, f"{node.name} has {length} lines"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_opens_with_its_rule(file: Path) -> None:
    """The first thing in every file says what it is and what its rule is."""
    assert ast.get_docstring(ast.parse(file.read_text()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nobody_catches_everything(file: Path) -> None:
    """`except Exception` stands in the outermost handler only; bare `except` nowhere."""
    for node in nodes(file, ast.ExceptHandler):
        assert isinstance(node, ast.ExceptHandler)
        assert node.type is not None
        if isinstance(node.type, ast.Name) and node.type.id == "Exception":
            assert file.name in OUTERMOST


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_stand_at_the_top(file: Path) -> None:
    """What a module needs is seen at its head."""
    for function in nodes(file, ast.FunctionDef, ast.AsyncFunctionDef):
        inner = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not inner, f"{file.name}:{inner[0].lineno}"
    calls = [node for node in nodes(file, ast.Name) if isinstance(node, ast.Name) and node.id == "import_module"]
    assert not calls or file.name in BY_NAME


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_hold_no_state(file: Path) -> None:
    """Every name a module assigns is Final, a type, or a dunder: nothing there can change while requests run."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.Name | ast.Subscript):
            text = ast.unparse(node.annotation)
            assert text.startswith("Final"), f"{file.name}:{node.lineno} {ast.unparse(node.target)}"
        if isinstance(node, ast.Assign):
            for target in node.targets:
                assert isinstance(target, ast.Name), f"{file.name}:{node.lineno}"
                name = target.id
                alias = name[:1].isupper() or (name[:1] == "_" and name[1:2].isupper())
                assert name.startswith("__") or alias, f"{file.name}:{node.lineno} {name}"
                mutable = isinstance(node.value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp)
                assert not mutable, f"{file.name}:{node.lineno} {name}"
