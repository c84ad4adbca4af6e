#!/usr/bin/env bash
# run.sh SECONDS BINARY...: runs each fuzz target for that long on a copy of its corpus (tests/fuzz/corpus/NAME for
# fuzz_NAME), two at a time. One line a target; a crash keeps its input under build/fuzz-crashes and fails the run.
set -u
seconds=$1
shift
top=${FORAY_TOP:-$PWD}
crashes=$top/build/fuzz-crashes
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$crashes"

one() {
  local bin=$1 name out rc
  name=$(basename "$bin")
  name=${name#fuzz_}
  mkdir -p "$work/$name"
  [ -d "$top/tests/fuzz/corpus/$name" ] && cp -r "$top/tests/fuzz/corpus/$name/." "$work/$name/"
  "$bin" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 \
    -artifact_prefix="$crashes/$name-" "$work/$name" >"$work/$name.log" 2>&1
  rc=$?
  out=$(grep -E 'stat::number_of_executed_units' "$work/$name.log" | grep -oE '[0-9]+')
  if [ $rc -eq 0 ]; then
    echo "fuzz $name: ok, ${out:-0} runs in $seconds s"
  else
    echo "fuzz $name: FAILED (status $rc; inputs in build/fuzz-crashes)"
    grep -vE '^#[0-9]+' "$work/$name.log" | tail -30
    echo "$name" >>"$work/failed"
  fi
}

for bin in "$@"; do
  while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
  one "$bin" &
done
wait
[ ! -e "$work/failed" ]
