#!/usr/bin/env bash
# demo.sh smollm2|coder: fetches the pair, drafts at the edge, verifies in the cloud, compares with plain decoding.
set -eu
cd "$(dirname "$0")/../.."
pair=${1:-smollm2}
case $pair in
  smollm2) edge=smollm2-135m-instruct cloud=smollm2-135m-instruct size="98 MB"
    prompt="What is a lighthouse, and why do ships need one?" ;;
  coder) edge=qwen2.5-coder-0.5b-instruct cloud=qwen2.5-coder-1.5b-instruct size="1.6 GB"
    prompt="Write a C function that reverses a singly linked list, and explain it." ;;
  *) echo "demo: PAIR=$pair is unknown; use smollm2 or coder" >&2; exit 2 ;;
esac
bin=build/release/bin
echo
echo "Foray demo: $edge drafts on this machine's 'cpu' device, in integers;"
echo "$cloud verifies in a process of its own (forayd)."
echo "Models: $size, fetched once."
echo
for m in $(printf '%s\n' "$edge" "$cloud" | sort -u); do "$bin/foray" pull "$m"; done
printf '\n> %s\n\n' "$prompt"
"$bin/foray" generate -m "$edge" --cloud "spawn:$cloud" --policy maxprob -n "${TOKENS:-160}" --check --color "${COLOR:-auto}" -p "$prompt"
echo
if [ "$pair" = smollm2 ]; then
  echo "Both sides ran the same small model here. Next, a 0.5B model that drafts for a 1.5B one: make demo PAIR=coder"
else
  echo "Your own prompt: $bin/foray chat -m $edge --cloud spawn:$cloud"
fi
