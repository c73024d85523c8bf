"""Keeps what httpx and httpcore log free of signed addresses and tokens.

Used by `ivcapfs.client.transport`. httpx logs whole URLs at INFO; httpcore logs answer headers, `Location`
among them, at DEBUG. A filter on a parent logger does not see the records of its children, hence one on
each logger by name. Any thread; installing twice is the same as once.
"""

from __future__ import annotations

import logging

from ivcapfs.client.origins import redact_text

_HTTPX = "httpx"
_HTTPCORE = ("connection", "http11", "http2", "proxy", "socks")


class _WithoutQueries(logging.Filter):
    """Rewrites a record so that no address in it has a query."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact_text(record.getMessage()), None
        return True


class _NoDetail(logging.Filter):
    """Lets only warnings through."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING


_WITHOUT_QUERIES = _WithoutQueries()
_NO_DETAIL = _NoDetail()


def keep_queries_out_of_logs() -> None:
    """Put the filters on the loggers of httpx and httpcore."""
    logging.getLogger(_HTTPX).addFilter(_WITHOUT_QUERIES)
    for name in _HTTPCORE:
        logging.getLogger(f"httpcore.{name}").addFilter(_NO_DETAIL)
