#!/bin/sh
# Makes build/venv with the Python packages the parity tests compare against, at
# the versions the tests were written for; does nothing when it is up to date.
set -eu
cd "$(dirname "$0")/.."
venv=build/venv
want=tests/py/requirements.txt
[ -f $venv/stamp ] && cmp -s $want $venv/stamp && exit 0
echo "Python packages into $venv ..." >&2
mkdir -p build
[ -x $venv/bin/python ] || python3 -m venv $venv
$venv/bin/python -m pip install --quiet --disable-pip-version-check -r $want >&2
cp $want $venv/stamp
