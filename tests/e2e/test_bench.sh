#!/usr/bin/env bash
# foray bench on eight prompts of our own: every text equal to plain decoding, and every promised field there.
set -u
. "$(dirname "$0")/lib.sh"
m=smollm2-135m-instruct
run() { "$bin/foray" bench --prompts tests/e2e/prompts.jsonl --edge $m --cloud spawn:$m -n 24 --json "$@" >"$tmp/b.json"; }
fields='["tokens","verifications","drafted","accepted","exits","bytes_up","bytes_down","seconds","plain_seconds"]'
check "greedy" run --policy fixed
check "all equal" jq -e '.prompts == 8 and .equal == 8' "$tmp/b.json"
check "fields in all" jq -e "$fields - keys == []" "$tmp/b.json"
check "fields by category" jq -e ".categories | length == 8 and all($fields - keys == [])" "$tmp/b.json"
check "drafts were accepted" jq -e '.accepted > 0 and .accepted <= .drafted' "$tmp/b.json"
check "exits add up" jq -e '([.exits[].drafted] | add) == .drafted and ([.exits[].accepted] | add) == .accepted' "$tmp/b.json"
check "temperature, limited" run --limit 3 --temp 1 --seed 5
check "three prompts, equal" jq -e '.prompts == 3 and .equal == 3' "$tmp/b.json"
check "a line that is no JSON" fails_with 1 "line 1" "$bin/foray" bench --prompts README.md --edge $m
"$bin/foray" perplexity -m $m -f README.md --ctx 128 --chunks 2 --json >"$tmp/p.json" 2>/dev/null
check "perplexity of the target engine" jq -e '.ppl > 1 and .tokens == 126' "$tmp/p.json"
"$bin/foray" perplexity -m $m -f README.md --ctx 128 --chunks 2 --device cpu --against float --json >"$tmp/q.json" 2>/dev/null
check "edge against float" jq -e '.kl < 0.02 and .top1 > 0.9 and .bits_per_weight < 5.01 and .tokens == 126' "$tmp/q.json"
"$bin/foray" perplexity -m $m -f README.md --ctx 128 --chunks 1 --device ref --json >"$tmp/r.json" 2>/dev/null
"$bin/foray" perplexity -m $m -f README.md --ctx 128 --chunks 1 --device cpu --json >"$tmp/s.json" 2>/dev/null
check "ref and cpu give the same number" test "$(jq .ppl "$tmp/r.json")" = "$(jq .ppl "$tmp/s.json")"
finish
