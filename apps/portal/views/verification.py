"""What anyone needs to check recordings and the ledger without Sluice."""

import inspect

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from apps.portal.roles import only_for
from apps.recordings import verifier as verifier_module
from apps.vault import operations as vault
from apps.vault.models import ServiceKey, ServiceKeyPurpose

_SIGNING = (ServiceKeyPurpose.RECORDING_SEAL, ServiceKeyPurpose.LEDGER_SEAL)


@require_GET
@only_for("auditor")
def verifier(_request: HttpRequest) -> HttpResponse:
    """Send the stand-alone verifier: the very file that Sluice itself runs."""
    return _file(inspect.getsource(verifier_module), "text/x-python", "verifier.py")


@require_GET
@only_for("auditor")
def signing_keys(_request: HttpRequest) -> HttpResponse:
    """Send every public key that ever signed a recording or the ledger's head."""
    now = timezone.now()
    for purpose in _SIGNING:
        vault.service_key(purpose, now=now)
    lines = [
        f"{key.public_line} {key.purpose} {key.fingerprint}\n"
        for key in ServiceKey.objects.filter(purpose__in=_SIGNING).order_by(
            "created_at"
        )
    ]
    return _file("".join(lines), "text/plain", "keys.pub")


def _file(text: str, content_type: str, name: str) -> HttpResponse:
    response = HttpResponse(text, content_type=f"{content_type}; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
