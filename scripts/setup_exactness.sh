#!/bin/sh
# Make or renew .venv-exactness: this package, and the libraries that its vectors are held against.
# Usage: scripts/setup_exactness.sh, after scripts/setup.sh
# Apart from .venv, because torch is hundreds of megabytes and nothing else may need it. Its CPU
# build is enough; which one pip finds is up to the settings of pip.
set -eu
cd "$(dirname "$0")/.."
venv=.venv-exactness
reference="torch==2.13.0 transformers==5.23.0 onnxscript==0.7.2 ftfy==6.3.1 regex"
open_clip=open_clip_torch==3.3.0

if command -v flock >/dev/null 2>&1; then
    exec 9<requirements.lock
    flock 9
fi

state=$(cat requirements.lock pyproject.toml src/imagedex/__init__.py "$0" | sha256sum)
stamp=$venv/imagedex-setup.stamp
[ "$(cat "$stamp" 2>/dev/null)" != "$state" ] || exit 0

rm -f "$stamp"
"$venv/bin/python" -c "" 2>/dev/null || .venv/bin/python -m venv --clear "$venv"
echo "Installing torch and transformers into $venv; this takes a while."
export PIP_DISABLE_PIP_VERSION_CHECK=1
# The packages of .venv are seen from here, in the versions of requirements.lock, and not installed
# a second time.
site() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
site .venv/bin/python >"$(site "$venv/bin/python")/imagedex-packages.pth"
# shellcheck disable=SC2086 # Each word is a package.
"$venv/bin/python" -m pip install --quiet $reference
# Without what it depends on: its tokenizer and its transformers need no torchvision.
"$venv/bin/python" -m pip install --quiet --no-deps "$open_clip"
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
printf '%s\n' "$state" >"$stamp"
