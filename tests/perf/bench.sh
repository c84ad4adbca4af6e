#!/usr/bin/env bash
# Speed of the target engine as ratios against llama.cpp (llama-cpp-python, pinned in requirements.txt) on the same file, with
# two threads on both sides. The two run in turn, A B A B ..., and the table shows the median of the pairwise ratios, so that
# a noisy machine disturbs both alike. `make bench` runs this; BENCH_MODELS, BENCH_PAIRS (default 5) and
# BENCH_RECORD=FILE (append the rows as CSV) change it.
set -euo pipefail
cd "$(dirname "$0")/../.."
models=${BENCH_MODELS:-qwen2.5-coder-1.5b-instruct}
pairs=${BENCH_PAIRS:-5}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/foray/models
venv=${BENCH_VENV:-build/bench-venv}
bench=build/release/perf/bench_engine
make -s "$bench"

model_path() {
  if [[ -e $1 ]]; then echo "$1"; else
    [[ -e $cache/$1.gguf ]] || build/release/bin/foray pull "$1" >&2
    echo "$cache/$1.gguf"
  fi
}

# The peer is built from source for this processor. Some builds crash in its own AMX code: then it is built without.
peer_build() { # $1 = extra compiler flags
  local flags="-DCMAKE_C_FLAGS=$1 -DCMAKE_CXX_FLAGS=$1"
  CMAKE_ARGS="$flags" "$venv/bin/pip" install -q --force-reinstall --no-cache-dir --no-binary llama-cpp-python \
    --require-hashes -r tests/perf/requirements.txt
}
first=$(model_path "${models%% *}")
if [[ ! -x $venv/bin/python ]]; then
  python3 -m venv "$venv"
  echo "building the peer (llama-cpp-python) in $venv: some minutes" >&2
  peer_build ""
fi
if ! "$venv/bin/python" tests/perf/peer_llama.py "$first" smoke 2>/dev/null; then
  echo "the peer crashes on this processor; building it without AMX" >&2
  peer_build "-mno-amx-int8"
  "$venv/bin/python" tests/perf/peer_llama.py "$first" smoke
fi

echo "| model | work | foray, ms | llama.cpp, ms | speed ratio (median of $pairs pairs) |"
echo "|---|---|---|---|---|"
for name in $models; do
  path=$(model_path "$name")
  for work in "decode 1 64" "verify 4 64" "verify 8 64" "verify 16 64" "prefill 512 0"; do
    ours=() theirs=()
    for ((i = 0; i < pairs; i++)); do
      # shellcheck disable=SC2086
      ours+=("$("$bench" --threads 2 "$path" $work)")
      # shellcheck disable=SC2086
      theirs+=("$("$venv/bin/python" tests/perf/peer_llama.py "$path" $work 2>/dev/null)")
    done
    python3 - "$name" "$work" "${BENCH_RECORD:-}" "${#ours[@]}" "${ours[@]}" "${theirs[@]}" <<'PY'
import datetime, json, os, platform, statistics, sys
name, work, record, n = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
rows = [json.loads(x)["median"] for x in sys.argv[5:]]
ours, theirs = rows[:n], rows[n:]
ratio = statistics.median(t / o for o, t in zip(ours, theirs))
a, b = statistics.median(ours) * 1e3, statistics.median(theirs) * 1e3
print(f"| {name} | {work.split()[0]} {work.split()[1]} | {a:.1f} | {b:.1f} | {ratio:.2f} |", flush=True)
if record:
    new = not os.path.exists(record)
    with open(record, "a") as f:
        if new:
            f.write("date,machine,model,work,foray_ms,llama_ms,ratio\n")
        f.write(f"{datetime.date.today()},{platform.machine()}-{os.cpu_count()},{name},{work.split()[0]} {work.split()[1]},{a:.2f},{b:.2f},{ratio:.3f}\n")
PY
  done
done
for name in $models; do
  echo
  echo "Memory, $name: $("$bench" --threads 2 "$(model_path "$name")" load)"
done
