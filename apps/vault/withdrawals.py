"""Withdrawing an ended lease's credential and proving it dead.

Network work between short transactions: nothing is locked while a target is talked to.
A worker claims a lease by a compare-and-set of `try_again_at` and renews the claim
before each step, so a worker that died is replaced when its claim runs out.
"""

import datetime as dt
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from apps.audit import operations as audit
from apps.audit.kinds import Kind
from apps.audit.models import Outcome
from apps.inventory.crypto_profiles import PROFILES
from apps.inventory.models import CredentialKind
from apps.vault import ssh_keys, targets
from apps.vault.dialogues import dialogue_for
from apps.vault.lifecycle import TRANSITIONS, LeaseStep
from apps.vault.login_credentials import LoginCredential, new_password, unpacked
from apps.vault.models import (
    AccountCredential,
    Finding,
    Lease,
    LeaseState,
    RevocationReceipt,
)
from apps.vault.secret_values import Secret
from apps.vault.stored import (
    as_login,
    credential_purpose,
    fingerprint_of,
    lock_account,
    next_version,
    open_secret,
    retire,
    seal_secret,
)
from apps.vault.targets import Attempt, RotationError
from apps.vault.whereabouts import Target, target_of

logger = logging.getLogger(__name__)

_SHORTEST_BACK_OFF = dt.timedelta(seconds=1)
_LONGEST_BACK_OFF = dt.timedelta(minutes=5)
# A rotation takes at most four connect times, and a claim is renewed before each step;
# a worker that died is thus replaced after five.
_CLAIM_CONNECT_TIMES = 5
_ERROR_LENGTH = 300
_PARTY = audit.system("vault")


class LeaseInUseError(RuntimeError):
    """A lease was to be withdrawn that has not ended."""


def withdraw_lease(
    *, lease_id: uuid.UUID, clock: Callable[[], dt.datetime]
) -> RevocationReceipt | None:
    """Withdraw an ended lease's credential and prove it dead.

    Does network work, so it is for a worker thread and outside any transaction.
    Returns the receipt, also when there is one already; None when it is not due, when
    somebody else is at it, or when it could not be proved: then `try_again_at` says
    when to come back. Any number of workers may call this for the same lease.

    Raises: LeaseInUseError when the lease has not ended.
    """
    receipt = RevocationReceipt.objects.filter(lease_id=lease_id).first()
    if receipt is not None:
        return receipt
    claim = _take_claim(lease_id, now=clock())
    if claim is None:
        return None
    lease = Lease.objects.select_related(
        "account__asset__zone__site", "credential", "secret"
    ).get(pk=lease_id)
    work = _Withdrawal(lease=lease, claim=claim, clock=clock)
    try:
        how = work.withdraw()
        attempt = work.prove()
    except _ClaimLostError:
        logger.warning("%s was taken over by another worker", lease)
        return None
    except _BusyError:
        work.put_off()
        return None
    except RotationError as error:
        work.leave_open(error.finding, f"not rotated: {error}")
        return None
    if attempt.finding is not Finding.REFUSED:
        work.leave_open(attempt.finding, attempt.answer)
        return None
    return work.finish(how, attempt)


@dataclass(slots=True)
class _Claim:
    """One worker's right to a lease: the value it has written to `try_again_at`."""

    until: dt.datetime


class _ClaimLostError(Exception):
    """It took too long and another worker has the lease now."""


class _BusyError(Exception):
    """Another lease of the same account is being rotated at this moment."""


@transaction.atomic
def _take_claim(lease_id: uuid.UUID, *, now: dt.datetime) -> _Claim | None:
    state, due = Lease.objects.values_list("state", "try_again_at").get(pk=lease_id)
    if state == LeaseState.ISSUED:
        raise LeaseInUseError("end the lease before it is withdrawn")
    if LeaseStep.PROVED_DEAD not in TRANSITIONS[LeaseStep(state)]:
        return None
    if due is not None and due > now:
        return None
    claim = _Claim(now + _claim_time())
    changed = Lease.objects.filter(pk=lease_id, state=state, try_again_at=due).update(
        try_again_at=claim.until
    )
    return claim if changed == 1 else None


def _claim_time() -> dt.timedelta:
    return dt.timedelta(seconds=settings.TARGET_CONNECT_SECONDS * _CLAIM_CONNECT_TIMES)


@dataclass(slots=True)
class _Withdrawal:
    """One worker's try at one lease."""

    lease: Lease
    claim: _Claim
    clock: Callable[[], dt.datetime]

    @property
    def target(self) -> Target:
        """Return where the lease's account is, with the keys pinned now."""
        return target_of(self.lease.account)

    def withdraw(self) -> str:
        """Make the credential useless; return what was done, for the receipt.

        Raises: RotationError, _BusyError, _ClaimLostError.
        """
        if self.lease.kind == CredentialKind.CERTIFICATE:
            return "certificate ran out"
        if self.lease.credential is None:
            raise TypeError("a lease of a key or password names its credential")
        if self.lease.credential.replaced_at is not None:
            return f"{self.lease.kind} had been replaced already"
        pending, is_new = self._pending(self.lease.credential)
        old = as_login(self.lease.credential)
        new = as_login(pending)
        # A rotation that broke off may have reached the target.
        if is_new or not self._opens(pending, new):
            self._rotate(self.lease.credential, pending, old=old, new=new)
        self._renew(pending)
        _install(pending, replaced=self.lease.credential, now=self.clock())
        return f"{self.lease.kind} replaced on the target"

    def prove(self) -> Attempt:
        """Try exactly what was leased, with another library where there is one."""
        self._renew(None)
        if self.lease.secret is None:
            raise TypeError("a lease keeps its secret until it is proved dead")
        return targets.prove_dead(
            self.target,
            unpacked(open_secret(self.lease.secret)),
            seconds=settings.TARGET_CONNECT_SECONDS,
        )

    def _pending(self, current: AccountCredential) -> tuple[AccountCredential, bool]:
        """Return (the account's next credential, claimed; whether it is a new one)."""
        signatures = PROFILES[self.lease.account.asset.crypto_profile].signatures
        secret, line = _next_secret(self.lease.kind, signatures)
        now = self.clock()
        with transaction.atomic():
            lock_account(self.lease.account_id)
            if AccountCredential.objects.filter(
                pk=current.pk, replaced_at__isnull=False
            ).exists():
                # Replaced in this moment: the next try only has to prove it.
                raise _BusyError
            pending = (
                AccountCredential.objects.select_related("secret")
                .filter(
                    account_id=self.lease.account_id,
                    replaced_at=None,
                    installed_at=None,
                )
                .first()
            )
            if pending is not None:
                if pending.claimed_until is not None and pending.claimed_until > now:
                    raise _BusyError
                pending.claimed_until = now + _claim_time()
                pending.save(update_fields=["claimed_until"])
                return pending, False
            created = AccountCredential.objects.create(
                account_id=self.lease.account_id,
                kind=self.lease.kind,
                secret=seal_secret(
                    purpose=credential_purpose(self.lease.account_id),
                    secret=secret,
                    now=now,
                ),
                public_line=line,
                version=next_version(self.lease.account_id),
                created_at=now,
                claimed_until=now + _claim_time(),
            )
            return created, True

    def _opens(self, pending: AccountCredential, new: LoginCredential) -> bool:
        """Say whether the target takes the pending credential; only yes or no count."""
        self._renew(pending)
        attempt = targets.log_in(
            self.target, new, seconds=settings.TARGET_CONNECT_SECONDS
        )
        if attempt.finding not in {Finding.ACCEPTED, Finding.REFUSED}:
            self._release(pending)
            raise RotationError(attempt.finding, attempt.answer)
        return attempt.finding is Finding.ACCEPTED

    def _rotate(
        self,
        current: AccountCredential,
        pending: AccountCredential,
        *,
        old: LoginCredential,
        new: LoginCredential,
    ) -> None:
        self._renew(pending)
        seconds = settings.TARGET_CONNECT_SECONDS
        try:
            if old.password is not None and new.password is not None:
                targets.rotate_password(
                    self.target,
                    old=old.password,
                    new=new.password,
                    dialogue=dialogue_for(self.lease.account.asset.kind),
                    seconds=seconds,
                )
            else:
                targets.rotate_key(
                    self.target,
                    old=old,
                    old_line=current.public_line,
                    new=new,
                    new_line=pending.public_line,
                    seconds=seconds,
                )
        except RotationError as error:
            self._release(pending)
            if error.finding is Finding.REFUSED:
                # The target may only be locked for a while, so this proves nothing.
                raise RotationError(
                    Finding.NOT_ROTATED,
                    "the target takes neither the stored credential nor the new one: "
                    "somebody changed it there; store the one in force",
                ) from None
            raise

    @transaction.atomic
    def _renew(self, pending: AccountCredential | None) -> None:
        """Keep the claims for one more step. Raises: _ClaimLostError."""
        now = self.clock()
        until = now + _claim_time()
        changed = Lease.objects.filter(
            pk=self.lease.pk, try_again_at=self.claim.until
        ).update(try_again_at=until)
        if changed != 1:
            raise _ClaimLostError
        self.claim.until = until
        if pending is None:
            return
        changed = AccountCredential.objects.filter(
            pk=pending.pk,
            installed_at=None,
            replaced_at=None,
            claimed_until=pending.claimed_until,
        ).update(claimed_until=until)
        if changed != 1:
            raise _ClaimLostError
        pending.claimed_until = until

    def _release(self, pending: AccountCredential) -> None:
        """Let the next try begin at once; the pending credential itself stays."""
        AccountCredential.objects.filter(
            pk=pending.pk, claimed_until=pending.claimed_until
        ).update(claimed_until=None)

    def put_off(self) -> None:
        """Come back soon, without counting this as a failed try."""
        Lease.objects.filter(pk=self.lease.pk, try_again_at=self.claim.until).update(
            try_again_at=self.clock() + _SHORTEST_BACK_OFF
        )

    @transaction.atomic
    def leave_open(self, finding: Finding, answer: str) -> None:
        """Note that it is not proved dead, and when to try again.

        The ledger hears of it when this is new or the finding is another one, not at
        each try.
        """
        now = self.clock()
        lease = Lease.objects.select_for_update(of=("self",)).get(pk=self.lease.pk)
        if lease.try_again_at != self.claim.until:
            return
        is_news = (lease.state, lease.last_finding) != (LeaseState.OPEN, finding)
        lease.state = LeaseState.OPEN
        lease.tries += 1
        lease.try_again_at = now + _back_off(lease.tries)
        lease.last_finding = finding
        lease.last_error = answer[:_ERROR_LENGTH]
        lease.save(
            update_fields=[
                "state",
                "tries",
                "try_again_at",
                "last_finding",
                "last_error",
            ]
        )
        logger.warning("%s is not proved dead: %s", self.lease, answer)
        if is_news:
            audit.record(
                Kind.LEASE_STILL_OPEN,
                now=now,
                actor=_PARTY,
                subject=self.lease.party,
                outcome=Outcome.FAILURE,
                data={
                    "kind": lease.kind,
                    "holder": lease.holder,
                    "finding": finding,
                    "answer": answer,
                    "tries": lease.tries,
                },
            )

    @transaction.atomic
    def finish(self, how: str, attempt: Attempt) -> RevocationReceipt | None:
        """Write the receipt, note the state, and destroy the lease's secret."""
        now = self.clock()
        ended_at = self.lease.ended_at
        if ended_at is None:
            raise TypeError("an ended lease has its time")
        changed = Lease.objects.filter(
            pk=self.lease.pk,
            try_again_at=self.claim.until,
            state__in=[LeaseState.WITHDRAWING, LeaseState.OPEN],
        ).update(
            state=LeaseState.PROVED_DEAD,
            tries=self.lease.tries + 1,
            try_again_at=None,
            last_finding=attempt.finding,
            last_error="",
            secret=None,
        )
        if changed != 1:
            return None
        if self.lease.secret is not None:
            self.lease.secret.delete()
        latency = max(now - ended_at, dt.timedelta(0))
        receipt = RevocationReceipt.objects.create(
            lease_id=self.lease.pk,
            how=how,
            proved_by=attempt.tried_by,
            answer=attempt.answer,
            proved_at=now,
            latency_ms=latency // dt.timedelta(milliseconds=1),
        )
        audit.record(
            Kind.LEASE_PROVED_DEAD,
            now=now,
            actor=_PARTY,
            subject=self.lease.party,
            data={
                "kind": self.lease.kind,
                "holder": self.lease.holder,
                "how": how,
                "proved_by": attempt.tried_by,
                "answer": attempt.answer,
                "latency_ms": receipt.latency_ms,
                "tries": self.lease.tries + 1,
            },
        )
        return receipt


def _next_secret(kind: str, signatures: tuple[str, ...]) -> tuple[Secret, str]:
    """Return (new secret, its public line; empty for a password)."""
    if kind == CredentialKind.PASSWORD:
        return new_password(), ""
    key = ssh_keys.generate_key(signatures)
    return ssh_keys.private_text(key), ssh_keys.public_line(key)


def _back_off(tries: int) -> dt.timedelta:
    """Return how long to wait after `tries` failed tries: doubling, 1 s to 5 min."""
    doublings = min(tries - 1, 10)
    return min(_SHORTEST_BACK_OFF * (1 << doublings), _LONGEST_BACK_OFF)


@transaction.atomic
def _install(
    pending: AccountCredential, *, replaced: AccountCredential, now: dt.datetime
) -> None:
    """Note that the target takes `pending`, and destroy what it replaced."""
    lock_account(pending.account_id)
    replaced.refresh_from_db()
    if replaced.replaced_at is None:
        retire(replaced, now=now)
    changed = AccountCredential.objects.filter(
        pk=pending.pk, installed_at=None, replaced_at=None
    ).update(installed_at=now, claimed_until=None)
    if changed != 1:
        raise _ClaimLostError
    account = pending.account
    audit.record(
        Kind.CREDENTIAL_ROTATED,
        now=now,
        actor=_PARTY,
        subject=account.party,
        data={
            "kind": pending.kind,
            "version": pending.version,
            "replaced_version": replaced.version,
            "fingerprint": fingerprint_of(pending.public_line),
        },
    )
