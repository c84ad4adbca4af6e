#!/usr/bin/env bash
# SmolLM2 on the Verilated RTL: two drafts, with early exits tried on the way, are those of the cpu device (ids, exits, confidences).
set -u
. "$(dirname "$0")/lib.sh"
m=smollm2-135m-instruct
have_model $m || { skip "$m is not on this machine"; finish; }
run() { # run DEVICE: what the drafts were, without times
  "$bin/foray" generate --device "$1" -m $m --alone --raw -c 64 -n "${TOKENS:-2}" -p 'Paris is' --json 2>"$tmp/$1.err" </dev/null |
    jq -S '{text, ids, drafted, exits, steps: [.steps[] | {id, exit_layer, confidence}]}' >"$tmp/$1.json"
}
check "cpu drafts" run cpu
check "sim drafts (the plugin must be there)" run sim
check "the same drafts" cmp "$tmp/cpu.json" "$tmp/sim.json"
check "there are drafts" jq -e '.drafted > 0' "$tmp/sim.json"
finish
