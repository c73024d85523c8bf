"""The refusals of the platform and their JSON bodies.

Whatever part of the server refuses a request raises :class:`ApiError` (through one of the functions below);
:func:`install` turns it into the reply that the API documents. Stateless.

    ApiError            a refused request: status, body, headers
    DataDirInUse        (OSError) another process serves this data directory
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class DataDirInUse(OSError):
    """Another process serves this data directory."""


class ApiError(Exception):
    """A request that is refused.

    Args:
        status: the HTTP status code.
        body: the JSON body.
        headers: further headers of the reply.
    """

    def __init__(self, status: int, body: Mapping[str, str], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(body.get("message", ""))
        self.status = status
        self.body = dict(body)
        self.headers = dict(headers or {})


def bad_request(message: str) -> ApiError:
    """Return the 400 with ``{message}``."""
    return ApiError(400, {"message": message})


def not_found(resource_id: str, message: str = "") -> ApiError:
    """Return the 404 with ``{id, message}``."""
    return ApiError(404, {"id": resource_id, "message": message or f"Resource {resource_id} not found"})


def conflict(resource_id: str, message: str, headers: Mapping[str, str] | None = None) -> ApiError:
    """Return the 409 with ``{id, message}``."""
    return ApiError(409, {"id": resource_id, "message": message}, headers)


def too_large(message: str) -> ApiError:
    """Return the 413 with ``{message}``."""
    return ApiError(413, {"message": message})


def unsupported_type(message: str) -> ApiError:
    """Return the 415 with ``{message}``."""
    return ApiError(415, {"message": message})


def invalid_parameter(name: str, value: str, message: str) -> ApiError:
    """Return the 422 with ``{message, name, value}``."""
    # JSON may bring in lone surrogates, which no reply can carry.
    shown = value.encode("utf-8", "backslashreplace").decode()
    return ApiError(422, {"message": message, "name": name, "value": shown})


def not_unique(matches: int) -> ApiError:
    """Return the 424 with ``{message}``."""
    return ApiError(424, {"message": f"found {matches} matches."})


async def _api_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ApiError)
    return JSONResponse(exc.body, status_code=exc.status, headers=exc.headers)


async def _http_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return JSONResponse({"message": str(exc.detail)}, status_code=exc.status_code, headers=exc.headers)


async def _unexpected(_request: Request, _exc: Exception) -> Response:
    return JSONResponse({"message": "Internal error of the platform; see its log"}, status_code=500)


def install(app: Starlette) -> None:
    """Make ``app`` answer refusals (and its own failures, which the server logs) with JSON bodies."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
