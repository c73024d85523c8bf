"""The layers hold: lower floors never import higher ones, and each outside library and source has one place."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ivcapfs"
FLOORS = (
    *("firstprocess", "allocator", "errors", "crashing", "models", "waits", "privatefolder", "hosts", "secret"),
    *("memory", "contexts", "config", "places", "client", "cache", "catalog", "spool", "transfers", "fs", "server"),
    *("options", "doctor", "statusreport", "demo", "commands", "cli", "entry"),
)
"""From the lowest to the highest."""
HEIGHTS = {name: height for height, name in enumerate(FLOORS)}
ENVIRONMENT = {
    "ivcapfs.allocator": "begins the process again with one variable more",
    "ivcapfs.config": "reads it",
    "ivcapfs.places": "reads where the user's folders are",
    "ivcapfs.client.tokencommand": "hands it on to the program that it starts",
    "ivcapfs.demo.processes": "hands it on to the processes that it starts",
}
"""Who touches the environment, besides the binding, which says there which libfuse is to be loaded."""
TOP = len(FLOORS)
LONGEST = 350

MODULES = {
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@functools.cache
def imports(module: str) -> tuple[str, ...]:
    """Return the modules that a module imports, wherever in it, also for typing alone."""
    return tuple(_imports(module))


def _imports(module: str) -> Iterator[str]:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module or ""


def floor(module: str) -> str:
    """Return the part of the package that a module belongs to; empty for the package itself."""
    return [*module.split("."), ""][1]


def height(module: str) -> int:
    return HEIGHTS.get(floor(module), TOP)


def users_of(library: str) -> set[str]:
    return {module for module in MODULES if any(name.split(".")[0] == library for name in imports(module))}


def test_every_module_is_on_a_floor() -> None:
    unknown = {module for module in MODULES if floor(module) not in HEIGHTS}
    assert unknown <= {"ivcapfs", "ivcapfs.__main__"}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "ivcapfs"])
def test_no_module_imports_from_a_higher_floor(module: str) -> None:
    ours = [name for name in imports(module) if name.split(".")[0] == "ivcapfs" and name != "ivcapfs"]
    assert [name for name in ours if height(name) > height(module)] == []


def test_the_package_itself_imports_no_floor_above_the_client() -> None:
    ours = [name for name in imports("ivcapfs") if name.startswith("ivcapfs.")]
    assert [name for name in ours if height(name) > HEIGHTS["client"]] == []


def test_no_cycle_of_modules() -> None:
    uses = {module: {name for name in imports(module) if name in MODULES and name != module} for module in MODULES}
    uses["ivcapfs"] = set()  # the public names, gathered from below
    while uses:
        free = {module for module, needs in uses.items() if not needs & uses.keys()}
        assert free, f"a cycle among {sorted(uses)}"
        uses = {module: needs for module, needs in uses.items() if module not in free}


def test_errors_and_the_cache_know_nothing_of_the_client() -> None:
    assert imports("ivcapfs.errors") == ("__future__",)
    for module in MODULES:
        if floor(module) == "cache":
            assert not any(floor(name) == "client" for name in imports(module) if name in MODULES)


def test_the_server_uses_of_the_package_nothing_above_its_settings() -> None:
    for module in MODULES:
        if floor(module) == "server":
            ours = {floor(name) for name in imports(module) if name in MODULES and name != "ivcapfs"}
            assert ours <= {"server", "errors", "config", "secret"}, module


@pytest.mark.parametrize(
    ("library", "where"),
    [
        ("httpx", {"client"}),
        ("starlette", {"server"}),
        ("uvicorn", {"server"}),
        ("sqlite3", {"catalog", "server", "demo"}),
        ("click", {"cli", "commands"}),
        ("rich", {"cli", "commands", "demo", "statusreport"}),
    ],
)
def test_each_library_has_its_place(library: str, where: set[str]) -> None:
    assert {floor(user) for user in users_of(library)} <= where


def test_only_the_binding_imports_the_fuse_library() -> None:
    assert users_of("mfusepy") == {"ivcapfs.fs.binding"}


def test_only_the_settings_read_the_environment() -> None:
    for module in MODULES:
        tree = tree_of(module)
        assigned = {
            id(target.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Subscript)
        }
        for node in ast.walk(tree):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if name in ("os.environ", "os.environb", "os.getenv", "os.putenv") and module not in ENVIRONMENT:
                assert module == "ivcapfs.fs.binding" and id(node) in assigned, f"{module}:{node.lineno} uses {name}"
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                assert not {alias.name for alias in node.names} & {"environ", "getenv"}, module


@pytest.mark.parametrize("module", MODULES)
def test_every_module_is_short_and_says_what_it_is_for(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= LONGEST
    assert (ast.get_docstring(tree_of(module)) or "").strip()


@pytest.mark.parametrize("module", MODULES)
def test_no_error_is_caught_without_a_name_or_thrown_away_by_a_return(module: str) -> None:
    for node in ast.walk(tree_of(module)):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{module}:{node.lineno}"
        if isinstance(node, ast.Try):
            returns = [each for last in node.finalbody for each in ast.walk(last) if isinstance(each, ast.Return)]
            assert not returns, f"{module}:{node.lineno}"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_every_test_module_says_what_it_shows(path: Path) -> None:
    assert (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").strip()
