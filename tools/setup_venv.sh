#!/bin/sh
# Installs requirements.lock into a virtual environment, unless it is there.
#
# Usage: sh tools/setup_venv.sh [DIRECTORY]     (.venv by default)
# Reads: PYTHON, the Python 3.11 to build on; found by itself if unset.
#
# A directory that this script made is rebuilt from nothing when the locks
# changed or when an earlier installation was interrupted. Any other
# directory is left alone.
set -eu
cd "$(dirname "$0")/.."

venv=${1:-.venv}
marker=$venv/.made_by_setup_venv # Written first: this directory is ours.
stamp=$venv/.installed           # Written last: the locks it was made from.
needed_kb=4000000

fail() {
  echo "setup: $*" >&2
  exit 1
}

is_installed() {
  [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$locks" ]
}

check_platform() {
  platform="$(uname -s) $(uname -m)"
  [ "$platform" = 'Linux x86_64' ] ||
    fail "TensorFlow Federated has wheels for Linux x86_64 only; this is" \
      "$platform. Use such a machine, or a linux/amd64 container."
  libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc='no glibc'
  echo "$libc" | awk '{
    split($2, version, ".")
    exit !($1 == "glibc" && version[1] * 1000 + version[2] >= 2031)
  }' || fail "TensorFlow Federated needs glibc 2.31 or newer (Debian 11," \
    "Ubuntu 20.04, RHEL 9); this system has $libc."
}

check_disk() {
  place=$(dirname "$venv")
  mkdir -p "$place"
  free_kb=$(df -Pk "$place" | awk 'NR == 2 { print $4 }')
  [ "$free_kb" -ge "$needed_kb" ] ||
    fail "about 4 GB of free disk space are needed for $venv, there are" \
      "$((free_kb / 1000)) MB. Free some, or install elsewhere: add" \
      "VENV=/path/on/a/larger/disk to the make command."
}

# Prints the interpreter behind $1 if that is a Python 3.11 that can make
# environments. Behind: $1 may live in the environment about to be rebuilt.
python311_of() {
  "$1" -c '
import ensurepip, sys, venv
if (sys.implementation.name, *sys.version_info[:2]) != ("cpython", 3, 11):
  sys.exit(1)
print(sys._base_executable)' 2>/dev/null
}

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    python311_of "$PYTHON"
    return
  fi
  for candidate in python3.11 python3 python; do
    python311_of "$candidate" && return
  done
  [ -n "$uv" ] || return 1
  "$uv" python find --quiet --system 3.11 2>/dev/null && return
  echo 'setup: fetching Python 3.11 with uv.' >&2
  "$uv" python install --quiet 3.11 2>/dev/null &&
    "$uv" python find --quiet --system 3.11
}

clear_place() {
  if [ -e "$marker" ]; then
    # Renamed first: a half-deleted directory may have lost its marker.
    rm -rf "$venv.discarded"
    mv "$venv" "$venv.discarded"
  elif [ -d "$venv" ] && [ -n "$(ls -A "$venv")" ]; then
    fail "$venv exists and was not made by this script. Move it away, or" \
      "install elsewhere: add VENV=.venv-tff to the make command."
  fi
  rm -rf "$venv.discarded"
}

make_venv() {
  if [ -n "$uv" ]; then
    "$uv" venv --quiet --allow-existing --python "$python" "$venv"
  else
    "$python" -m venv "$venv"
  fi
}

install_lock() {
  # jax 0.4.13 has no wheel: it is built by the pinned setuptools.
  set -- --quiet --no-deps --require-hashes --no-build-isolation \
    --only-binary :all: --no-binary jax -r "$1"
  if [ -n "$uv" ]; then
    "$uv" pip install --compile-bytecode --python "$venv/bin/python" "$@"
  else
    "$venv/bin/python" -m pip install --disable-pip-version-check "$@"
  fi
}

locks=$(cat requirements-build.lock requirements.lock | cksum)
is_installed && exit 0

# One at a time: a second `make` waits here, then finds all installed.
if command -v flock >/dev/null; then
  exec 9<tools/setup_venv.sh
  flock 9 || true # Some network file systems have no locks.
  is_installed && exit 0
fi

unset PYTHONHOME PYTHONPATH PIP_PREFIX PIP_TARGET PIP_USER
uv=$(command -v uv) || uv=''
check_platform
python=$(find_python) ||
  fail 'Python 3.11 with venv was not found. Install it (one of: uv python' \
    'install 3.11; pyenv install 3.11; apt-get install python3.11-venv) or' \
    'name it: add PYTHON=/path/to/python3.11 to the make command.'
clear_place
check_disk

tool=${uv:+uv}
echo "setup: installing requirements.lock into $venv with ${tool:-pip};" \
  'about a minute, 2.5 GB.' >&2
mkdir -p "$venv"
: >"$marker"
make_venv && install_lock requirements-build.lock &&
  install_lock requirements.lock ||
  fail 'the installation failed, see above. The same command starts it again.'
echo "$locks" >"$stamp"
