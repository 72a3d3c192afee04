"""A secret that does not show itself: in logs, tracebacks, formats or pickles. Pure."""

import hmac
from typing import Never


class Secret:
    """Wraps text that must not leak; `reveal()` is the only way to it, and it greps."""

    __slots__ = ("_text",)
    __hash__ = None  # type: ignore[assignment] # a hash would compare in variable time

    def __init__(self, text: str) -> None:
        """Raises: TypeError when `text` is not text (a Secret is not nested)."""
        if not isinstance(text, str):
            raise TypeError("a secret wraps text")
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def is_blank(self) -> bool:
        """Say whether there is nothing in it but white space."""
        return not self._text.strip()

    def __repr__(self) -> str:
        return "<secret>"

    def __str__(self) -> str:
        return "<secret>"

    def __format__(self, specification: str) -> str:
        # No specification: a width would tell nothing, a precision must cut nothing.
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self._text.encode("utf-8", "surrogatepass"),
            other._text.encode("utf-8", "surrogatepass"),
        )

    def __reduce__(self) -> Never:
        raise TypeError("a secret is neither pickled nor copied")
