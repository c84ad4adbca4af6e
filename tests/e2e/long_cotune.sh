#!/usr/bin/env bash
# Co-tuning on real models: a dst run that is killed goes on to the same adapter; a comparison of every algorithm is
# interrupted and goes on; the raw text is in no byte that crosses.
set -eu
cd "$(dirname "$0")/../.."
tune=${FORAY_BIN:-build/release/bin}/foray-tune w=build/cotune-small passed=0
for m in smollm2-135m-instruct gemma3-270m; do
  [ -e "${XDG_CACHE_HOME:-$HOME/.cache}/foray/models/$m.gguf" ] || build/release/bin/foray pull "$m"
done
rm -rf "$w"; bash tests/e2e/cotune_data.sh "$w"
dst() { "$tune" dst --data "$w/sums-train.jsonl" --steps 8 --batch 2 --max-tokens 80 --save-every 1 --drop 0.1 --out "$w/$1" smollm2-135m-instruct; }
dst whole >/dev/null
for _ in 1 2; do
  dst killed >/dev/null & pid=$!
  for _ in $(seq 200); do [ -e "$w/killed/checkpoint.safetensors" ] && break; sleep 0.1; done
  sleep 1; kill -KILL $pid 2>/dev/null || true; wait $pid || true
done
dst killed >/dev/null
cmp "$w/whole/adapter_model.safetensors" "$w/killed/adapter_model.safetensors" && passed=$((passed + 1))
"$tune" show "$w/whole" && passed=$((passed + 1))
timeout -s INT 60 "$tune" compare --config tests/e2e/cotune-small.toml >/dev/null 2>&1 || true
"$tune" compare --config tests/e2e/cotune-small.toml 2>"$w/log"
for f in md csv svg; do [ -s "$w/work/compare.$f" ] && passed=$((passed + 1)); done
"$tune" run --config tests/e2e/cotune-small.toml --algorithm coplm --work "$w/wire" --wire-log "$w/wire.bin" >"$w/run.log"
if grep -qaE "apples|colour|river" "$w/wire.bin"; then echo "text crossed"; else passed=$((passed + 1)); fi
[ "$passed" -eq 6 ]
echo "$passed passed, 0 failed"
