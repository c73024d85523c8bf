"""The public `Aspect`: one metadata record of the platform.

Made by `IVCAP.list_aspects`, `IVCAP.add_aspect`, `Artifact.metadata`. An object may be shared by threads;
its record is replaced as a whole.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ivcapfs.client.api import Api
from ivcapfs.errors import ConfigError
from ivcapfs.models import AspectRecord


class Aspect:
    """Typed JSON about an entity, valid for a time.

    Args:
        api: the deployment's calls.
        record: what is known of it so far.
        complete: whether the record has all that the server knows; if not, it is read when first needed.
    """

    def __init__(self, api: Api, record: AspectRecord, *, complete: bool = False) -> None:
        self._api = api
        self._record = record
        self._complete = complete

    @property
    def id(self) -> str:
        """The aspect's URN."""
        return self._record.id

    @property
    def urn(self) -> str:
        """The aspect's URN, the same as `id`."""
        return self._record.id

    @property
    def entity(self) -> str:
        """The URN of what it is about."""
        return self._record.entity

    @property
    def schema(self) -> str:
        """The URN of its schema."""
        return self._record.schema

    @property
    def content(self) -> Any:
        """Its JSON value; read from the server (``GET /1/aspects/{id}``) where the list left it out."""
        if self._record.content is None:
            self._complete_it()
        return self._record.content

    @property
    def aspect(self) -> Any:
        """Its JSON value, the same as `content`."""
        return self.content

    @property
    def content_type(self) -> str | None:
        """The MIME type of the content."""
        return self._record.content_type

    @property
    def valid_from(self) -> datetime:
        """When it began to stand."""
        return self._record.valid_from

    @property
    def valid_to(self) -> datetime | None:
        """When it was retracted; None while it stands."""
        return self._record.valid_to

    @property
    def asserter(self) -> str | None:
        """Who added it; read from the server where the list left it out."""
        self._complete_it()
        return self._record.asserter

    @property
    def policy(self) -> str | None:
        """The URN of the policy that says who may see it; read from the server where the list left it out."""
        self._complete_it()
        return self._record.policy

    def refresh(self) -> Aspect:
        """Read the record anew (``GET /1/aspects/{id}``); return self.

        Raises:
            NotFound: there is none of that id.
        """
        self._record = self._api.read_aspect(self.id)
        self._complete = True
        return self

    def retract(self) -> Aspect:
        """End its validity (``DELETE /1/aspects/{id}``); return self. Does nothing if that was done before."""
        if self.valid_to is None:
            self._api.retract_aspect(self.id)
            self.refresh()
        return self

    def _complete_it(self) -> None:
        if not self._complete:
            self.refresh()

    def __repr__(self) -> str:
        return f"<Aspect id={self.id}, entity={self.entity}, schema={self.schema}>"


def prepare(entity: str, content: Any, schema: str | None) -> tuple[str, dict[str, Any]]:
    """Return schema and content as they are sent: the content names its schema and its entity, as the SDK's
    does.

    Args:
        content: a dict, or an object whose `to_dict()` gives one.
        schema: None: the content's own ``$schema``.

    Raises:
        ConfigError: the content is no object, or nothing names a schema.
    """
    value = content.to_dict() if hasattr(content, "to_dict") else content
    if not isinstance(value, dict):
        raise ConfigError("an aspect is a dict (a JSON object)")
    named = schema or value.get("$schema")
    if not isinstance(named, str) or not named:
        raise ConfigError("an aspect needs a schema: give schema=…, or put it into the content under '$schema'")
    return named, {"$schema": named, "$entity": entity, **value}


def add(api: Api, entity: str, content: Any, schema: str | None, policy: str | None, *, replace: bool) -> Aspect:
    """Add an aspect, or replace the one of the same schema; return it as the server now has it."""
    named, value = prepare(entity, content, schema)
    write = api.update_aspect if replace else api.add_aspect
    return Aspect(api, api.read_aspect(write(entity, named, value, policy)), complete=True)
