"""Every error has its errno in one table, and docs/SEMANTICS.md tells each of them to the user."""

from __future__ import annotations

import errno
import inspect
import re
from pathlib import Path

import pytest

from ivcapfs import errors
from ivcapfs.fs.errnos import ERRNOS, errno_of

CLASSES = [
    each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.IvcapfsError)
]
DOCUMENT = Path(__file__).parent.parent / "docs" / "SEMANTICS.md"
SPELLINGS = {errno.EOPNOTSUPP: {"EOPNOTSUPP", "ENOTSUP"}}
"""Where one number has two names."""


def names_of(code: int) -> set[str]:
    return SPELLINGS.get(code, {errno.errorcode[code]})


def test_the_table_names_exactly_the_classes_that_there_are() -> None:
    assert set(ERRNOS) == set(CLASSES)


@pytest.mark.parametrize("each", CLASSES)
def test_every_error_has_the_errno_of_its_own_class(each: type[errors.IvcapfsError]) -> None:
    assert errno_of(each("what happened")) == ERRNOS[each] in errno.errorcode


@pytest.mark.parametrize("each", CLASSES)
def test_every_error_is_drawn_in_the_tree_below_its_base(each: type[errors.IvcapfsError]) -> None:
    indent = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").split("::", 1)[1].splitlines():
        match = re.match(r"[ │├└─]*(?=[A-Z])", line)
        if match is None:
            continue
        depth, name = len(match[0]), line[len(match[0]) :].split()[0]
        path = [(at, above) for at, above in path if at < depth]
        indent[name] = path[-1][1] if path else "Exception"
        path.append((depth, name))
    assert indent[each.__name__] == each.__bases__[0].__name__


@pytest.mark.parametrize("each", CLASSES)
def test_every_error_has_a_row_with_its_errno_in_the_semantics(each: type[errors.IvcapfsError]) -> None:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.lstrip().startswith("|")]
    words = [set(re.findall(r"\w+", row)) for row in rows]
    fitting = [row for row in words if each.__name__ in row and row & names_of(ERRNOS[each])]
    assert fitting, f"no table row of docs/SEMANTICS.md names both {each.__name__} and {names_of(ERRNOS[each])}"


def test_a_finer_error_of_one_floor_has_the_errno_of_the_class_above_it() -> None:
    class Finer(errors.DeadlineExceeded):
        """A class that only one floor knows."""

    assert errno_of(Finer("what happened")) == ERRNOS[errors.DeadlineExceeded]
