#!/usr/bin/env bash
# SIGKILL forayd in the middle of a generation, start it again: the text is the one of an undisturbed run. On a Unix
# socket with a restart by hand, and with spawn:, where the client restarts its own.
set -u
. "$(dirname "$0")/lib.sh"
m=smollm2-135m-instruct
have_model $m || { skip "$m is not on this machine"; finish; }
sock=$tmp/sock
pid=
start() {
  "$bin/forayd" -m $m --unix "$sock" -q -t 2 & pid=$!
  for _ in $(seq 300); do [ -S "$sock" ] && return 0; sleep 0.1; done
  return 1
}
gen() { "$bin/foray" generate -m $m --cloud "unix:$sock" -n 96 --ignore-eos -q "$@" -p 'Write a long story about a ferry.' </dev/null; }

undisturbed() { start && gen "$@" >"$tmp/want" && kill -TERM "$pid" && wait "$pid"; }

killed() { # generates while forayd is killed twice; at least one kill must fall into the generation
  start || return 1
  gen "$@" >"$tmp/got" 2>"$tmp/gen.err" & local g=$! kills=0
  for _ in 1 2; do
    for _ in $(seq 600); do [ "$(stat -c %s "$tmp/got")" -gt $((40 + 100 * kills)) ] && break; sleep 0.02; done
    kill -0 $g 2>/dev/null || break
    kill -KILL "$pid"; wait "$pid" 2>/dev/null
    kills=$((kills + 1))
    start || return 1
  done
  wait $g || { cat "$tmp/gen.err"; return 1; }
  kill -TERM "$pid"; wait "$pid"
  [ $kills -ge 1 ] || { echo "the generation ended before forayd was killed"; return 1; }
  cmp "$tmp/want" "$tmp/got"
}
for how in "--plain" "--temp 0.8 --top-p 0.95 --repeat-penalty 1.1 --seed 5 --policy fixed"; do
  # shellcheck disable=SC2086
  check "undisturbed $how" undisturbed $how
  # shellcheck disable=SC2086
  check "killed $how" killed $how
done

spawned() {
  "$bin/foray" generate -m $m -n 96 --ignore-eos -q --temp 1 --seed 11 --policy fixed -p 'Write a long story about a ferry.' </dev/null >"$tmp/want" || return 1
  "$bin/foray" generate -m $m -n 96 --ignore-eos -q --temp 1 --seed 11 --policy fixed -p 'Write a long story about a ferry.' </dev/null >"$tmp/got" 2>"$tmp/gen.err" & local g=$! k=0
  for _ in $(seq 900); do [ "$(stat -c %s "$tmp/got")" -gt 40 ] && break; sleep 0.02; done
  k=$(pgrep -P $g forayd) && kill -KILL "$k" || { echo "no forayd to kill"; return 1; }
  wait $g || { cat "$tmp/gen.err"; return 1; }
  cmp "$tmp/want" "$tmp/got"
}
check "spawned forayd killed" spawned
finish
