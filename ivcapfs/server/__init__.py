"""The embedded IVCAP platform: a local deployment for development, demos and tests.

It keeps artifacts and aspects in a data directory (SQLite and plain files) and serves them over the IVCAP
REST API, so that the unmodified official SDK can work with it. It is a server in its own right and imports
nothing else of ivcapfs. Start at :mod:`ivcapfs.server.runner` (run it) or :mod:`ivcapfs.server.app` (the ASGI
application); :mod:`ivcapfs.server.store` is what is kept.
"""
