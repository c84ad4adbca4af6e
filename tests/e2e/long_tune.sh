#!/usr/bin/env bash
# foray-tune exits on SmolLM2: two runs of one command give the same file, also when one was stopped on the way.
set -eu
bin=${FORAY_BIN:-build/current/bin}/foray-tune
w=$(mktemp -d); trap 'rm -rf "$w"' EXIT
run() { "$bin" exits --tokens 6000 --slots 48 --ctx 224 --layers 18,24 --rank 4 --first 12 --steps 12 --warmup 2 --batch 512 \
  --ridge-tokens 1500 --eval-tokens 300 --threads 2 --work "$w/$1" --out "$w/$1.gguf" smollm2-135m-instruct; }
run a >"$w/a.log"
mkdir "$w/b"; cp "$w/a/text" "$w/b/text"
run b >"$w/b.log" & pid=$!
for _ in $(seq 600); do grep -q '^step ' "$w/b.log" && break; sleep 0.2; done
kill -INT "$pid" 2>/dev/null || true
wait "$pid" && rc=0 || rc=$?
[ "$rc" -eq 130 ] || [ "$rc" -eq 0 ] || { echo "stopped run ended with $rc"; exit 1; }
[ "$rc" -eq 0 ] || run b >>"$w/b.log"
cmp "$w/a.gguf" "$w/b.gguf"
echo "long_tune: 1 passed, 0 failed"
