"""The documents are true: commands parse, links lead somewhere, options exist, names and snippets do what is shown."""

from __future__ import annotations

import ast
import codecs
import functools
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

import ivcapfs
from ivcapfs.catalog.names import Parts
from ivcapfs.cli import main
from ivcapfs.client import IVCAP
from ivcapfs.errors import ConfigError
from ivcapfs.models import ArtifactRecord, ArtifactStatus
from ivcapfs.options import OPTIONS, parse_options
from ivcapfs.server.runner import Platform
from tests.plain_namespace import Folder, Namespace

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
SHELLS = frozenset({"sh", "console"})
JOINTS = ("&", "|", "&&")
UUID = "3f2a9c1e-7b4d-4e0a-9c58-1d6f0a2b3c4d"
"""The artifact of the examples."""
TOKEN = "a-token-for-the-documents"
TABLE = "time,station,level_m\n2026-06-01T00:00Z,Hobart,1.317\n2026-06-01T01:00Z,Hobart,1.445\n"


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (language, text) of a document's code blocks."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.M | re.S):
        yield match[1], match[2]


def prose(path: Path) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)


def spans(text: str) -> list[str]:
    """Return the code in a text."""
    return re.findall(r"`([^`]+)`", text)


def shell_lines(path: Path) -> Iterator[str]:
    """Yield the commands of a document's code blocks, prompts taken off; what a command printed is left out."""
    for language, text in blocks(path):
        for line in text.splitlines() if language in SHELLS else ():
            if language == "sh" or line.startswith("$ "):
                yield line.removeprefix("$ ")


def invocations(line: str) -> Iterator[list[str]]:
    """Yield the words of each call of ivcapfs in a line of shell."""
    words = shlex.split(line, comments=True)
    while words:
        ends = [index for index, word in enumerate(words) if word in (*JOINTS, ">") or word.endswith(";")]
        end = ends[0] if ends else len(words) - 1
        command = [word.rstrip(";") for word in words[: end + 1] if word not in (*JOINTS, ">")]
        if command and command[0] == "ivcapfs":
            yield command[1:]
        words = words[end + 1 :]


def check_call(words: list[str]) -> None:
    """See that the command line takes these words, mount options included; nothing is run."""
    name, *rest = words
    command = main.commands[name]
    try:
        context = command.make_context(name, rest)
    except click.exceptions.Exit:
        return  # --help
    parse_options(context.params.get("options", ()))


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_command_line_in_a_code_block_is_taken(path: Path) -> None:
    for line in shell_lines(path):
        for words in invocations(line):
            try:
                check_call(words)
            except (click.ClickException, KeyError, ConfigError) as exc:
                pytest.fail(f"{path.name}: {line}: {exc!r}")


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_command_in_the_text_is_taken(path: Path) -> None:
    for span in spans(prose(path)):
        name, *words = shlex.split(span.replace("'", "")) if span.startswith("ivcapfs ") else ("",)
        if not name or words[0] not in main.commands:
            assert not name or span.endswith("…") or words[0] in ("COMMAND", "<command>"), f"{path.name}: {span}"
        elif len(words) > 1 and "…" not in span:
            check_call(words)


def test_the_line_that_ci_runs_is_there() -> None:
    assert "scripts/test" in [line for _, text in blocks(ROOT / "README.md") for line in text.splitlines()]


def anchors(path: Path) -> set[str]:
    """Return what can follow a `#` in a link to a document, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name}: {target}"
        assert there.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(there), f"{path.name}: {target}: {sorted(anchors(there))}"


def rows(path: Path, heading: str) -> list[list[str]]:
    """Return the cells of the rows of the first table whose heading row begins so."""
    found = re.search(rf"^\| {re.escape(heading)} .*\n\|[-|]+\|\n((?:\|.*\n)+)", path.read_text(), re.M)
    assert found, f"{path.name} has no table {heading!r}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def test_every_mount_option_is_documented_and_vice_versa() -> None:
    documented = [spans(cells[0])[0] for cells in rows(ROOT / "docs" / "OPTIONS.md", "option")]
    assert sorted(documented) == sorted(OPTIONS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_option_of_mount_in_the_text_exists(path: Path) -> None:
    for span in spans(prose(path)):
        words = span.split()
        if words[0] == "-o" and len(words) > 1:
            parse_options([words[1]])


def example(name: str | None, uuid: str = UUID, age: int = 1) -> ArtifactRecord:
    made = datetime(2026, 6, 1, tzinfo=UTC) - timedelta(days=age)
    return ArtifactRecord(uuid, name, ArtifactStatus.READY, None, 1, made)


def path_in(namespace: Namespace, uuid: str) -> Parts:
    """Return the path that an artifact is listed under."""

    def walk(folder: Folder, parts: Parts) -> Iterator[Parts]:
        for name, child in folder.children.items():
            if isinstance(child, Folder):
                yield from walk(child, (*parts, name))
            elif child.uuid == uuid:
                yield (*parts, name)

    (found,) = walk(namespace.root, ())
    return found


@pytest.mark.parametrize("cells", rows(ROOT / "docs" / "SEMANTICS.md", "artifact's name"), ids=lambda cells: cells[0])
def test_names_are_mapped_as_documented(cells: list[str]) -> None:
    name = None if cells[0] == "none" else codecs.decode(spans(cells[0])[0], "unicode_escape")
    records = [example(name)]
    other = "0" * 8 + UUID[8:]
    if "newer" in cells[0]:
        records.append(example(name, other, age=0))
    if "folder" in cells[0]:
        records.append(example(f"{name}/below", other))
    assert "/".join(path_in(Namespace(records), UUID)) == spans(cells[1])[0]


MESSAGES_FROM = (
    "statusreport.py",
    *("cli.py", "config.py", "options.py", "client/auth.py", "fs/daemon.py", "fs/mount.py", "fs/mountpoint.py"),
    *("contexts.py", "client/contextlogin.py", "client/contextfile.py", "client/supplies.py"),
    *("client/tokencommand.py", "client/oidc.py", "client/network.py"),
    *("fs/logs.py", "fs/unmounting.py", "commands/mounthelper.py", "commands/helperlink.py"),
    *("cache/disk.py", "cache/diskstore.py"),
    *("demo/stage.py", "demo/tour.py"),
    *("spool/admin.py", "fs/leftover.py", "commands/uploads.py", "commands/transfer.py"),
    *("transfers/notes.py", "transfers/put.py", "transfers/choose.py", "transfers/part.py", "transfers/get.py"),
)
"""The modules whose errors end a command."""
ERRORS = frozenset(
    {"ConfigError", "CredentialError", "TooSlow", "MountError", "IvcapfsError"}
    | {"FileSystemError", "NoSuchEntry", "AlreadyThere", "InUse", "TooLarge"}
)
HOLE = "…"


def texts(*names: str, within: frozenset[str] | None = None) -> Iterator[str]:
    """Yield the texts in some modules, with `…` for what is only known later.

    Args:
        within: only those that one of these errors is made with.
    """
    for name in names:
        for node in ast.walk(ast.parse((ROOT / "ivcapfs" / name).read_text())):
            if within is None:
                found = text_of(node)
            else:
                match node:
                    case ast.Call(func=ast.Name(id=kind), args=[first, *_]) if kind in within:
                        found = text_of(first)
                    case _:
                        found = ""
            if found:
                yield found


def text_of(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part) or HOLE for part in parts)
        case ast.BinOp(left=left):
            return text_of(left)
    return ""


def agree(one: str, other: str) -> bool:
    """Return whether two texts are the same but for their holes."""
    return one == other or stands_for(one, other) or stands_for(other, one)


def stands_for(text: str, other: str) -> bool:
    pattern = with_holes(text)
    return pattern is not None and pattern.fullmatch(other) is not None


@functools.cache
def with_holes(text: str) -> re.Pattern[str] | None:
    """Return what a text matches whatever is in its holes; None: it says too little."""
    words = text.replace(HOLE, "").strip()
    return re.compile(".*".join(map(re.escape, text.split(HOLE)))) if len(words) > 5 else None


def documented_messages() -> list[str]:
    """Return the messages of the tables whose first column they are."""
    text = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text()
    tables = re.findall(r"^\| message .*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.M)
    return [span for table in tables for line in table.splitlines() for span in spans(line.split(" | ")[0])]


def test_every_message_of_the_commands_is_in_troubleshooting() -> None:
    told = documented_messages()
    missing = {text for text in texts(*MESSAGES_FROM, within=ERRORS) if not any(agree(text, span) for span in told)}
    assert missing == set(), "put these into docs/TROUBLESHOOTING.md"


def test_every_message_in_troubleshooting_is_one_of_the_commands() -> None:
    known = list(texts(*MESSAGES_FROM, "client/origins.py", "privatefolder.py"))
    outdated = [span for span in documented_messages() if not any(agree(text, span) for text in known)]
    assert outdated == [], "no command says this"


def snippets(path: Path) -> list[str]:
    return [text for language, text in blocks(path) if language == "python"]


@pytest.mark.parametrize("name", ["README.md", "docs/CLIENT.md"])
def test_the_python_snippets_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The snippets of a document run in order, as one session, with the artifact of the examples in place."""
    (tmp_path / "tides.csv").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    with Platform(tmp_path / "platform", token=TOKEN) as platform:
        platform.store.add_artifact(name="survey/tides.csv", content=TABLE.encode(), artifact_id=UUID)
        monkeypatch.setenv("IVCAP_URL", platform.url)
        monkeypatch.setenv("IVCAP_JWT", TOKEN)
        session: dict[str, object] = {}
        try:
            for number, text in enumerate(snippets(ROOT / name)):
                exec(compile(text, f"{name}, snippet {number}", "exec"), session)
        finally:
            for value in session.values():
                if isinstance(value, IVCAP):
                    value.close()
    assert UUID in capsys.readouterr().out


def test_the_changelog_has_this_version() -> None:
    assert f"## [{ivcapfs.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
