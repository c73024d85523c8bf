"""Running a platform: in a thread (:class:`Platform`) or until a signal (:func:`run_forever`).

Used by the command line, by demos and by tests. A platform's methods are for one thread, that of its owner;
the server itself runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import uvicorn
from starlette.types import ASGIApp

from ivcapfs.server.app import create_app
from ivcapfs.server.counters import Counters
from ivcapfs.server.settings import ServeSettings
from ivcapfs.server.store import Store
from ivcapfs.server.synthetic import Synthetic

GRACE = 2.0
"""How long open requests may go on once the server is told to stop, in seconds."""

_ENDING = frozenset({signal.SIGINT, signal.SIGTERM})
_BACKLOG = 512
_START_TIMEOUT = 30.0
_BACKSTOP = 10.0  # seconds: what is left then is cancelled; nothing should be


class _Server(uvicorn.Server):
    """uvicorn's server, which breaks off what still goes on when its grace is over, and ends at once if nothing."""

    grace = GRACE

    async def main_loop(self) -> None:
        """Do uvicorn's chores every tenth of a second, but look more often whether to end."""
        chore = 0
        while not await self.on_tick(chore):
            chore = (chore + 1) % 864_000
            for _ in range(10):
                if self.should_exit:
                    break
                await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let open requests end, for ``grace`` seconds; then close their connections."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if not await self._is_idle(self.grace):
            for connection in list(self.server_state.connections):
                if connection.transport is not None:
                    connection.transport.abort()
            if not await self._is_idle(_BACKSTOP):
                for task in list(self.server_state.tasks):
                    task.cancel()

    async def _is_idle(self, within: float) -> bool:
        """Tell whether all connections and requests end within so many seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while self.server_state.connections or self.server_state.tasks:
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(0.01)
        return True


class Platform:
    """A platform that runs in a thread, as a context manager or by :meth:`start` and :meth:`close`.

    Args:
        data_dir: where it keeps everything; see :class:`~ivcapfs.server.store.Store`.
        token: the bearer token to ask for, ``None`` to let everybody in.
        host: the address to listen on.
        port: the TCP port, 0 for any free one, which is then kept for later starts.
        wrap: puts middleware around the application.
        data_href_base: replaces scheme and host of every ``data-href``.
        synthetic: what there is by formula besides.
        latency: how much later each request is answered, in seconds.
    """

    def __init__(
        self,
        data_dir: Path | str,
        token: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        wrap: Callable[[ASGIApp], ASGIApp] | None = None,
        data_href_base: str | None = None,
        synthetic: Synthetic | None = None,
        latency: float = 0.0,
    ) -> None:
        self._data_dir = Path(data_dir)
        self._token = token
        self._host = host
        self._port = port
        self._wrap = wrap
        self._data_href_base = data_href_base
        self._synthetic = synthetic
        self._latency = latency
        self._store: Store | None = None
        self._counters = Counters()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The platform's base URL; from the first start on it stays the same."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def store(self) -> Store:
        """What is kept; open from the first start until the close, also while the server is stopped."""
        if self._store is None:
            raise RuntimeError("the platform was not started")
        return self._store

    def start(self) -> None:
        """Open the store if need be, listen, and return when requests are answered.

        Raises:
            OSError: the port cannot be had (the message names host and port), or the data directory not.
        """
        if self._server is not None:
            return
        listener = _listen(self._host, self._port)
        try:
            self._store = self._store or Store(self._data_dir, self._synthetic)
            app = create_app(
                self._store,
                token=self._token,
                data_href_base=self._data_href_base,
                counters=self._counters,
                latency=self._latency,
            )
        except BaseException:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        self._server, self._thread = _serve(app if self._wrap is None else self._wrap(app), listener)

    def stop(self, grace: float = GRACE) -> None:
        """Stop serving; what is kept stays open. Open requests get ``grace`` seconds, 0 breaks them off."""
        if self._server is None or self._thread is None:
            return
        self._server.grace = grace
        self._server.should_exit = True
        self._thread.join()
        self._server = self._thread = None

    def close(self) -> None:
        """Stop serving and close the store."""
        self.stop()
        if self._store is not None:
            self._store.close()
            self._store = None

    def counters(self) -> dict[str, object]:
        """Return ``{"requests": {label: number}, "blob_bytes_sent": bytes}``, without a request."""
        return self._counters.snapshot()

    def reset_counters(self) -> None:
        """Begin counting from nothing, without a request."""
        self._counters.reset()

    def __enter__(self) -> Platform:
        """Start it; close it again when that fails."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def run_forever(settings: ServeSettings, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; call it in the main thread.

    Args:
        settings: what to serve, and where.
        announce: called with the base URL once requests are answered.

    Raises:
        OSError: the port cannot be had (the message names host and port), or the data directory not.
    """
    platform = Platform(
        settings.data_dir,
        token=settings.token,
        host=settings.host,
        port=settings.port,
        data_href_base=settings.data_href_base,
        synthetic=settings.synthetic,
        latency=settings.latency,
    )
    with _signals() as wait_until_told_to_stop, platform:
        announce(platform.url)
        wait_until_told_to_stop()


@contextmanager
def _signals() -> Iterator[Callable[[], object]]:
    """Give a call that waits for SIGINT or SIGTERM; no handler runs, so nothing is interrupted half-way."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield lambda: signal.sigwait(_ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With the protocol given: asyncio sets TCP_NODELAY only on sockets that name it, and without it every
        # reply would wait 40 ms for the client's delayed acknowledgement.
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as exc:
        raise OSError(exc.errno, f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
    return listener


def _serve(app: ASGIApp, listener: socket.socket) -> tuple[_Server, threading.Thread]:
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=60,
        h11_max_incomplete_event_size=256 * 1024,
        backlog=_BACKLOG,
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="ivcap-platform", daemon=True)
    thread.start()
    waited = threading.Event()
    for _ in range(int(_START_TIMEOUT / 0.005)):
        if server.started or not thread.is_alive():
            break
        waited.wait(0.005)
    if not server.started:
        server.should_exit = True
        thread.join()
        listener.close()
        raise OSError("the platform's server did not start; see the log")
    return server, thread
