"""Relaxations of the content security policy, for the pages that cannot do without.

The terminal measures characters by inline styles; the player does too and compiles its
terminal from WebAssembly. No page may run inline scripts.
"""

from collections.abc import Callable
from typing import TypeVar

from csp.decorators import csp_update
from django.http import HttpResponse

View = TypeVar("View", bound=Callable[..., HttpResponse])


def with_terminal(view: View) -> View:
    """Let the page of `view` set inline styles (xterm.js)."""
    return _relaxed(view, {"style-src": ["'unsafe-inline'"]})


def with_player(view: View) -> View:
    """Let the page of `view` set inline styles and compile WebAssembly (player)."""
    return _relaxed(
        view,
        {"style-src": ["'unsafe-inline'"], "script-src": ["'wasm-unsafe-eval'"]},
    )


def _relaxed(view: View, changes: dict[str, list[str]]) -> View:
    # django-csp types a view as taking the request alone; its wrapper passes the rest.
    return csp_update(changes)(view)  # type: ignore[return-value]
