#!/usr/bin/env bash
# The service across restarts: commit log after SIGKILL, sockets from the service manager, readiness, SIGTERM.
set -u
. "$(dirname "$0")/lib.sh"
m=smollm2-135m-instruct
have_model $m || { skip "$m is not on this machine"; finish; }
sock=$tmp/sock pid=
wait_for() { for _ in $(seq 600); do grep -q "$1" "$2" && return 0; sleep 0.05; done; cat "$2"; return 1; }
start() {
  : >"$tmp/log"
  "$bin/forayd" -m $m --unix "$sock" --http 0 --journal "$tmp/journal" -t 2 2>"$tmp/log" & pid=$!
  wait_for weights "$tmp/log" || return 1
  url=http://127.0.0.1:$(sed -n 's/.*HTTP on .* port \([0-9]*\).*/\1/p' "$tmp/log")
}
gen() { "$bin/foray" generate -m $m --cloud "unix:$sock" -n 160 --ignore-eos -q -p 'Write a long story about a ferry.' "$@" </dev/null; }
metric() { curl -sS "$url/metrics" | sed -n "s/^$1{[^}]*} //p"; }

check "start" start
gen --plain >"$tmp/want"
killed() { # SIGKILL in the middle: the new server knows the session from the log
  gen --plain >"$tmp/got" 2>"$tmp/gen.err" & local g=$!
  for _ in $(seq 600); do [ "$(stat -c %s "$tmp/got")" -gt 60 ] && break; sleep 0.02; done
  kill -KILL "$pid"; wait "$pid" 2>/dev/null
  start || return 1
  wait $g || { cat "$tmp/gen.err"; return 1; }
  cmp "$tmp/want" "$tmp/got" || return 1
  [ "$(metric foray:sessions_restored_total)" -ge 1 ] || { echo "nothing came from the log"; return 1; }
  [ "$(metric foray:sessions_resumed_total)" -ge 1 ] || { echo "the session was sent anew"; return 1; }
}
check "killed, taken over from the commit log" killed
check "the log is for its owner" bash -c "[ \$(stat -c %a '$tmp/journal') = 600 ]"
check "one server owns a log" fails_with 1 "locked" "$bin/forayd" -m $m --unix "$tmp/sock2" --journal "$tmp/journal" -q
check "a closed session leaves the log" bash -c "kill -TERM $pid; while kill -0 $pid 2>/dev/null; do sleep 0.05; done; [ \"\$(sqlite3 '$tmp/journal' 'select count(*) from sessions')\" = 0 ]"
wait $pid 2>/dev/null

# The service manager holds the ports and hears when the model is loaded.
cat >"$tmp/manager.py" <<'P'
import os, socket, sys
def listener():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(16); return s
edge, http = listener(), listener()
note = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); note.bind(sys.argv[1] + "/notify"); note.settimeout(60)
pid = os.fork()
if pid == 0:
    a, b = os.dup(edge.fileno()), os.dup(http.fileno())
    os.dup2(a, 3); os.dup2(b, 4)
    os.environ.update(LISTEN_FDS="2", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="edge:http", NOTIFY_SOCKET=sys.argv[1] + "/notify")
    os.execv(sys.argv[2], sys.argv[2:])
edge_port, http_port = edge.getsockname()[1], http.getsockname()[1]
print(edge_port, http_port, pid, note.recv(64).decode(), flush=True)
print(note.recv(64).decode(), flush=True)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
P
python3 "$tmp/manager.py" "$tmp" "$bin/forayd" -m $m -q -t 2 >"$tmp/manager" 2>"$tmp/manager.err" & mpid=$!
check "ready is said" wait_for READY=1 "$tmp/manager"
read -r eport hport pid _ <"$tmp/manager"
check "the HTTP socket is inherited" bash -c "curl -sS http://127.0.0.1:$hport/health | grep -q ok"
check "the edge socket too" bash -c "[ \"\$('$bin/foray' generate --plain --tokenizer $m --cloud 127.0.0.1:$eport -n 160 --ignore-eos -q -p 'Write a long story about a ferry.' </dev/null)\" = \"\$(cat '$tmp/want')\" ]"
kill -TERM "$pid"
check "stopping is said" wait_for STOPPING=1 "$tmp/manager"
wait $mpid
check "and it ends well" bash -c "[ \"\$(tail -1 '$tmp/manager')\" = 0 ]"
finish
