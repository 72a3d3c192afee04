#!/usr/bin/env bash
# Everything that judges the tree without running the product. All checks run, so that
# one visit shows all there is to repair; the exit status says whether one failed.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PWD/.venv/bin:$PATH
command -v shellcheck >/dev/null ||
  echo "check: shellcheck has no wheel for this machine (Debian: apt-get install shellcheck)"
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
failed=()

run() { # run NAME COMMAND...
  local name=$1 output started=$SECONDS
  shift
  if output=$("$@" 2>&1); then
    printf 'ok      %-14s %3d s\n' "$name" $((SECONDS - started))
  else
    printf 'FAILED  %-14s %3d s: %s\n%s\n' "$name" $((SECONDS - started)) "$*" "$output"
    failed+=("$name")
  fi
}

# Folders that hold Python of ours; those that do not exist yet are left out.
python_trees=()
for tree in apps jumpserver tests benchmarks docs scripts manage.py; do
  [[ -e $tree ]] && python_trees+=("$tree")
done
shell_scripts=(scripts/*.sh .ci/run)

run format ruff format --check "${python_trees[@]}"
run lint ruff check "${python_trees[@]}"
run types env SLUICE_DATA_DIR="$data" mypy
run imports lint-imports
run migrations env SLUICE_DATA_DIR="$data" python manage.py makemigrations --check --dry-run
run system-check env SLUICE_DATA_DIR="$data" python manage.py check --fail-level WARNING
run templates djlint --quiet --check templates
run templates-lint djlint --quiet --lint templates
run shell shellcheck "${shell_scripts[@]}"
run bandit bandit --quiet --severity-level medium --configfile pyproject.toml \
  --recursive apps jumpserver
run compose check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
if command -v hadolint >/dev/null; then
  run dockerfile hadolint docker/Dockerfile
fi
run locks scripts/check-locks.sh

if ((${#failed[@]})); then
  echo "check: failed: ${failed[*]}" >&2
  exit 1
fi
echo "check: all passed"
