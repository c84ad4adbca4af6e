#!/usr/bin/env bash
# Makes build/venv-openai with the pinned client of tests/api/requirements.txt (once a version of that file).
set -eu
want=$(sha256sum tests/api/requirements.txt)
[ "$(cat build/venv-openai/.made 2>/dev/null)" = "$want" ] && exit 0
mkdir -p build
python3 -m venv build/venv-openai
build/venv-openai/bin/pip install -q --disable-pip-version-check --require-hashes -r tests/api/requirements.txt
echo "$want" >build/venv-openai/.made
