#!/usr/bin/env bash
# cotune_data.sh DIR: two small domains as JSON lines, the same on every machine: sums with their way, and colours to be
# found in a sentence. Training and dev examples differ.
set -eu
mkdir -p "$1"
awk -v dir="$1" '
function put(file, p, c) { printf "{\"prompt\": \"%s\", \"completion\": \"%s\"}\n", p, c > (dir "/" file) }
BEGIN {
  split("red green blue white black yellow brown grey", colour, " ")
  split("house river stone garden window table boat flower", thing, " ")
  for (i = 0; i < 92; i++) {
    set = i < 80 ? "train" : "dev"
    a = 3 + (i * 37) % 89; b = 2 + (i * 53) % 61
    put("sums-" set ".jsonl", "Anna has " a " apples and gets " b " more. How many does she have?", \
        "She has " a " + " b " = " a + b " apples.\\n#### " a + b)
    x = 1 + i % 8; y = 1 + (i * 3 + 5) % 8; if (x == y) y = y % 8 + 1
    u = 1 + int(i / 8) % 8; v = 1 + (int(i / 8) + 3 + i % 3) % 8
    put("colours-" set ".jsonl", "The " thing[x] " is " colour[u] " and the " thing[y] " is " colour[v] ". What colour is the " thing[y] "?", \
        "the " thing[y] " is " colour[v])
  }
}'
