#!/usr/bin/env bash
# Every known mistake must be caught: see mutants.sh.
exec bash "$(dirname "$0")/mutants.sh" "$@"
