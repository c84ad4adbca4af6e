#!/usr/bin/env bash
# mutants.sh [NAME...]: switches one known mistake on at a time (make CONFIG=mutant MUTANT=NAME) and requires that
# the named test fails; the same test must pass without it (make test does that). Objects that no mutant touches
# come from the compiler cache.
set -u
cd "$(dirname "$0")/../.."
# name                 test program               files that know the mutant
list='
ACCEPT_ONE_TOO_MANY    simlink/test_simlink
NOISE_OFF_BY_ONE       simlink/test_simlink
ROLLBACK_ONE_SHORT     simlink/test_simlink
RULE_TYPICAL           proto/test_verify_rules
RULE_GREEDY            proto/test_verify_rules
RULE_LATTICE           proto/test_verify_rules
RULE_DROP              proto/test_verify_rules
RULE_ZEROED            proto/test_verify_rules
RULE_TOP2              proto/test_verify_rules
RULE_NO_RESIDUAL       proto/test_verify_rules
PREFIX_ACROSS_TENANTS  batch/test_scale
PREFIX_PAGE_TOO_MANY   batch/test_scale
KV_OFF_BY_ONE          engine/*
ROPE_AFTER_ROLLBACK    engine/*
KV_ROLLBACK            rt/*
SKIP_CATCHUP           dev/* rt/*
CHECK_KEEPS_WRONG      rt/test_drafter
PREV_STALE             rt/test_drafter
SWAP_SCALE_OFFSET      dev/* rt/*
HLS_ZERO_POINT         hls/test_hls_ops
HLS_NOT_CAUSAL         hls/test_hls_ops
'
make -s all >/dev/null || exit 1
caught=0 missed=0
while read -r name tests; do
  [ -n "$name" ] || continue
  [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
  files=$(grep -rlE "FORAY_MUTANT_$name\b" --include='*.c' --include='*.h' host cloud hls 2>/dev/null)
  if [ -z "$files" ]; then
    echo "MISSED  $name: no source knows it"
    missed=$((missed + 1))
    continue
  fi
  targets=()
  for t in $tests; do
    for src in tests/unit/${t%/*}/test_*.c; do
      b=$(basename "$src" .c)
      [[ ${t#*/} == '*' || ${t#*/} == "$b" ]] && [ -e "$src" ] && targets+=("build/mutant-$name/tests/${t%/*}/$b")
    done
  done
  # Only the files of this mutant are compiled anew: everything else is a copy of the release objects.
  rm -rf "build/mutant-$name"
  mkdir -p "build/mutant-$name"
  cp -a build/release/obj build/release/gen "build/mutant-$name/"
  for f in $files; do rm -f "build/mutant-$name/obj/${f%.*}.o"; done
  if ! make CONFIG=mutant MUTANT="$name" "${targets[@]}" >"build/mutant-$name.log" 2>&1; then
    echo "MISSED  $name: does not build (build/mutant-$name.log)"
    missed=$((missed + 1))
    continue
  fi
  by=
  for t in "${targets[@]}"; do
    if ! timeout 300 "$t" >"build/mutant-$name.log" 2>&1; then by=${t#build/mutant-"$name"/tests/} && break; fi
  done
  if [ -n "$by" ]; then
    echo "caught  $name by $by"
    caught=$((caught + 1))
  else
    echo "MISSED  $name: every test passes"
    missed=$((missed + 1))
  fi
  rm -rf "build/mutant-$name"
done <<<"$list"
echo "$caught passed, $missed failed"
[ $missed -eq 0 ]
