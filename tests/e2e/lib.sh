# Shared by the e2e tests: `check NAME COMMAND...` runs one check; `finish` prints the sum.
# shellcheck shell=bash
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=$PWD/build/release/bin
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0
check() {
  local name=$1
  shift
  if "$@" >"$tmp/out" 2>"$tmp/err"; then passed=$((passed + 1)); else
    failed=$((failed + 1))
    echo "FAILED $name: $*"
    cat "$tmp/out" "$tmp/err" | tail -20
  fi
}
# fails_with STATUS TEXT COMMAND...: the command ends with STATUS and says TEXT on stderr.
fails_with() {
  local want=$1 text=$2 rc=0
  shift 2
  "$@" >"$tmp/fw.out" 2>"$tmp/fw.err" </dev/null || rc=$?
  [ "$rc" -eq "$want" ] && grep -qF -- "$text" "$tmp/fw.err" && return 0
  echo "status $rc, wanted $want with: $text"
  cat "$tmp/fw.err"
  return 1
}
skip() { skipped=$((skipped + 1)); echo "SKIPPED: $*"; }
have_model() { [ -e "${XDG_CACHE_HOME:-$HOME/.cache}/foray/models/$1.gguf" ]; }
finish() {
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
}
