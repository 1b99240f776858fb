#!/bin/sh
# Make or renew .venv in this clone: the exact versions of requirements.lock, then the package.
# Usage: scripts/setup.sh [PYTHON]
# Without PYTHON an environment that works is kept; a new one is made with the first Python that
# is new enough. Quick when nothing changed; safe to repeat after it was ended half-way.
set -eu
cd "$(dirname "$0")/.."
wanted=${1:-}

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${wanted:-python3 python3.13 python3.12 python3.11}; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

# An environment that was moved, that lacks pip, or of another Python than wanted is of no use.
is_usable() {
    .venv/bin/python - "$(test -z "$wanted" || "$wanted" -c 'import sys; print(sys.version)')" \
        2>/dev/null <<'EOF'
import importlib.util, pathlib, sys
sys.exit(
    importlib.util.find_spec("pip") is None
    or pathlib.Path(sys.prefix).resolve() != pathlib.Path(".venv").resolve()
    or sys.argv[1] not in ("", sys.version)
)
EOF
}

# Two set-ups at once would install over each other. The lock ends with this process.
if command -v flock >/dev/null 2>&1; then
    exec 9<requirements.lock
    flock 9
fi

if [ -n "$wanted" ] && ! is_new_enough "$wanted"; then
    fail "PYTHON=$wanted is not Python 3.11 or newer."
fi
if ! is_usable; then
    python=$(find_python)
    [ -n "$python" ] || fail "Python 3.11 or newer is needed and was not found." \
        "On Debian or Ubuntu: apt-get install python3 python3-venv"
    # Debian ships the standard library's venv and ensurepip as a package of their own.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail \
        "$python lacks the modules venv and ensurepip of the standard library." \
        "On Debian or Ubuntu: apt-get install python3-venv"
    echo "Making .venv with $("$python" --version)."
    "$python" -m venv --clear .venv
fi

stamp=.venv/imagedex-setup.stamp
state=$(.venv/bin/python - <<'EOF'
import hashlib, pathlib
# The last one holds the version, which pip records.
names = ("requirements.lock", "pyproject.toml", "src/imagedex/__init__.py")
print(hashlib.sha256(b"".join(pathlib.Path(name).read_bytes() for name in names)).hexdigest())
EOF
)
[ "$(cat "$stamp" 2>/dev/null)" != "$state" ] || exit 0

rm -f "$stamp"
echo "Installing the packages of requirements.lock."
export PIP_DISABLE_PIP_VERSION_CHECK=1
.venv/bin/python -m pip install --quiet --require-hashes -r requirements.lock
.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
printf '%s\n' "$state" >"$stamp"
