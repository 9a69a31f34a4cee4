# Sourced by the other scripts: `ensure_environment NAME [EXTRAS]` makes .venv and installs there.
# shellcheck shell=bash

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
export PYTHONUTF8=1
# Images of containers like to set it. Many processes begin here, and without bytecode each of them
# would compile some two thousand modules again.
unset PYTHONDONTWRITEBYTECODE

# A Python that the package supports and that can make environments. An executable may be there
# and not run (pyenv's shims), so each is tried.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python; do
    if "$candidate" -c 'import sys, ensurepip, venv
sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then
      printf '%s\n' "$candidate"
      return
    fi
    if [[ -n ${PYTHON:-} && $candidate == "$PYTHON" ]]; then
      echo "PYTHON=$PYTHON is no Python 3.11, 3.12 or 3.13 with venv" >&2
      return 2
    fi
  done
  echo "needs Python 3.11, 3.12 or 3.13 with venv; name one with PYTHON=/path/to/python" >&2
  return 2
}

# An environment of the user's own has no made-in: it is never cleared.
is_somebody_elses() {
  [[ -e .venv && ! -e .venv/made-in && -n $(ls -A .venv) ]]
}

# ensure_environment NAME [EXTRAS]: .venv with the package (editable) and EXTRAS ("test,dev").
# Installs only where this checkout's pyproject.toml has changed since NAME was last installed.
ensure_environment() {
  local name=$1 extras=${2:+"[$2]"} root python stamp wanted
  root=$(pwd -P)
  if ! .venv/bin/python -c 'import pip' >/dev/null 2>&1 ||
    [[ $(cat .venv/made-in 2>/dev/null) != "$root" ]]; then
    if is_somebody_elses; then
      echo ".venv is there and was not made by this script; move it away, then run this again" >&2
      return 2
    fi
    python=$(find_python) || return
    echo "Making .venv with $("$python" --version)" >&2
    mkdir -p .venv
    find .venv/ -mindepth 1 -delete
    : >.venv/made-in  # first: what is interrupted here is known as ours
    "$python" -m venv .venv
    printf '%s' "$root" >.venv/made-in
  fi
  stamp=.venv/installed-$name
  wanted="$extras $(.venv/bin/python -c 'import hashlib, sys
print(sys.version, hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest())')"
  if [[ $(cat "$stamp" 2>/dev/null) != "$wanted" ]]; then
    echo "Installing into .venv (once; some minutes)" >&2
    rm -f "$stamp"
    # Python compiles what it imports by itself; most of what is installed is never imported.
    .venv/bin/python -m pip install --quiet --no-compile --editable ".$extras"
    printf '%s' "$wanted" >"$stamp"
  fi
}
