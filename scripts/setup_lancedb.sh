#!/bin/sh
# Make or renew .venv-lancedb: LanceDB, which `make bench-scale` measures beside this package.
# Usage: scripts/setup_lancedb.sh, after scripts/setup.sh
# Apart from .venv, because nothing else may need it.
set -eu
cd "$(dirname "$0")/.."
venv=.venv-lancedb

state=$(sha256sum <"$0")
stamp=$venv/imagedex-setup.stamp
[ "$(cat "$stamp" 2>/dev/null)" != "$state" ] || exit 0

rm -f "$stamp"
"$venv/bin/python" -c "" 2>/dev/null || .venv/bin/python -m venv --clear "$venv"
echo "Installing LanceDB into $venv."
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$venv/bin/python" -m pip install --quiet lancedb==0.40.0 numpy pyarrow
printf '%s\n' "$state" >"$stamp"
