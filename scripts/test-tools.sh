#!/usr/bin/env bash
# See to the real servers and clients that the tests drive: OpenSSH and other SSH
# programs, PostgreSQL, Redis, Chromium. As root what is missing is installed (Debian),
# and a failure is an error. Otherwise the missing is named and the tests that need it
# skip with a reason.
set -euo pipefail

packages=()
need() { # need PACKAGE... -- TEST...: ask for the packages unless the test holds
  local wanted=()
  while [[ $1 != -- ]]; do
    wanted+=("$1")
    shift
  done
  shift
  "$@" >/dev/null 2>&1 || packages+=("${wanted[@]}")
}
on_path() { PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "$1"; }
any_chromium() { on_path chromium || on_path chromium-browser || on_path google-chrome; }
any_postgresql() { compgen -G '/usr/lib/postgresql/*/bin/initdb' || on_path initdb; }

need openssh-server -- on_path sshd
need openssh-client -- on_path ssh
# What else people come with: PuTTY, Dropbear, libssh2 and what runs ssh for them.
need putty-tools -- on_path plink
need dropbear-bin -- on_path dbclient
need curl -- on_path curl
need rsync -- on_path rsync
need git -- on_path git
need sshfs -- on_path sshfs
need ansible-core -- on_path ansible-playbook
# Programs that have the whole screen.
need htop -- on_path htop
need mc -- on_path mc
need postgresql -- any_postgresql
need redis-server -- on_path redis-server
# A browser without fonts measures its terminal wrongly.
need chromium fonts-dejavu-core -- any_chromium

if ((${#packages[@]} == 0)); then
  exit 0
fi

if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
  echo "test-tools: tests that need these will skip; install them with" >&2
  echo "  apt-get install --no-install-recommends ${packages[*]}" >&2
  exit 0
fi

# Tests start servers of their own; the packages' services must not start.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
echo "test-tools: installing ${packages[*]}" >&2
apt-get update -qq </dev/null
apt-get install -qq -y --no-install-recommends "${packages[@]}" </dev/null >/dev/null
