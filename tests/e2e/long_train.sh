#!/usr/bin/env bash
# The trainer against PyTorch, peft and llama.cpp on the same GGUF files: gradients of every LoRA matrix of all three
# architectures, and adapters that the others load. TRAIN_VENV names a Python environment that has them; else one is made
# from tests/train/requirements.txt (about 3 GB).
set -eu
cd "$(dirname "$0")/../.."
venv=${TRAIN_VENV:-build/train-venv}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/foray/models
make -s build/release/perf/train_probe
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --no-deps --require-hashes -r tests/train/requirements.txt
fi
for m in smollm2-135m-instruct gemma3-270m qwen2.5-coder-0.5b-instruct; do
  [ -e "$cache/$m.gguf" ] || build/release/bin/foray pull "$m"
done
"$venv/bin/python" -W ignore tests/train/check_gradients.py build/release/perf/train_probe "$cache"/{smollm2-135m-instruct,gemma3-270m,qwen2.5-coder-0.5b-instruct}.gguf
"$venv/bin/python" -W ignore tests/train/check_adapters.py build/release/perf/train_probe "$cache/smollm2-135m-instruct.gguf"
echo "5 passed, 0 failed"
