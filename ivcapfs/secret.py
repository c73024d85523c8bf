"""A text that must not be seen: a token.

Used by every floor above that handles one. Pure and immutable: any thread.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Secret:
    """A token. Its text never appears in a repr, a log line or an exception."""

    _text: str = field(repr=False)

    def reveal(self) -> str:
        """Return the token itself, for the one header that needs it."""
        return self._text

    def fingerprint(self) -> str:
        """Return a short digest that tells two tokens apart without telling either."""
        return hashlib.sha256(self._text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return "<secret>"
