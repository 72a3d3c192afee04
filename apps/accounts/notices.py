"""What people are told before and at sign-in (IEC 62443-3-3 SR 1.12).

Each change is a row of its own, so that it can be shown later which text somebody
agreed to. The newest row counts.
"""

import datetime as dt
import uuid

from django.db import transaction

from apps.accounts.models import BANNER_LENGTH, CONSENT_LENGTH, SignInNotice, User
from apps.audit import operations as audit
from apps.audit.kinds import Kind


class NoticeRefusedError(ValueError):
    """The notice cannot be like this; the message says why."""


def clean_text(text: str, limit: int, what: str) -> str:
    """Return the text with Unix line ends. Raises: NoticeRefusedError."""
    lines = [line.rstrip() for line in text.strip().splitlines()]
    # It reaches terminals of people who have not signed in: no control sequences.
    if not all(line.isprintable() for line in lines):
        raise NoticeRefusedError(f"The {what} has characters that cannot be printed.")
    cleaned = "\n".join(lines)
    if len(cleaned) > limit:
        raise NoticeRefusedError(f"The {what} is longer than {limit} characters.")
    return cleaned


@transaction.atomic
def set_notice(
    *,
    banner: str,
    consent: str,
    consent_required: bool,
    greets: bool,
    by: User,
    now: dt.datetime,
) -> SignInNotice:
    """Replace what people are told. Raises: NoticeRefusedError.

    `banner` is shown before the sign-in, `consent` after it; `consent_required` makes
    people type yes to it; `greets` begins a shell with who, where and until when.
    """
    notice = SignInNotice(
        banner=clean_text(banner, BANNER_LENGTH, "banner"),
        consent=clean_text(consent, CONSENT_LENGTH, "consent text"),
        consent_required=consent_required,
        greets=greets,
        made_at=now,
        made_by=by,
    )
    if consent_required and not notice.consent:
        raise NoticeRefusedError("Nobody can agree to an empty text: write one.")
    notice.save(force_insert=True)
    audit.record(
        Kind.NOTICE_CHANGED,
        now=now,
        actor=by.party,
        subject=notice.party,
        data={
            "banner": notice.banner,
            "consent": notice.consent,
            "consent_required": consent_required,
            "greets": greets,
        },
    )
    return notice


def consent_due(agreed_to: str) -> SignInNotice | None:
    """Return the notice somebody still has to agree to, if any.

    `agreed_to` is the id of the one they agreed to at this sign-in, or empty.
    """
    notice = current_notice()
    if notice is None or not notice.consent_required or str(notice.pk) == agreed_to:
        return None
    return notice


@transaction.atomic
def agree(
    *, user: User, notice_id: uuid.UUID, source_address: str, now: dt.datetime
) -> bool:
    """Write down that somebody agreed to the notice in the portal.

    False when it is not the one that holds, or asks for no consent.
    """
    notice = current_notice()
    if notice is None or notice.pk != notice_id or not notice.consent_required:
        return False
    audit.record(
        Kind.CONSENT_GIVEN,
        now=now,
        actor=user.party,
        subject=notice.party,
        source_address=source_address,
    )
    return True


def current_notice() -> SignInNotice | None:
    """Return what people are told now; None while nobody has written anything."""
    return SignInNotice.objects.order_by("-made_at", "-id").first()
