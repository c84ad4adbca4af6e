#!/usr/bin/env bash
# A LoRA step (rank 8 on all matrices, AdamW) here and in PyTorch on the same GGUF file: same threads, precision, batch.
# The two run in turn; the table shows the median of the pairwise ratios. BENCH_MODELS, BENCH_PAIRS (3), BENCH_KINDS
# (bf16 f32), TRAIN_VENV change it.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${TRAIN_VENV:-build/train-venv} cache=${XDG_CACHE_HOME:-$HOME/.cache}/foray/models
models=${BENCH_MODELS:-smollm2-135m-instruct qwen2.5-coder-0.5b-instruct} pairs=${BENCH_PAIRS:-3} kinds=${BENCH_KINDS:-bf16 f32}
seqs=${BENCH_SEQS:-4} len=${BENCH_LEN:-128} steps=${BENCH_STEPS:-3} threads=${BENCH_THREADS:-2}
make -s build/release/perf/train_probe
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --no-deps --require-hashes -r tests/train/requirements.txt
fi
median() { sort -g | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }
echo "| model | precision | checkpointing | foray, tokens/s | PyTorch, tokens/s | speed ratio | foray, MiB | PyTorch, MiB | memory ratio |"
echo "|---|---|---|---|---|---|---|---|---|"
for m in $models; do
  [ -e "$cache/$m.gguf" ] || build/release/bin/foray pull "$m" >&2
  for k in $kinds; do
    for c in ${BENCH_CHECKPOINT:-0}; do
      a=() b=() r=() ma=0 mb=0
      for _ in $(seq "$pairs"); do
        x=$(build/release/perf/train_probe bench "$cache/$m.gguf" "$([ "$k" = bf16 ] && echo amx || echo f32)" "$threads" 8 "$seqs" "$len" "$steps" "$c")
        y=$("$venv/bin/python" -W ignore tests/train/bench_torch.py "$cache/$m.gguf" "$k" "$threads" 8 "$seqs" "$len" "$steps" "$c")
        a+=("$(jq .tokens_per_s <<<"$x")") b+=("$(jq .tokens_per_s <<<"$y")")
        ma=$(jq .peak_mib <<<"$x") mb=$(jq .peak_mib <<<"$y")
        r+=("$(jq -n "${a[-1]} / ${b[-1]}")")
      done
      printf '| %s | %s | %s | %s | %s | %.2f | %s | %s | %.2f |\n' "$m" "$k" "$c" "$(printf '%s\n' "${a[@]}" | median)" \
        "$(printf '%s\n' "${b[@]}" | median)" "$(printf '%s\n' "${r[@]}" | median)" "$ma" "$mb" "$(jq -n "$ma / $mb")"
    done
  done
done
