#!/usr/bin/env bash
# Wipe a data directory of the product: scripts/demo-reset.sh DIRECTORY
#
# Only a directory that the product has made is touched, and only while nothing runs on
# it: a typing mistake in DATA= must not cost anybody a home directory.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly data=${1:?usage: scripts/demo-reset.sh DIRECTORY}
if [[ ! -e $data ]]; then
  echo "demo-reset: $data does not exist, nothing to do"
  exit 0
fi
if [[ ! -f $data/sluice.sqlite3 && ! -f $data/secrets/vault-key ]]; then
  echo "demo-reset: $data is no data directory of Sluice, so it stays" >&2
  exit 1
fi
for lock in "$data"/*.lock; do
  if [[ -f $lock ]] && ! flock --nonblock "$lock" true; then
    echo "demo-reset: the product is running on $data; stop it first (Ctrl-C)" >&2
    exit 1
  fi
done
rm -rf -- "$data"
echo "demo-reset: $data is gone; make demo begins anew"
