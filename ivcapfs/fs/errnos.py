"""Exception -> errno: the one table. `docs/SEMANTICS.md` tells each with its cause and remedy.

Used by the operations. Pure. Every class of `ivcapfs.errors` is in it by name: a test refuses a class that is not, so
that no error gets its errno by accident.
"""

from __future__ import annotations

import errno

from ivcapfs import errors

ERRNOS: dict[type[errors.IvcapfsError], int] = {
    errors.IvcapfsError: errno.EIO,
    errors.ConfigError: errno.EINVAL,
    errors.CredentialError: errno.EACCES,
    errors.MountError: errno.ENODEV,
    errors.ApiError: errno.EIO,
    errors.BadRequest: errno.EINVAL,
    errors.NotAuthenticated: errno.EACCES,
    errors.NotPermitted: errno.EACCES,
    errors.NotFound: errno.ENOENT,
    errors.Conflict: errno.EBUSY,
    errors.TooLarge: errno.EFBIG,
    errors.Unavailable: errno.EIO,
    errors.ServerFault: errno.EIO,
    errors.TransportError: errno.EIO,
    errors.ConnectFailed: errno.EIO,
    errors.ConnectionBroken: errno.EIO,
    errors.DeadlineExceeded: errno.ETIMEDOUT,
    errors.OriginRefused: errno.EPERM,
    errors.ProtocolError: errno.EIO,
    errors.ContentChanged: errno.ESTALE,
    errors.NotReady: errno.EBUSY,
    errors.CatalogError: errno.EIO,
    errors.FileSystemError: errno.EIO,
    errors.NoSuchEntry: errno.ENOENT,
    errors.NotAFolder: errno.ENOTDIR,
    errors.IsAFolder: errno.EISDIR,
    errors.NotALink: errno.EINVAL,
    errors.ReadOnly: errno.EROFS,
    errors.NotAllowed: errno.EPERM,
    errors.AlreadyThere: errno.EEXIST,
    errors.NotEmpty: errno.ENOTEMPTY,
    errors.Invalid: errno.EINVAL,
    errors.InUse: errno.EBUSY,
    errors.NoSpace: errno.ENOSPC,
    errors.BadHandle: errno.EBADF,
    errors.NoSuchAttribute: errno.ENODATA,
    errors.AttributeTooLarge: errno.E2BIG,
    errors.AttributesUnsupported: errno.EOPNOTSUPP,
    errors.Interrupted: errno.EINTR,
    errors.Closing: errno.ENODEV,
}


def errno_of(exc: errors.IvcapfsError) -> int:
    """Return the errno that a caller is told: that of the class, or of the nearest one above it in the table."""
    return next(ERRNOS[kind] for kind in type(exc).__mro__ if kind in ERRNOS)


def errno_name(code: int) -> str:
    """Return an errno's name as xattr(7) and the documents have it, where Linux gives one number two names."""
    return "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode[code]
