"""The ledger as a file that `verifier.py` reads: JSON lines under a signed head.

    {"ledger": "sluice", "version": 1}
    {"event": {...}, "leaf_hash": hex, "hash": hex}        one line per event
    {"head": {...}, "signature": base64, "key": SHA256:...}

The head names the last event's number and chain hash; the signature is Ed25519 over
`audit.chain.head_message`.
"""

import base64
import datetime as dt
from collections.abc import Iterator
from itertools import islice

from apps.accounts.models import User
from apps.audit import operations as audit
from apps.audit import queries
from apps.audit.chain import canonical_json, head_message
from apps.vault import operations as vault
from apps.vault.models import ServiceKeyPurpose

_EVENTS_AT_ONCE = 500


def export(*, by: User, source_address: str, now: dt.datetime) -> Iterator[bytes]:
    """Write the export down and return its lines, UTF-8 with line feeds.

    The key is made and the event is written before the first line is asked for.
    """
    key = vault.service_key(ServiceKeyPurpose.LEDGER_SEAL, now=now)
    seq, chain_hash = audit.record_export(
        by=by.party, source_address=source_address, now=now
    )
    head = {
        "seq": seq,
        "hash": chain_hash.hex(),
        "exported_at": now.astimezone(dt.UTC).isoformat(timespec="microseconds"),
    }
    signature = key.sign(head_message(head))
    return _lines(
        last=seq,
        ending={
            "head": head,
            "signature": base64.b64encode(signature).decode(),
            "key": key.fingerprint,
        },
    )


def _lines(*, last: int, ending: dict[str, object]) -> Iterator[bytes]:
    """Yield many lines at a time; each part is one query, whole before it is sent."""
    yield canonical_json({"ledger": "sluice", "version": 1}) + b"\n"
    # Numbers are gapless from 1; what is written meanwhile belongs to the next export.
    for first in range(1, last + 1, _EVENTS_AT_ONCE):
        count = min(_EVENTS_AT_ONCE, last + 1 - first)
        part = list(islice(queries.export_lines(first=first), count))
        yield b"".join(canonical_json(line) + b"\n" for line in part)
    yield canonical_json(ending) + b"\n"
