"""ivcapfs: your IVCAP artifacts are just files.

A FUSE filesystem that mounts an IVCAP deployment, and the client library below it.
Start at :mod:`ivcapfs.cli` (the commands) or :mod:`ivcapfs.client` (the Python interface).
"""

__version__ = "0.1.0"
