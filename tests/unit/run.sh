#!/usr/bin/env bash
# Runs the unit-test programs given as arguments and ends with their sum. A program that dies, or prints no
# closing line, counts as one failure.
set -u
export FORAY_TOP=${FORAY_TOP:-$PWD}
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0} UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
passed=0 failed=0 skipped=0
for t in "$@"; do
  out=$(timeout "${TEST_TIMEOUT:-900}" "$t" ${FILTER:+"$FILTER"} 2>&1); rc=$?
  line=$(printf '%s\n' "$out" | grep -E '^[A-Za-z0-9_-]+: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' | tail -1)
  if [ -z "$line" ] || { [ $rc -ne 0 ] && [[ $line == *" 0 failed"* ]]; }; then
    printf '%s\n' "$out" | tail -60
    echo "$(basename "$t"): died with status $rc"
    failed=$((failed + 1))
    [ -z "$line" ] && continue
  fi
  read -r p f s < <(printf '%s\n' "$line" | sed -E 's/.*: ([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped/\1 \2 \3/')
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  if [ "$f" -ne 0 ] || [ "$s" -ne 0 ]; then printf '%s\n' "$out"; else printf '%s\n' "$line"; fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
