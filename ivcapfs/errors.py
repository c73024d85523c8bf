"""Every error that ivcapfs raises on purpose.

Used by all floors; imports nothing. An error of a library (httpx, sqlite3, OSError of a spool …) is translated
into one of these once, at the boundary where it arises, with ``raise … from exc``. ``ivcapfs.fs.errnos`` gives each
class its errno, and ``docs/SEMANTICS.md`` its cause, log line and remedy. No threading rule: exceptions are values.

::

    IvcapfsError
    ├── ConfigError               what the user asked for cannot be done: says what, and what to do
    ├── CredentialError           no token can be had: the login has expired, or who renews it cannot be asked
    ├── MountError                the mount cannot begin: no /dev/fuse, no libfuse, not an empty folder …
    ├── ApiError                  the platform answered, and refused
    │   ├── BadRequest            400, 422
    │   ├── NotAuthenticated      401
    │   ├── NotPermitted          403
    │   ├── NotFound              404, 410
    │   ├── Conflict              409, 412, 424
    │   ├── TooLarge              413
    │   ├── Unavailable           408, 429, 502, 503, 504, after the retries
    │   └── ServerFault           any other status that is no success
    │       └── StorageFull       507: the platform has no room
    ├── TransportError            no answer
    │   ├── ConnectFailed         DNS, refused, TLS
    │   ├── ConnectionBroken      the connection ended in the middle
    │   ├── DeadlineExceeded      nothing came within the bound
    │   └── OriginRefused         an address that we do not talk to: plain http, link-local, a redirect loop
    ├── ProtocolError             the answer makes no sense: JSON, ranges, encodings
    │   └── ContentChanged        other bytes than those of the open file
    ├── NotReady                  the artifact's content is not there (yet)
    ├── CatalogError              the catalog's database cannot be used at present
    └── FileSystemError           what a path operation may answer without any request
        ├── NoSuchEntry
        ├── NotAFolder
        ├── IsAFolder
        ├── NotALink
        ├── ReadOnly
        ├── NotAllowed            what no mount does: artifacts are immutable
        ├── AlreadyThere
        ├── NotEmpty
        ├── Invalid               an argument that makes no sense, or cannot be a name on the platform
        ├── NameTooLong
        ├── InUse                 somebody reads the file that was to be replaced
        ├── NoSpace               the disk of the spool is full
        ├── BadHandle
        ├── NoSuchAttribute
        ├── AttributeTooLarge
        ├── AttributesUnsupported
        ├── Interrupted           the caller got a signal while waiting
        └── Closing               the mount is going away
"""

from __future__ import annotations


class IvcapfsError(Exception):
    """The base of all errors raised on purpose. ``str()`` is one line, fit for a terminal or a log."""


class ConfigError(IvcapfsError):
    """What the user asked for cannot be done; the message names what is wrong and what to do."""


class CredentialError(IvcapfsError):
    """No token can be had: the login has expired, or whoever renews it cannot be asked.

    Attributes:
        needs_login: whether only the user can help, by logging in again.
    """

    needs_login = False


class MountError(IvcapfsError):
    """The mount cannot begin; the message names what is missing and how to get it."""


class ApiError(IvcapfsError):
    """The platform answered, and refused.

    Args:
        message: what was asked for and what the server said, without any secret.
        status: the HTTP status code, or None where the refusal is ours.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class BadRequest(ApiError):
    """400 or 422: the server could not make sense of what we asked."""


class NotAuthenticated(ApiError):
    """401: no token, or one that is refused."""


class NotPermitted(ApiError):
    """403: the token is good, but its account may not do this."""


class NotFound(ApiError):
    """404 or 410: there is no such thing."""


class Conflict(ApiError):
    """409, 412 or 424: the state of the thing does not allow it."""


class TooLarge(ApiError):
    """413: more bytes than the platform takes."""


class Unavailable(ApiError):
    """408, 429, 502, 503 or 504, still after the retries.

    Attributes:
        retry_after: the seconds that the server asked us to wait, if it said.
    """

    retry_after: float | None = None


class ServerFault(ApiError):
    """Any other status that is no success."""


class StorageFull(ServerFault):
    """507: the platform has no room for more."""


class TransportError(IvcapfsError):
    """There was no (whole) answer."""


class ConnectFailed(TransportError):
    """No connection: the name is unknown, the port refuses, TLS fails."""


class ConnectionBroken(TransportError):
    """The connection ended in the middle of an exchange."""


class DeadlineExceeded(TransportError):
    """Nothing, or too little, came within the bound."""


class OriginRefused(TransportError):
    """An address that ivcapfs does not talk to: plain http beyond loopback, link-local, a redirect loop."""


class ProtocolError(IvcapfsError):
    """The server's answer makes no sense."""


class ContentChanged(ProtocolError):
    """The server shows other content (ETag, size) than that of the open file."""


class NotReady(IvcapfsError):
    """The artifact exists, but its content cannot be read: it is pending, partial, or in error."""


class CatalogError(IvcapfsError):
    """The catalog's database cannot be used: another process keeps it locked, or it fails again and again."""


class FileSystemError(IvcapfsError):
    """What a path operation may answer without any request."""


class NoSuchEntry(FileSystemError):
    """There is nothing under that path."""


class NotAFolder(FileSystemError):
    """A path goes through a file, or a file was to be listed."""


class IsAFolder(FileSystemError):
    """A folder was to be read."""


class NotALink(FileSystemError):
    """readlink(2) of something that is no symbolic link."""


class ReadOnly(FileSystemError):
    """The mount does not write."""


class NotAllowed(FileSystemError):
    """What no mount does, and no right would help: artifacts are immutable, and never deleted or renamed."""


class AlreadyThere(FileSystemError):
    """There is something of that name already."""


class NotEmpty(FileSystemError):
    """A folder that is to go still holds something."""


class Invalid(FileSystemError):
    """An argument that makes no sense, or cannot be a name on the platform."""


class NameTooLong(FileSystemError):
    """A name of over 255 bytes, or a path of over 2,048, which artifacts cannot be shown under."""


class InUse(FileSystemError):
    """Somebody reads the file that was to be replaced."""


class NoSpace(FileSystemError):
    """The disk that new files wait on is full."""


class BadHandle(FileSystemError):
    """A file handle that is not, or no longer, open."""


class NoSuchAttribute(FileSystemError):
    """The file has no extended attribute of that name."""


class AttributeTooLarge(FileSystemError):
    """The value is over the 64 KiB that Linux allows for an extended attribute."""


class AttributesUnsupported(FileSystemError):
    """An attribute outside the namespaces that a mount has."""


class Interrupted(FileSystemError):
    """The calling process got a signal while its operation waited."""


class Closing(FileSystemError):
    """The mount is going away; the operation was ended."""
