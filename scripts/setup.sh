#!/usr/bin/env bash
# Bring the checkout to a runnable state: uv, the virtual environment, npm packages.
#
#   scripts/setup.sh boot   only the installer (uv, into .boot)
#   scripts/setup.sh base   what the product needs
#   scripts/setup.sh dev    the same plus tests, checks and documentation
#
# Needs Python 3.11 to 3.14 with pip, nothing else: no root, no python3-venv, no node.
# Everything is installed from hashed locks. A run with nothing to do takes a moment:
# each part carries a stamp with the fingerprint of what it was made from.
#
# PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly level=${1:-base}
case $level in
boot | base | dev) ;;
*)
  echo "usage: scripts/setup.sh [boot|base|dev]" >&2
  exit 2
  ;;
esac

export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
# A `user = true` in somebody's pip.conf contradicts --target.
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# Three installers, three ideas of whom to trust. A site with an authority of its own
# has it in the machine's store, so all three are sent there.
authorities=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
if [[ -r $authorities ]]; then
  export UV_SYSTEM_CERTS=1
  export PIP_CERT=${PIP_CERT:-$authorities}
  export NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-$authorities}
fi

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# fingerprint FILE...: what these files hold.
fingerprint() {
  cat -- "$@" | sha256sum | cut -d' ' -f1
}

# stamped STAMP FINGERPRINT: true when the part was made from exactly this.
stamped() {
  [[ -f $1 ]] && [[ $(<"$1") == "$2" ]]
}

python_fits() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
    >/dev/null 2>&1
}

# The scripts of an environment carry absolute paths, so a checkout that was moved or
# copied needs new ones.
environment_fits() { # environment_fits DIRECTORY
  [[ -f $1/.place ]] && [[ $(<"$1/.place") == "$(pwd -P)" ]] && python_fits "$1/bin/python"
}

make_environment() { # make_environment DIRECTORY
  local python
  python=$(pick_python)
  say "making $1 with $python"
  rm -rf "$1"
  .boot/bin/uv venv --quiet --python "$python" "$1"
  pwd -P >"$1/.place"
}

# The program behind a version manager's shim, which may have ideas of its own about what
# else to do after an installation.
real_python() {
  "$1" -c 'import sys; print(sys.executable)'
}

has_pip() {
  "$1" -m pip --version >/dev/null 2>&1
}

# pick_python [TEST]: the first Python of a version we support that passes TEST too.
# Each candidate is run, not only looked up: a version manager's shim can be on PATH and
# still refuse to start.
pick_python() {
  local candidate also=${1:-true}
  if [[ -n ${PYTHON:-} ]]; then
    python_fits "$PYTHON" || die "PYTHON=$PYTHON is not a working Python 3.11 to 3.14"
    "$also" "$PYTHON" || die "PYTHON=$PYTHON has no pip"
    real_python "$PYTHON"
    return
  fi
  for candidate in python3 python3.11 python3.12 python3.13 python3.14 \
    /usr/bin/python3 /usr/local/bin/python3; do
    if python_fits "$candidate" && "$also" "$candidate"; then
      real_python "$candidate"
      return
    fi
  done
  die "no Python 3.11 to 3.14 with pip found (Debian: apt-get install python3 python3-pip)"
}

# uv through pip into .boot. `--target` is allowed on an externally managed Python
# (PEP 668) and asks for no venv module.
install_uv() {
  local print python
  print=$(fingerprint requirements/boot.txt)
  if [[ -x .boot/bin/uv ]] && stamped .boot/.stamp "$print"; then
    return
  fi
  python=$(pick_python has_pip)
  say "fetching uv with $python -m pip"
  rm -rf .boot .boot.new
  "$python" -m pip install --quiet --no-deps --only-binary :all: --require-hashes \
    --target .boot.new --requirement requirements/boot.txt
  printf '%s\n' "$print" >.boot.new/.stamp
  mv .boot.new .boot
}

# The development lock is a superset of the other with the same versions, so an
# environment made for development also serves the product, and stays one.
install_python_packages() {
  local print wanted=$level
  environment_fits .venv || make_environment .venv
  if [[ $wanted == base && -e .venv/.stamp-dev ]]; then
    wanted=dev
  fi
  print=$(fingerprint "requirements/$wanted.txt")
  if stamped ".venv/.stamp-$wanted" "$print"; then
    return
  fi
  say "installing Python packages ($wanted)"
  rm -f .venv/.stamp-*
  .boot/bin/uv pip sync --quiet --require-hashes --no-build \
    --python .venv/bin/python "requirements/$wanted.txt"
  printf '%s\n' "$print" >".venv/.stamp-$wanted"
}

node_fits() {
  command -v npm >/dev/null && command -v node >/dev/null &&
    node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null
}

# The browser's packages. They are served as they are, so node is needed here only;
# where there is none, it comes as a Python wheel into a folder of its own.
install_browser_packages() {
  local print
  print=$(fingerprint package-lock.json)
  if stamped node_modules/.stamp "$print"; then
    return
  fi
  if ! node_fits; then
    if ! environment_fits .node || [[ ! -x .node/bin/npm ]]; then
      say "no node >= 18 with npm on PATH: fetching one"
      make_environment .node
      .boot/bin/uv pip sync --quiet --require-hashes --no-build \
        --python .node/bin/python requirements/node.txt
    fi
    PATH=$PWD/.node/bin:$PATH
  fi
  say "installing browser packages"
  npm ci --ignore-scripts --no-fund --no-audit --loglevel=error >/dev/null
  printf '%s\n' "$print" >node_modules/.stamp
}

# Two set-ups at once (`make demo` in one terminal, `make test` in another) take turns.
if command -v flock >/dev/null; then
  exec 9>.setup.lock
  flock 9
fi

install_uv
[[ $level == boot ]] && exit 0

# The two do not touch each other: side by side saves a third of the time.
trap wait EXIT
install_browser_packages &
browser=$!
install_python_packages
wait "$browser" || die "the browser packages could not be installed (see above)"
