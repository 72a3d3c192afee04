"""The whole story as a program hears it: every step holds, none is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# It waits for a one-minute grant to run out and for workers' next rounds.
SECONDS = 400

# Words of what each step has to have checked; the eight steps.
STEPS = {
    1: ["password and one-time code", "asks for operator"],
    2: ["requester cannot approve", "another site", "approver sees", "shortens"],
    3: ["sees the HMI", "resizes", "exit statuses", "browser terminal",
        "scada-01", "switch-old-01", "no target credential"],
    4: ["with the countdown", "watches the screen", "denied with the rule"],
    5: ["well under a second", "told why", "opens nothing", "warned", "deadline"],
    6: ["proved dead", "opens nothing"],
    7: ["finds the session", "seek, speed", ".cast", "stand-alone verifier",
        "byte in the recording", "byte in the ledger", "nobody else"],
    8: ["kill -9", "gateway lost", "last second", "lease is revoked"],
}  # fmt: skip


@pytest.mark.e2e
@pytest.mark.timeout(SECONDS + 30)
def test_the_story_holds(tmp_path):
    dropped = ("SLUICE_", "DJANGO_", "DATABASE_URL", "REDIS_URL")
    told = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "demo", "--scripted", "--json"],
        env={k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    steps = [json.loads(line) for line in told.stdout.splitlines()]
    failed = [step for step in steps if not step["holds"]]
    if failed:
        pytest.fail(json.dumps(failed, indent=2, ensure_ascii=False))
    assert told.returncode == 0, told.stderr
    assert [step["step"] for step in steps] == list(STEPS)
    for step in steps:
        assert len(step["checked"]) == len(step["evidence"])
        assert all(step["evidence"])
        assert step["ms"] > 0
        for words in STEPS[step["step"]]:
            assert any(words in checked for checked in step["checked"]), (words, step)
    # A temporary data directory leaves nothing behind.
    assert not list(tmp_path.iterdir())
