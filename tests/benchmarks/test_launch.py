"""Only a benchmark's own process can run without recording: the product cannot."""

import ast
import os
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from django.conf import settings

from apps.gateway.service import GatewaySettings

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("apps", "jumpserver")
PROGRAM = """
import asyncio, django, sys, tempfile
from datetime import datetime, UTC
from pathlib import Path
django.setup()
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from apps.recordings.frames import EventKind
from apps.recordings.writer import RecorderThread
from benchmarks.launch import forget_what_is_recorded
if sys.argv[1] == "unrecorded":
    forget_what_is_recorded()
async def main():
    thread = RecorderThread()
    thread.start()
    folder = Path(tempfile.mkdtemp())
    recorder = thread.open(
        folder / "r", header={"started_at": datetime.now(UTC).isoformat()},
        data_key=bytes(32), signer=Ed25519PrivateKey.generate(),
        loop=asyncio.get_running_loop(),
    )
    recorder.add(EventKind.OUTPUT, 1, b"seen")
    sealed = await asyncio.wrap_future(recorder.close())
    thread.stop()
    print(sealed.bytes_out)
asyncio.run(main())
"""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_nothing_in_the_product_knows_the_benchmarks():
    """R23: what throws recordings away cannot be reached from the product."""
    knows = [
        path
        for folder in PRODUCT
        for path in (ROOT / folder).rglob("*.py")
        if any(name.split(".")[0] == "benchmarks" for name in imports(path))
    ]
    assert knows == []


def test_the_benchmarks_are_not_installed_with_the_product():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
    assert build["build"]["targets"]["wheel"]["packages"] == list(PRODUCT)


def test_r23_no_setting_is_about_whether_to_record():
    """R23: where recordings go can be set; whether they are made cannot."""
    names = {name for name in dir(settings) if "RECORD" in name}
    assert names <= {"RECORDINGS_DIR", "RECORDING_DIR"}
    assert not [f.name for f in fields(GatewaySettings) if "record" in f.name]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("how", "kept"), [("recorded", "4"), ("unrecorded", "0")])
def test_the_price_of_recording_is_measured_against_no_recording(how, kept, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        cwd=ROOT,
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "jumpserver.settings",
            "SLUICE_DATA_DIR": str(tmp_path / "data"),
            "TMPDIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == kept
