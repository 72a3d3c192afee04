#!/usr/bin/env bash
# Run the tests twice: those marked `both_databases` on PostgreSQL, then everything on
# SQLite. The last line is the summary of the larger run, or of the one that failed.
#
# Each run is spread over four processes (`tests/conftest.py` says how): most tests wait
# for real servers and clients, so that two cores carry them. All in one, as a
# debugger wants it: TEST_PROCESSES=0.
#
# Arguments go to both runs of pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

spread=(--numprocesses "${TEST_PROCESSES:-4}" --no-loadscope-reorder)

# 5: nothing was selected, which is no failure when arguments narrow the choice.
status=0
.venv/bin/python -m tests.servers.postgresql -- \
  .venv/bin/python -m pytest "${spread[@]}" -m both_databases "$@" || status=$?
if [[ $status -ne 0 && $status -ne 5 ]]; then
  exit "$status"
fi
exec .venv/bin/python -m pytest "${spread[@]}" "$@"
