"""A relay whose channel speaks SFTP: the inspector stands between the two sides.

What the person sent and what was sent to the person is recorded, before anything is
done with it, without the contents of files. The gateway's own questions to the asset
are in neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from django.utils import timezone

from apps.gateway.held_uploads import HeldUploads
from apps.gateway.relay import Hold, Relay
from apps.gateway.sftp_content import ContentFilter
from apps.gateway.sftp_frames import FrameError
from apps.gateway.sftp_inspector import Buffer, SftpInspector
from apps.gateway.sftp_policy import SftpPolicy
from apps.recordings.frames import EventKind
from apps.recordings.manifest import FileNote, encode_note

BROKEN_STATUS: Final = 1


class SftpRelay(Relay):
    """One SFTP channel, from its opening on the asset to its end."""

    def __init__(
        self,
        *,
        policy: SftpPolicy,
        on_file: Callable[[int, FileNote], None],
        uploads: HeldUploads,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._tell = on_file
        self._inspector = SftpInspector(
            policy,
            clock=timezone.now,
            on_file=self._file_noted,
            holding=uploads.channel(self._inspect, self._proceed)
            if policy.rules.uploads_held
            else None,
        )
        self._input_ended = False
        self._from_client, self._to_client = ContentFilter(), ContentFilter()

    def front_data(self, data: bytes) -> None:
        """Take requests."""
        if self._over or not self._said(EventKind.INPUT, self._from_client.feed(data)):
            return
        self._bytes_in += len(data)
        self._inspect(self._inspector.client_data, data)
        if self._recorder.over_limit:
            self._hold_for_recorder(front=True)

    def front_eof(self) -> None:
        """Pass the end of requests on, behind those that wait."""
        self._input_ended = True
        self._pass_end()

    def front_full(self) -> None:
        """Hold both: the gateway answers denied requests by itself."""
        super().front_full()
        self._hold_front(Hold.SLOW_CLIENT)

    def front_drained(self) -> None:
        """Let both flow again."""
        self._release_front(Hold.SLOW_CLIENT)
        super().front_drained()

    def back_data(self, data: bytes, datatype: int | None) -> None:
        """Take answers."""
        if datatype is not None:
            super().back_data(data, datatype)
            return
        if self._over:
            return
        self._inspect(self._inspector.asset_data, data)
        if self._recorder.over_limit:
            self._hold_for_recorder(front=False)

    def freeze(self) -> None:
        """Hold input by flow control, and what the inspector still has of it."""
        self._inspector.frozen = True
        super().freeze()

    def unfreeze(self) -> None:
        """Let input flow again."""
        self._inspector.frozen = False
        super().unfreeze()
        self._inspect(self._inspector.proceed)

    def _said(self, kind: EventKind, said: bytes) -> bool:
        """Record what was said; a piece that is content only needs a recorder, too."""
        if said:
            return self._record(kind, said)
        return self._recorder.failed is None

    def _file_noted(self, note: FileNote) -> None:
        if self._record(EventKind.FILE, encode_note(note)):
            self._tell(self.number, note)

    def _proceed(self) -> None:
        self._inspector.proceed()

    def _inspect(self, step: Callable[..., None], *arguments: Any) -> None:
        try:
            step(*arguments)
        except FrameError as error:
            self._flush()
            self._break_off(str(error))
            return
        self._flush()
        if self._inspector.stalled:
            self._hold_front(Hold.INSPECTION)
        else:
            self._release_front(Hold.INSPECTION)
            self._pass_end()

    def _flush(self) -> None:
        inspector, back, front = self._inspector, self._back, self._front
        if inspector.to_asset:
            data = _joined(inspector.to_asset)
            if not self._over and back is not None and not back.is_closing():
                # A channel takes any buffer; asyncssh only says bytes.
                back.write(cast(bytes, data))
        if inspector.to_client:
            answer = bytes(_joined(inspector.to_client))
            said = self._to_client.feed(answer)
            if self._over or not self._said(EventKind.OUTPUT, said):
                return
            self._bytes_out += len(answer)
            if front is not None and not front.is_closing():
                front.write(answer)

    def _pass_end(self) -> None:
        if self._input_ended and not self._inspector.stalled:
            self._input_ended = False
            super().front_eof()

    def _break_off(self, why: str) -> None:
        """End the channel: what goes over it can no longer be followed."""
        if self._over:
            return
        self.say_last(f"Sluice: the file transfer was ended: {why}")
        self._over = True
        front, self._front = self._front, None
        if front is not None:
            front.exit(BROKEN_STATUS)
        if self._back is not None:
            self._back.close()

    def _end(self) -> None:
        if not self._ended:
            self._inspector.end()
        super()._end()


def _joined(pieces: list[Buffer]) -> Buffer:
    """Return the pieces as one, and empty the list; a single one is not copied."""
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    pieces.clear()
    return data
