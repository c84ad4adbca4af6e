#!/usr/bin/env bash
# lint.sh FILE...: formatting, static analysis and hardware lint. Ends with status 1 when one of them complains.
set -u
bad=0
say() { printf 'lint: %s\n' "$*"; }

if ! out=$(clang-format --dry-run --Werror "$@" 2>&1); then
  printf '%s\n' "$out" | grep -E 'error|warning' | head -20
  say "clang-format: run 'make format'"; bad=1
else say "clang-format: $# files"; fi

if ! cppcheck --quiet --error-exitcode=3 --std=c11 --enable=warning,portability --inline-suppr -j "$(nproc)" \
  --suppressions-list=tests/lint/cppcheck.txt --project=build/compile_commands.json 2>build/cppcheck.log; then
  cat build/cppcheck.log; say "cppcheck complains"; bad=1
else say "cppcheck: clean"; fi

bash tests/lint/sv.sh || bad=1

if grep -nE '\b(sprintf|strcpy|strcat|gets|atoi|atol|strtok|alloca)\(' "$@"; then say "banned function"; bad=1; fi
exit $bad
