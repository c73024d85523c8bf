"""The catalog's file: whatever became of it, the mount goes on, with one line in the log that says so."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import shutil
import signal
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ivcapfs.catalog import first, opened, schema
from ivcapfs.catalog.store import Store, store_name
from ivcapfs.errors import CatalogError, Closing
from tests.catalog.catalog_world import World
from tests.fakes import Background, artifact, wait_until

MANY = 300
NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for the catalog that another user may reach, too."""
    above = Path(tempfile.mkdtemp(prefix="ivcapfs-test-"))
    above.chmod(0o755)
    try:
        yield above / "catalog"
    finally:
        shutil.rmtree(above)


@pytest.fixture
def world(folder: Path) -> Iterator[World]:
    """A world whose folder has a whole catalog."""
    with ThreadPoolExecutor(8) as pool:
        world = World(pool, folder)
        world.add(MANY)
        mounted = world.mount()
        assert len(mounted.names()) == MANY
        mounted.index.close()
        yield world
        world.close()


def file_in(folder: Path) -> Path:
    return folder / "catalog.sqlite"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_within_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def cut_to_the_header(path: Path) -> None:
    os.truncate(path, 60)


def overwrite(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def overwrite_behind_the_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(path.stat().st_size - 100))


def spoil_one_page_in_two(path: Path) -> None:
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096, 2):
            file.seek(page * 4096)
            file.write(os.urandom(4096))


def make_newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute(f"PRAGMA user_version = {schema.VERSION + 1}")


def make_foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE somebody_elses (x)")


def drop_a_table(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("DROP TABLE pending")


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/null")


@pytest.mark.parametrize(
    "damage",
    [cut, cut_within_a_page, cut_to_the_header, overwrite, overwrite_behind_the_header, spoil_one_page_in_two,
     make_newer, make_foreign, drop_a_table, put_a_folder, put_a_link],
)  # fmt: skip
def test_a_file_that_is_no_whole_catalog_of_ours_is_replaced(
    world: World, folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            file_in(folder).with_name("catalog.sqlite" + suffix).unlink()
    damage(file_in(folder))
    world.advance()
    mounted = world.mount()
    with caplog.at_level(logging.WARNING):
        assert len(mounted.names()) == MANY
        assert mounted.index.find(("n7",), lambda: None)
    assert len(caplog.records) == 1 and str(file_in(folder)) in caplog.text, caplog.text
    assert mounted.index.totals().files == MANY


def test_a_file_that_is_spoilt_while_it_is_open_is_made_anew(
    world: World, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mounted = world.mount()
    mounted.names()
    with mounted.store._database._current().writing:
        mounted.store._database._current().writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(file_in(folder))
    world.advance()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert len(mounted.names()) == MANY
            world.advance()
    assert len(caplog.records) == 1


def test_a_file_that_is_deleted_while_it_is_open_harms_nobody(world: World, folder: Path) -> None:
    mounted = world.mount()
    mounted.names()
    shutil.rmtree(folder)
    for _ in range(3):
        world.advance()
        assert len(mounted.names()) == MANY


@contextlib.contextmanager
def as_somebody_else(folder: Path) -> Iterator[None]:
    """Within, be a user who owns the folder, but has no privileges."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_written_serves_what_it_has_and_the_rest_is_kept_in_memory(
    world: World, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in folder.iterdir():
        path.chmod(0o400)
    folder.chmod(0o500)
    world.advance()
    world.api.calls.clear()
    with as_somebody_else(folder), caplog.at_level(logging.WARNING):
        mounted = world.mount()
        world.add(1, prefix="new", age=-1)
        assert len(mounted.names()) == MANY + 1
        assert mounted.index.status().path is None
    folder.chmod(0o700)
    assert world.api.count("page") <= 2
    assert len(caplog.records) == 1 and "kept in memory" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_folder_of_another_user_is_neither_needed_nor_believed(
    world: World, folder: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder.chmod(mode)
    for path in folder.iterdir():
        path.chmod(0o644)
    world.api.calls.clear()
    os.seteuid(NOBODY)
    try:
        mounted = world.mount()
        assert len(mounted.names()) == MANY
        assert mounted.index.status().path is None
    finally:
        os.seteuid(0)
    assert world.api.count("page") > 2  # nothing was taken from it
    assert len(caplog.records) == 1 and "kept in memory" in caplog.text


def test_without_any_folder_the_catalog_is_in_memory(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.write_text("a file")
    with ThreadPoolExecutor(4) as pool:
        world = World(pool, folder)
        world.add(MANY)
        with caplog.at_level(logging.WARNING):
            assert len(world.mount().names()) == MANY
        world.close()
    assert len(caplog.records) == 1 and "is no directory" in caplog.text


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_folder_that_others_can_enter_is_not_used(
    world: World, folder: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder.chmod(mode)
    mounted = world.mount()
    assert len(mounted.names()) == MANY
    assert mounted.index.status().path is None and "chmod 700" in caplog.text


def test_a_disk_that_is_full_is_no_end(world: World, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    mounted = world.mount()
    assert len(mounted.names()) == MANY
    world.advance(1000)
    world.add(500, prefix="new", age=-900, apart=0.1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        with caplog.at_level(logging.WARNING, "ivcapfs.catalog"):
            for _ in range(3):
                assert len(mounted.names()) == MANY + 500
                world.advance()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [record.message for record in caplog.records if "in memory" not in record.message] == []
    assert len(caplog.records) == 1
    assert mounted.index.status().path is None
    world.api.calls.clear()
    assert len(mounted.names()) == MANY + 500
    assert world.api.count("page") <= 2, "what was on the disk was not asked for again"


def test_the_file_is_of_this_user_alone(world: World, folder: Path) -> None:
    mounted = world.mount()
    mounted.names()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_deployments_and_accounts_have_files_of_their_own_that_name_neither() -> None:
    names = {store_name(origin, identity) for origin in ("https://a", "https://b") for identity in ("x", "y")}
    assert len(names) == 4
    assert all(set(name) <= set("0123456789abcdef") for name in names)
    assert store_name("a", "bc") != store_name("ab", "c")


def test_a_file_that_another_process_keeps_locked_is_an_error_and_not_for_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "BUSY_SECONDS", 0.05)
    one = Store(folder, "catalog")
    one.write(lambda write: write.put([artifact("a")]))
    with contextlib.closing(sqlite3.connect(file_in(folder), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CatalogError, match="locked"):
            one.write(lambda write: write.put([artifact("b")]))
        assert one.totals().files == 1, "reading goes on"
        other.execute("ROLLBACK")
    one.write(lambda write: write.put([artifact("b")]))
    assert one.totals().files == 2
    one.close()


def test_a_transaction_that_fails_leaves_nothing(folder: Path) -> None:
    store = Store(folder, "catalog")

    def fail(write: object) -> None:
        write.put([artifact("d/a"), artifact("b")])  # type: ignore[attr-defined]
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            store.write(fail)
    assert (store.totals().files, store.find(("d",))) == (0, None)
    store.write(lambda write: write.put([artifact("d/a")]))
    assert store.find(("d", "a"))
    store.close()


def test_a_closed_store_says_that_the_mount_ends(folder: Path) -> None:
    store = Store(folder, "catalog")
    store.close()
    with pytest.raises(Closing):
        store.totals()
    store.close()


def test_readers_and_writers_of_two_processes_do_not_disturb_each_other(folder: Path) -> None:
    stores = [Store(folder, "catalog"), Store(folder, "catalog")]

    def write(number: int) -> None:
        for turn in range(40):
            records = [artifact(f"d{turn % 7}/x{turn % 5}", age=turn) for _ in range(3)]
            stores[number].write(lambda write, records=records: write.put(records))  # type: ignore[misc]

    def read(number: int) -> None:
        for _ in range(100):
            store = stores[number]
            last = store.last_row()
            folders = store.folder_batch(1, 0, last)
            for _, child, _ in folders:
                names = [name for name, _, _ in store.folder_batch(child.id, 0, last)]  # type: ignore[union-attr]
                assert len(names) == len(set(names))

    for call in [Background(write, 0), Background(write, 1), *(Background(read, n % 2) for n in range(6))]:
        call.result()
    assert stores[0].totals() == stores[1].totals() == (240, 0)
    for store in stores:
        store.close()


def test_a_listing_whose_catalog_is_lost_under_it_fails_and_is_not_cut(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ivcapfs.catalog.store.BATCH", 10)
    mounted = world.mount()
    entries = mounted.index.everything(lambda: None).entries(0)
    assert [next(entries) for _ in range(10)]
    drop_a_table(file_in(folder))
    with contextlib.suppress(CatalogError):
        mounted.store.due(0.0, 1)
    with pytest.raises(CatalogError, match="read it again"):
        list(entries)
    assert len(mounted.names()) == MANY


def test_a_first_synchronization_whose_catalog_is_lost_under_it_begins_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first, "BATCH_PAGES", 1)
    with ThreadPoolExecutor(4) as pool:
        world = World(pool, folder)
        world.add(MANY)
        mounted = world.mount()
        answer = world.api.list_artifacts_page

        def spoil(**query: object) -> object:
            page = answer(**query)  # type: ignore[arg-type]
            if world.api.count("page") == 4:
                wait_until(lambda: mounted.store.meta().get("pages") == 3)
                drop_a_table(file_in(folder))
                mounted.store.due(0.0, 1)
            return page

        world.api.list_artifacts_page = spoil  # type: ignore[method-assign,assignment]
        assert len(mounted.names()) == MANY
        world.close()


def test_many_that_open_a_new_file_at_once_all_get_it(tmp_path: Path) -> None:
    for turn in range(10):
        stores = [Store(tmp_path / f"catalog{turn}", "catalog") for _ in range(4)]
        calls = [Background(store.totals) for store in stores]
        assert [call.result() for call in calls] == [(0, 0)] * 4
        assert [store.path for store in stores] == [file_in(tmp_path / f"catalog{turn}")] * 4
        for store in stores:
            store.close()


def test_memory_is_given_back_and_what_is_known_stays(world: World, folder: Path) -> None:
    with contextlib.closing(Store(folder, "catalog")) as store:
        known = store.all_batch(0, store.last_row())
        store.write(lambda change: change.note(marked=1))
        current = store._database._current()
        connections = [current.writer, *current.idle]
        assert len(connections) == 2
        said: list[str] = []
        for conn in connections:
            conn.set_trace_callback(said.append)
        store.shrink()
        assert said == ["PRAGMA shrink_memory"] * 2
        assert store.all_batch(0, store.last_row()) == known
        assert store.meta()["marked"] == 1


def test_memory_is_given_back_beside_readers_and_a_writer_without_more_connections(world: World, folder: Path) -> None:
    with contextlib.closing(Store(folder, "catalog")) as store, ThreadPoolExecutor(12) as pool:
        over = threading.Event()

        def read() -> None:
            while not over.is_set():
                assert store.all_batch(0, store.last_row())

        def write() -> None:
            number = 0
            while not over.is_set():
                number += 1
                store.write(lambda change, number=number: change.note(marked=number))  # type: ignore[misc]

        work = [pool.submit(read) for _ in range(10)] + [pool.submit(write)]
        for _ in range(200):
            store.shrink()
        over.set()
        for done in work:
            done.result()
        assert len(store._database._current().idle) <= opened.READERS


def test_a_closed_store_has_nothing_to_give_back(world: World, folder: Path) -> None:
    store = Store(folder, "catalog")
    store.shrink()
    assert store.meta()
    store.close()
    store.shrink()
