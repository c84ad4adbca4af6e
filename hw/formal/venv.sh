#!/usr/bin/env bash
# Makes build/venv-formal with the pinned yosys, sby and yices of requirements.txt (once).
set -eu
cd "$(dirname "$0")/../.."
[ -x build/venv-formal/bin/yowasp-sby ] && [ -x build/venv-formal/bin/yices-smt2 ] && exit 0
python3 -m venv build/venv-formal
build/venv-formal/bin/pip install -q --disable-pip-version-check --require-hashes -r hw/formal/requirements.txt
