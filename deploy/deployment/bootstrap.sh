#!/bin/sh
# On the host, as root: find or install a Python that is new enough, and go on in it.
# Usage: bootstrap.sh COMMAND [OPTIONS], see __main__.py
set -eu
cd "$(dirname "$0")/.."

is_usable() {
    "$1" -c 'import ensurepip, sqlite3, sys, venv; sys.exit(sys.version_info < (3, 11))' \
        >/dev/null 2>&1
}

# Of the distribution: one in somebody's home could be used by root alone.
find_python() {
    for candidate in /usr/bin/python3 /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11; do
        if is_usable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

command -v apt-get >/dev/null 2>&1 || {
    echo "This is neither Debian nor Ubuntu: there is no apt-get." >&2
    exit 1
}
python=$(find_python)
if [ -z "$python" ]; then
    echo "Installing python3-venv."
    export DEBIAN_FRONTEND=noninteractive
    install() {
        apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends \
            python3 python3-venv </dev/null >/dev/null
    }
    # The package lists of a fresh machine are empty or old; then the first try fails.
    install 2>/dev/null || { apt-get -qq update </dev/null && install; }
    python=$(find_python)
fi
[ -n "$python" ] || {
    echo "Python 3.11 or newer is needed: Debian 12, Ubuntu 24.04 or newer." >&2
    exit 1
}
# Without bytecode, which whoever has sent this could not remove again when he is not root.
exec "$python" -B -m deployment "$@"
