#!/usr/bin/env bash
# The command line as a user meets it: help, errors that say what to do, round trips, text equal to the target's.
set -u
. "$(dirname "$0")/lib.sh"
m=smollm2-135m-instruct

for c in $("$bin/foray" --list-commands); do
  check "$c --help" "$bin/foray" "$c" --help
  check "$c --man is clean roff" bash -c "'$bin/foray' $c --man | mandoc -T lint -W error"
done
check "forayd --help" "$bin/forayd" --help
check "foray-tune --help" "$bin/foray-tune" --help
check "unknown command" fails_with 2 "is not a command" "$bin/foray" frobnicate
check "unknown option" fails_with 2 "--frob" "$bin/foray" generate --frob
check "no model" fails_with 2 "-m" "$bin/foray" tokenize -p x
check "model that was not pulled" fails_with 1 "foray pull $m" env XDG_CACHE_HOME="$tmp/none" "$bin/foray" tokenize -m $m -p x
echo nonsense >"$tmp/x.gguf"
check "file that is no model" fails_with 1 x.gguf "$bin/foray" tokenize -m "$tmp/x.gguf" -p x
check "wrong number" fails_with 2 "--temp" "$bin/foray" generate -m $m --temp hot -p x
check "unknown device" fails_with 1 "nonesuch" "$bin/foray" generate -m $m --device nonesuch -p x
check "unknown policy" fails_with 2 "policy" "$bin/foray" generate -m $m --policy nonesuch -p x
check "wrong chat template" fails_with 2 "nonesuch" "$bin/foray" generate -m $m --chat-template nonesuch -p x

round_trip() {
  printf 'Grüße, 世界! \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x9a\x80  12345\n\n\tend <|im_end|> ' >"$tmp/t"
  "$bin/foray" tokenize -m $m --no-special --json <"$tmp/t" >"$tmp/ids" &&
    "$bin/foray" detokenize -m $m <"$tmp/ids" >"$tmp/t2" && cmp "$tmp/t" "$tmp/t2"
}
check "tokenize and back" round_trip

same() { # --check compares with plain decoding and fails when one token differs
  "$bin/foray" generate -m $m -n 24 --check --json "$@" -p 'Name three rivers.' >"$tmp/g" &&
    jq -e '.equal and .tokens > 0 and .drafted > 0' "$tmp/g"
}
check "greedy equals plain" same --policy fixed
check "sampled equals plain" same --policy fixed --temp 1 --seed 7
check "filtered equals plain" same --policy fixed --temp 0.8 --top-p 0.95 --top-k 40 --seed 3 --repeat-penalty 1.1
check "no exits equals plain" same --policy maxprob --no-exits
check "odd length equals plain" same --policy fixed --draft-max 5
plain=$("$bin/foray" generate -m $m -n 24 --plain -q -p 'Name three rivers.' 2>/dev/null)
spec=$("$bin/foray" generate -m $m -n 24 -q -p 'Name three rivers.' 2>/dev/null)
check "the two modes print the same" test -n "$plain" -a "$plain" = "$spec"
"$bin/foray" generate -m $m -n 64 -q --json --stop , -p 'Name three rivers, one after the other.' >"$tmp/stop" 2>/dev/null
check "stop string ends it" jq -e '.finish == "stop"' "$tmp/stop"
"$bin/foray" generate -m $m -n 8 --alone -q --json -p 'Hello' >"$tmp/alone" 2>/dev/null
check "the edge alone" jq -e '.tokens > 0' "$tmp/alone"
"$bin/foray" devices --json >"$tmp/devices"
check "the device list" jq -e 'map(.name) | index("ref") != null' "$tmp/devices"
finish
