#!/usr/bin/env bash
# Write the hashed locks under requirements/ and package-lock.json again.
#
# Arguments are handed to `uv pip compile`, for example `--upgrade-package ruff`.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=.boot/bin/uv
if [[ ! -x $uv ]]; then
  scripts/setup.sh boot
fi

compile() { # compile OUTPUT SOURCE [OPTION...]
  local output=$1 source=$2
  shift 2
  "$uv" pip compile --quiet --universal --generate-hashes --python-version 3.11 \
    --custom-compile-command "make lock" --output-file "$output" "$source" "$@"
}

export UV_PYTHON_DOWNLOADS=never
if [[ -r ${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} ]]; then
  export UV_SYSTEM_CERTS=1
fi
compile requirements/boot.txt requirements/boot.in "$@"
compile requirements/node.txt requirements/node.in "$@"
compile requirements/base.txt pyproject.toml "$@"
# Development installs exactly what production installs, and more.
compile requirements/dev.txt pyproject.toml --extra dev --extra docs \
  --constraint requirements/base.txt "$@"

if command -v npm >/dev/null; then
  npm install --ignore-scripts --package-lock-only
else
  echo "lock: no npm here, package-lock.json is left as it is" >&2
fi
scripts/check-locks.sh
