"""Bytes: blocks of artifacts in memory, fetched once, read ahead where a reader goes forward."""
