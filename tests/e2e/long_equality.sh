#!/usr/bin/env bash
# long_equality.sh: the equality proof at full size: 212 prompts x {greedy, T=1, T=0.8 top-p 0.95, penalties}
# with random, right and wrong drafts, on one model of each architecture. A model that is not there is pulled.
set -eu
cd "$(dirname "$0")/../.."
make -j2 all build/release/tests/e2e/test_equality
passed=0 failed=0
for m in smollm2-135m-instruct qwen2.5-coder-0.5b-instruct gemma3-270m; do
  [ ! -x build/release/bin/foray ] || build/release/bin/foray pull "$m" >/dev/null
  echo "== $m"
  if FORAY_EQ_MODEL=$m FORAY_EQ_PROMPTS=${PROMPTS:-212} FORAY_EQ_TOKENS=${TOKENS:-32} build/release/tests/e2e/test_equality; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
  fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
