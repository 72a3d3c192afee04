#!/usr/bin/env bash
# Fail when a lock names a place instead of a version and a hash.
#
# A site installs from its own mirror: a lock with an address in it either breaks
# there or, worse, goes out to the internet.
set -euo pipefail
cd "$(dirname "$0")/.."

if grep -nEi 'https?:|--(extra-)?index-url|--find-links|"resolved"' \
  requirements/*.txt requirements/*.in package-lock.json; then
  echo "check-locks: a lock names an address (run: make lock)" >&2
  exit 1
fi
for lock in requirements/*.txt; do
  # Every requirement line must be continued by at least one hash.
  if ! awk '/^[a-z0-9]/ && !/\\$/ { print FILENAME ": no hash: " $0; bad = 1 }
            END { exit bad }' "$lock" >&2; then
    exit 1
  fi
done
