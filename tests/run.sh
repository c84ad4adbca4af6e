#!/usr/bin/env bash
# run.sh fast|long: builds and runs what CI runs (fast), or the whole proof (long). Each step is counted; a
# step that prints "N passed, N failed" adds these numbers, any other step counts as one test. The closing
# line is "N passed, N failed, N skipped"; the exit status is 1 when one failed.
set -u
mode=${1:-fast}
cd "$(dirname "$0")/.."
passed=0 failed=0 skipped=0 failures=()
start=$SECONDS
jobs=$(nproc)
mkdir -p build/log

step() { # step NAME COMMAND...
  local name=$1 log t0=$SECONDS rc line p f s
  shift
  log=build/log/$(tr -c 'a-zA-Z0-9\n' - <<<"$name").log
  printf '== %s\n' "$name"
  "$@" >"$log" 2>&1 </dev/null
  rc=$?
  line=$(grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$log" | tail -1)
  if [ -n "$line" ]; then
    read -r p f s < <(sed -E 's/^([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?$/\1 \2 \4/' <<<"$line")
    [ "$rc" -ne 0 ] && [ "$f" -eq 0 ] && f=1
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + ${s:-0}))
    [ "$f" -ne 0 ] && failures+=("$name")
  elif [ $rc -eq 0 ]; then passed=$((passed + 1)) f=0; else failed=$((failed + 1)) f=1; failures+=("$name"); fi
  if [ "$f" -ne 0 ]; then tail -60 "$log"; echo "   FAILED (status $rc; whole output in $log)"; else
    grep -E 'SKIPPED' "$log" | sort | uniq -c | head -5
    printf '   ok, %d s%s\n' $((SECONDS - t0)) "${line:+: $line}"
  fi
}

step "build (gcc)" make -j"$jobs" all
step "layers" make layers
step "abi-check" make abi-check
step "build (clang)" make -j"$jobs" CONFIG=clang all
step "lint" make lint
step "RTL units" make -j"$jobs" test-rtl
if [ -x build/release/bin/foray ]; then
  step "model: smollm2-135m-instruct" build/release/bin/foray pull smollm2-135m-instruct
fi
step "unit tests" make -j"$jobs" test-unit
step "unit tests under ASan and UBSan" make -j"$jobs" CONFIG=asan test-unit
for t in tests/e2e/test_*.sh; do
  [ -e "$t" ] && step "e2e: $(basename "$t" .sh)" bash "$t"
done
if [ "$mode" = long ]; then
  for t in tests/e2e/long_*.sh; do
    [ -e "$t" ] && step "long: $(basename "$t" .sh)" bash "$t"
  done
fi
step "fuzz, ${FUZZ_SECONDS:-60} s a target" make fuzz

printf '\n%d s in all\n' $((SECONDS - start))
[ ${#failures[@]} -gt 0 ] && printf 'failed: %s\n' "${failures[@]}"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
