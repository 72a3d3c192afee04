"""Fixtures: a closed folder and a running recorder thread."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.recordings.writer import RecorderThread


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "recordings"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def recorder_thread() -> Iterator[RecorderThread]:
    thread = RecorderThread(flush_interval_seconds=0.02, minimum_free_bytes=0)
    thread.start()
    yield thread
    thread.stop()
