#!/usr/bin/env bash
# run.sh BINARY...: runs benches; those in a folder *-bug have a seeded bug and must fail by a difference.
set -u
bad=0
for b in "$@"; do
  name=$(basename "$(dirname "$b")")
  out=$("$b" 2>&1); rc=$?
  if [[ $name == *-bug ]]; then
    if [ $rc -eq 1 ] && grep -qi 'fail\|differ' <<<"$out"; then echo "rtl $name: seeded bug caught"; else echo "rtl $name: seeded bug NOT caught"; bad=1; fi
  else
    echo "rtl $name: $(tail -3 <<<"$out")"
    [ $rc -eq 0 ] || bad=1
  fi
done
exit $bad
