#!/usr/bin/env bash
# foray profile on a real model: tables, files, comparison, and what it refuses.
set -u
. "$(dirname "$0")/lib.sh"
m=smollm2-135m-instruct

check "no model" fails_with 2 "-m" "$bin/foray" profile x
check "no prompt" fails_with 2 "prompt" "$bin/foray" profile -m $m
check "--compare of one file" fails_with 2 "two files" "$bin/foray" profile --compare a
echo '{"format": 1}' >"$tmp/bad.json"
check "a file that is no report" fails_with 1 "not a profile" "$bin/foray" profile --compare "$tmp/bad.json" "$tmp/bad.json"
if have_model $m; then
  profile() { "$bin/foray" profile -q -m $m -c 256 -n 6 --device "$1" --save "$tmp/$1.json" --svg "$tmp/$1.svg" --trace "$tmp/$1.trace" 'Why is the sky blue?' >"$tmp/$1.txt"; }
  for d in cpu hls; do
    check "profile on $d" profile $d
    check "table of $d names the parts" grep -qE '^ffn_down +[0-9]+' "$tmp/$d.txt"
    check "time in ops is most of the time on $d" jq -e '.time_in_ops > 0.5 * .time and .time_in_ops <= .time' "$tmp/$d.json"
    check "six tokens on $d" jq -e '.drafted == 6 and ([.exits[].tokens] | add) == 6' "$tmp/$d.json"
    check "bytes of $d are its counters" jq -e '.bytes == ([.counters | to_entries[] | select(.key | endswith("_BYTES")) | .value] | add)' "$tmp/$d.json"
    check "trace of $d" jq -e '[.traceEvents[] | select(.ph == "X" and .tid == 2)] | length == 6' "$tmp/$d.trace"
    check "picture of $d" grep -q '</svg>' "$tmp/$d.svg"
  done
  # both devices run the same program, so they move the same bytes
  check "the same bytes on both" [ "$(jq .bytes "$tmp/cpu.json")" = "$(jq .bytes "$tmp/hls.json")" ]
  check "comparison" bash -c "'$bin/foray' profile --compare '$tmp/cpu.json' '$tmp/hls.json' | grep -qE '^ffn_up +[0-9.]+ +[0-9.]+ +[+-]'"
else
  skip "$m is not on this machine"
fi
finish
