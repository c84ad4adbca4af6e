#!/usr/bin/env bash
# deps.sh PACKAGE...: installs the Debian packages that are missing. Idempotent; asks for nothing when all
# are there. DRY=1 prints the command instead of running it.
set -eu
if ! command -v dpkg-query >/dev/null; then
  echo "deps: this is not Debian or Ubuntu; install the equivalents of: $*" >&2
  exit 1
fi
missing=()
for p in "$@"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null || true)" = installed ] || missing+=("$p")
done
if [ ${#missing[@]} -eq 0 ]; then
  if [ -n "${DRY:-}" ]; then echo "deps: nothing is missing"; fi
  exit 0
fi
run=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null; then run=(sudo); else
    echo "deps: these packages are missing and neither root nor sudo is at hand: ${missing[*]}" >&2
    exit 1
  fi
fi
if [ -n "${DRY:-}" ]; then
  echo "${run[*]:+${run[*]} }apt-get install -y --no-install-recommends ${missing[*]}"
  exit 0
fi
echo "deps: installing ${missing[*]}"
log=$(mktemp)
if ! { "${run[@]}" apt-get update -q && \
  "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -20 "$log" >&2
  echo "deps: apt-get failed (whole output: $log)" >&2
  exit 1
fi
rm -f "$log"
