"""A relay for a command without a terminal, where somebody may speak scp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.utils import timezone

from apps.gateway.relay import Relay
from apps.gateway.scp_observer import ScpObserver, TransferRefusedError
from apps.gateway.sftp_policy import SftpPolicy
from apps.recordings.frames import EventKind
from apps.recordings.manifest import FileNote, encode_note

REFUSED_STATUS: Final = 1


class ExecRelay(Relay):
    """One command. It is looked at until it is clear that no files are moved by scp."""

    def __init__(
        self,
        *,
        policy: SftpPolicy,
        on_file: Callable[[int, FileNote], None],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._tell = on_file
        self._observer: ScpObserver | None = ScpObserver(
            policy, clock=timezone.now, on_file=self._file_noted
        )

    def front_data(self, data: bytes) -> None:
        """Take input."""
        observer = self._observer
        if observer is not None and not self._over:
            try:
                observer.client_data(data)
            except TransferRefusedError as refusal:
                self._record(self.input_kind, data)
                self._refuse(str(refusal))
                return
            if observer.done:
                self._observer = None
        super().front_data(data)

    def back_data(self, data: bytes, datatype: int | None) -> None:
        """Take output."""
        observer = self._observer
        if observer is not None and datatype is None and not self._over:
            try:
                observer.asset_data(data)
            except TransferRefusedError as refusal:
                self._refuse(str(refusal))
                return
        super().back_data(data, datatype)

    def _refuse(self, why: str) -> None:
        """End the channel; the piece that was looked at stays where it is."""
        if self._over:
            return
        self.say_last(f"Sluice: {why}")
        self._over = True
        front, self._front = self._front, None
        if front is not None:
            front.exit(REFUSED_STATUS)
        if self._back is not None:
            self._back.close()

    def _file_noted(self, note: FileNote) -> None:
        if self._record(EventKind.FILE, encode_note(note)):
            self._tell(self.number, note)

    def _end(self) -> None:
        if not self._ended and self._observer is not None:
            self._observer.end()
            self._observer = None
        super()._end()
