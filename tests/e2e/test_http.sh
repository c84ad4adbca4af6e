#!/usr/bin/env bash
# The OpenAI API of forayd and of foray serve: the openai client, raw curl, limits, cancel, drain.
set -u
. "$(dirname "$0")/lib.sh"
m=smollm2-135m-instruct
have_model $m || { skip "$m is not on this machine"; finish; }
make -s venv-openai >"$tmp/venv.log" 2>&1 || { skip "no openai client: $(tail -1 "$tmp/venv.log")"; finish; }
py=build/venv-openai/bin/python
sock=$tmp/sock
"$bin/forayd" -m $m --unix "$sock" --http 0 -t 2 2>"$tmp/forayd.log" & pid=$!
wait_for() { for _ in $(seq 600); do grep -q "$1" "$2" && return 0; sleep 0.05; done; cat "$2"; return 1; }
wait_for 'weights' "$tmp/forayd.log" || exit 1
port=$(sed -n 's/.*HTTP on .* port \([0-9]*\).*/\1/p' "$tmp/forayd.log")
url=http://127.0.0.1:$port
want=$("$bin/foray" generate --plain --tokenizer $m --cloud "unix:$sock" -n 24 -q -p 'Why is the sky blue?' </dev/null)

client() { # the script counts its own checks
  "$py" tests/api/client.py "$@" >"$tmp/client.out" 2>&1
  local rc=$? p f
  read -r p f < <(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$tmp/client.out")
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0}))
  [ $rc -eq 0 ] && return
  [ "${f:-0}" -gt 0 ] || failed=$((failed + 1))
  tail -20 "$tmp/client.out"
}
client "$url" $m "$want"

c() { curl -sS --max-time 60 "$@"; }
status() { local want=$1; shift; local got; got=$(c -o "$tmp/body" -w '%{http_code}' "$@"); [ "$got" = "$want" ] || { echo "$got instead of $want"; cat "$tmp/body"; return 1; }; }
check "health" status 200 "$url/health"
check "tokenize and back" bash -c "t=\$(curl -sS '$url/tokenize' -d '{\"content\":\"a ferry, crossing\"}'); curl -sS '$url/detokenize' -d \"\$t\" | grep -qF '{\"content\":\"a ferry, crossing\"}'"
check "props" bash -c "curl -sS '$url/props' | jq -e '.default_generation_settings.n_ctx == 4096'"
check "template" bash -c "curl -sS '$url/apply-template' -d '{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}' | jq -e '.prompt | test(\"im_start\")'"
check "body too large" bash -c "head -c 5000000 /dev/zero | curl -sS --max-time 20 -o /dev/null -w '%{http_code}' '$url/v1/completions' --data-binary @- | grep -q 413"
check "deep JSON" status 400 "$url/v1/completions" -d "$(printf '[%.0s' $(seq 100000))"
check "no such path" status 404 "$url/x"
check "X-Request-Id comes back" bash -c "curl -sSi '$url/health' -H 'X-Request-Id: abc' | grep -qi '^X-Request-Id: abc'"
# Every sample belongs to a family that was announced, and the names are vLLM's.
metrics() {
  c "$url/metrics" >"$tmp/metrics" || return 1
  awk '/^# TYPE/ {t[$3] = 1; next} /^#/ {next} {n = $1; sub(/\{.*/, "", n); b = n; sub(/_(bucket|sum|count)$/, "", b); if (!t[n] && !t[b]) {print "not announced: " n; bad = 1}} END {exit bad}' "$tmp/metrics" || return 1
  for n in vllm:num_requests_running vllm:num_requests_waiting vllm:prompt_tokens_total vllm:generation_tokens_total vllm:time_to_first_token_seconds_bucket vllm:inter_token_latency_seconds_sum vllm:spec_decode_num_accepted_tokens_total foray:verify_batch_size_bucket foray:drafts_wasted_total foray:link_bytes_total; do
    grep -q "^$n{" "$tmp/metrics" || { echo "missing $n"; return 1; }
  done
}
check "metrics" metrics
dashboard() { # and the alerts of the manual: nothing is asked for that is not there
  local n bad=0
  for n in $(grep -ohE '(vllm|foray):[a-z_]+[a-z]' cloud/deploy/grafana/foray.json docs/operations.md | sort -u); do
    grep -q "^$n[{_]" "$tmp/metrics" || { echo "no metric $n"; bad=1; }
  done
  return $bad
}
check "dashboard and manual" dashboard

# The edge: drafts here, verified by the same forayd; acceptance by exit reaches the cloud's metrics too.
"$bin/foray" serve -m $m --cloud "unix:$sock" --http 0 -t 1 2>"$tmp/serve.log" & spid=$!
wait_for 'http://' "$tmp/serve.log" || exit 1
surl=$(sed -n 's/^foray serve: \(.*\)\/v1$/\1/p' "$tmp/serve.log")
client "$surl" $m "$want" edge
check "acceptance by exit, at the edge" bash -c "curl -sS '$surl/metrics' | grep -qE '^foray:exit_accepted_total\{.*exit=\"[0-9]+\",layer=\"[0-9]+\"\} [1-9]'"
check "acceptance by exit, at the cloud" bash -c "curl -sS '$url/metrics' | grep -qE '^foray:exit_accepted_total\{.*\} [1-9]'"
kill -TERM $spid
check "foray serve ends with SIGTERM" wait $spid

# SIGTERM drains: what is under way is answered whole, nothing new is taken.
c -N "$url/v1/completions" -d '{"prompt":"Once upon a time","max_tokens":60,"temperature":0,"ignore_eos":true,"stream":true}' >"$tmp/stream" & curl_pid=$!
for _ in $(seq 200); do [ -s "$tmp/stream" ] && break; sleep 0.02; done
kill -TERM $pid
check "the stream under way is whole" bash -c "wait $curl_pid 2>/dev/null; for i in \$(seq 400); do grep -q DONE '$tmp/stream' && exit 0; sleep 0.05; done; exit 1"
check "forayd ends" wait $pid
check "nobody listens any more" bash -c "! curl -s --max-time 2 '$url/health'"
finish
