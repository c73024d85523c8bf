"""The commands that stand beside ``mount``: a module each, put together by `ivcapfs.cli`."""
