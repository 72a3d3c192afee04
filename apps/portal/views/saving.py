"""Saving what a form says of the inventory, or telling why it is refused."""

from collections.abc import Callable
from typing import TypeVar

from django.contrib import messages
from django.forms import Form
from django.http import HttpRequest
from django.utils import timezone

from apps.inventory import operations as inventory
from apps.portal.roles import signed_in

T = TypeVar("T")


def saved(
    request: HttpRequest,
    form: Form,
    write: Callable[..., T],
    *,
    said: Callable[[T], str] = lambda _: "The change is saved and holds from now on.",
) -> T | None:
    """Return what `write` made of a form that was posted; `said` of it is shown.

    None when nothing was posted or it is refused: that then stands at the form.
    """
    if request.method != "POST" or not form.is_valid():
        return None
    try:
        written = write(
            **form.cleaned_data, by=signed_in(request).party, now=timezone.now()
        )
    except inventory.InventoryRefusedError as refusal:
        form.add_error(None, str(refusal))
        return None
    messages.success(request, said(written))
    return written
