#!/usr/bin/env bash
# Edge device cpu against llama.cpp on the same file, both with 2 threads, in turns: tests/perf/cpu_device.sh
# [MODEL [ROUNDS]]. PEER = a Python with llama-cpp-python 0.3.36; PREFIX_CMD = put before each measured command
# (for instance `chrt -r 1` on a busy machine). `make build/release/perf/bench_cpu_device` first.
set -eu
MODEL=${1:-qwen2.5-coder-0.5b-instruct}
ROUNDS=${2:-3}
PEER=${PEER:-python3}
GGUF=${XDG_CACHE_HOME:-$HOME/.cache}/foray/models/$MODEL.gguf
HERE=$(dirname "$0")
for _ in $(seq "$ROUNDS"); do
  ${PREFIX_CMD:-} "$PEER" "$HERE/peer_decode.py" "$GGUF" 48
  ${PREFIX_CMD:-} build/release/perf/bench_cpu_device --quick "$MODEL" decode 48
done
