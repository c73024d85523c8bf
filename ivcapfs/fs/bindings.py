"""One path, one artifact, while it is open: what the kernel was told about each path, and what it caches for it.

Used by the operations. In libfuse's path interface a path is one kernel inode, whatever artifact stands behind it, and
the inode has one size and one set of cached pages. So when a newer artifact takes over a name:

* while a handle is open, the path stays bound (*pinned*) to the old artifact, for stat, readdir and later opens;
* afterwards the path is rebound, and before the first open answers, the kernel is made to forget the old attributes;
* cached pages are kept on open only if they are of the very content that is being opened.

Threading: any thread may call anything. State is guarded by `Bindings._lock`; the kernel is told outside it, on a
thread that is not answering a callback (it would deadlock), and opens of that path wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TypeVar

from ivcapfs.cache.transfer import Blob
from ivcapfs.catalog.interface import FileEntry
from ivcapfs.fs.directmapped import DirectMapped
from ivcapfs.fs.nodes import Node, identity
from ivcapfs.waits import Check, settle, submit, wait_for

PATHS = 2**18
"""Places for paths of which it is remembered what was told. One that has none any more is treated as if the kernel had
been told something else: safe, and rare."""
PAGES = 2**16
"""Places for paths of which it is remembered whose pages the kernel has; of others it drops them on open."""
FORGET_SECONDS = 10.0
RELEASE_SECONDS = 0.1
"""How long a lookup waits for a path to be released. The kernel tells of the last close after close(2) has returned, so
without this who closes the old file and opens the path again could still get the old one."""
N = TypeVar("N", bound=Node | FileEntry)
_UNSURE = 0
"""Told as the identity of a path of which the kernel may know an older answer than our last; also: of no content."""


@dataclass(slots=True)
class Pin:
    """A path that is open.

    Attributes:
        path: which.
        node: what it is bound to.
        content: its bytes, or what stands for them as long as they cannot change.
        count: open handles.
        forgotten: done once the kernel has forgotten what it knew before; None where there was nothing to forget.
        keep_cache: whether all pages that the kernel holds are of this content.
    """

    path: str
    node: Node
    content: Blob | bytes
    keep_cache: bool
    count: int = 0
    forgotten: Future[None] | None = None

    def is_of(self, node: Node | None) -> bool:
        """Return whether the path would be bound to the same again, if it were opened now for the first time."""
        changed = isinstance(self.content, Blob) and self.content.changed is not None
        return not changed and node is not None and identity(self.node) == identity(node)


class Bindings:
    """What each path is bound to.

    Args:
        forget: makes the kernel drop attributes and pages of a path (``fuse_invalidate_path``).
        pool: a thread outside any callback.
    """

    def __init__(self, forget: Callable[[str], None], pool: Executor) -> None:
        self._forget = forget
        self._pool = pool
        self._lock = threading.Lock()
        self._released = threading.Condition(self._lock)
        self._pins: dict[str, Pin] = {}  # guarded by _lock
        self._told = DirectMapped(PATHS)  # path -> what it was told to be; guarded by _lock
        self._pages = DirectMapped(PAGES)  # path -> the content whose pages the kernel has; guarded by _lock

    def tell(self, path: str, node: N) -> N | Node:
        """Return the node whose attributes the kernel is to be told for a path, and remember them as told."""
        with self._lock:
            pin = self._pins.get(path)
            if pin is not None:
                return pin.node
            known = _known(node)
            self._told.note(path, known if self._told.get(path, known) == known else _UNSURE)
            return node

    def pinned(self, path: str) -> Node | None:
        """Return the node that an open path is bound to, or None."""
        if not self._pins:  # the common case of a long listing; as good as a moment earlier, under the lock
            return None
        with self._lock:
            pin = self._pins.get(path)
            return pin.node if pin is not None else None

    def settled(self, path: str, node: Node | None) -> Node | None:
        """Return what a path is bound to: `node`, or what it is pinned to, unless that is just being closed.

        Args:
            node: what it would be bound to, if it were opened now; None: there is nothing any more.
        """
        with self._lock:
            pin = self._pins.get(path)
            if pin is not None and not pin.is_of(node):
                self._released.wait_for(lambda: self._pins.get(path) is not pin, RELEASE_SECONDS)
                pin = self._pins.get(path)
            return node if pin is None else pin.node

    def pin(self, path: str, node: Node, content: Blob | bytes, check: Check) -> Pin:
        """Bind a path for one more handle; `unpin` must follow.

        Args:
            node, content: what it is to be bound to, unless it is bound already.

        Returns:
            The binding; its node and content may be older than those given.
        """
        with self._lock:
            pin = self._pins.get(path)
            fresh = pin is None
            if pin is None:
                known, is_kept = _known(node), self._pages.get(path) == _lasting(content)
                pin = self._pins[path] = Pin(path, node, content, keep_cache=is_kept)
                if self._told.get(path) != known:
                    pin.forgotten = Future()
                self._told.note(path, known)
            pin.count += 1
        try:
            if pin.forgotten is not None:
                self._await_forgotten(path, pin.forgotten, check, start=fresh)
        except BaseException:
            with self._lock:
                self._told.note(path, _UNSURE)
            self.unpin(pin, was_read=False)
            raise
        return pin

    def confirm(self, pin: Pin) -> None:
        """The kernel read through a handle of a path. Only now is it sure that it got our answer to the open, and so
        that it dropped whatever pages it had of other content."""
        with self._lock:
            pin.keep_cache = True

    def unpin(self, pin: Pin, *, was_read: bool) -> None:
        """One handle of a path is closed; with the last one the path may be rebound.

        Args:
            was_read: whether the kernel read through the handle; see `confirm`.
        """
        with self._lock:
            pin.count -= 1
            if self._pins.get(pin.path) is not pin:
                return  # another file has taken over the path
            if was_read:
                self._pages.note(pin.path, _lasting(pin.content))
            if pin.count == 0:
                del self._pins[pin.path]
                self._released.notify_all()

    def let_go(self, *paths: str) -> None:
        """Other files have come to these paths by rename(2), or gone from them: open handles keep what they had, and
        nothing is known any more of what the kernel was told."""
        with self._lock:
            for path in paths:
                self._pins.pop(path, None)
                self._pages.note(path, _UNSURE)
                self._told.note(path, _UNSURE)
            self._released.notify_all()

    def _await_forgotten(self, path: str, forgotten: Future[None], check: Check, *, start: bool) -> None:
        if start:
            submit(self._pool, self._make_forget, path, forgotten)
        wait_for(forgotten, check, FORGET_SECONDS, f"the kernel to forget {path}")

    def _make_forget(self, path: str, forgotten: Future[None]) -> None:
        outcome: Exception | None = None
        try:
            self._forget(path)
        except Exception as exc:  # noqa: BLE001 - handed on to the open that waits
            outcome = exc
        settle(forgotten, outcome)


def _known(node: Node | FileEntry) -> int:
    """Return what stands for what a path was told to be; never `_UNSURE`."""
    return hash(identity(node)) or 1


def _lasting(content: Blob | bytes) -> int:
    """Return what stands for a content after it is closed; never `_UNSURE`."""
    return content.number if isinstance(content, Blob) else hash(content) or 1
