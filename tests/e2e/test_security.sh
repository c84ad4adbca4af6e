#!/usr/bin/env bash
# Who gets in: TLS, certificates, tokens, enrolment, revocation without a restart, brute force, addresses, settings files.
set -u
. "$(dirname "$0")/lib.sh"
m=smollm2-135m-instruct
have_model $m || { skip "$m is not on this machine"; finish; }
export XDG_CONFIG_HOME=$tmp/config
dir=$tmp/tls
wait_for() { for _ in $(seq 600); do grep -q "$1" "$2" && return 0; sleep 0.05; done; cat "$2"; return 1; }

# ---- before anything runs
check "init" "$bin/forayd" init "$dir" --name cloud.test
check "a CA is never replaced" fails_with 1 "is there already" "$bin/forayd" init "$dir"
check "keys are for the owner only" bash -c "[ \$(stat -c %a '$dir/ca.key') = 600 ] && [ \$(stat -c %a '$dir/server.key') = 600 ]"
check "certificates verify" openssl verify -CAfile "$dir/ca.crt" "$dir/server.crt" "$dir/client.crt"
check "the world needs TLS" fails_with 1 "--tls DIR" "$bin/forayd" -m $m --host 0.0.0.0
check "the world's HTTP needs TLS" fails_with 1 "--tls DIR" "$bin/forayd" -m $m --http 0.0.0.0:0
check "the world needs a name" fails_with 1 "--client-certs required" "$bin/forayd" -m $m --host 0.0.0.0 --tls "$dir"
chmod 644 "$dir/server.key"
check "a readable key is refused" fails_with 1 "can be read by others" "$bin/forayd" -m $m --port 0 --tls "$dir"
chmod 600 "$dir/server.key"
printf 'model = %s\nport = 0\nhttp = 0\ntls = %s\ntokens = %s/tokens\nthreads = 2\n' $m "$dir" "$dir" >"$tmp/forayd.conf"
check "check-config" "$bin/forayd" check-config "$tmp/forayd.conf"
printf 'model = x\nprot = 1\n' >"$tmp/bad.conf"
check "check-config names the line" fails_with 2 "bad.conf, line 2: there is no setting 'prot'" "$bin/forayd" check-config "$tmp/bad.conf"
printf 'model = x\nport = 70000\n' >"$tmp/bad.conf"
check "check-config checks ranges" fails_with 2 "70000" "$bin/forayd" check-config "$tmp/bad.conf"

if command -v systemd-analyze >/dev/null; then # the unit's exposure: 13 of 100 when it was written
  check "the unit is sandboxed" systemd-analyze --offline=true security --threshold=20 cloud/deploy/forayd.service
fi
check "the example settings are settings" fails_with 1 "/etc/foray/tls" "$bin/forayd" check-config cloud/deploy/forayd.conf

# ---- a server that asks
token() { "$bin/forayd" token add "$@" --tls "$dir"; }
edge=$(token board1 --scope edge) api=$(token laptop --scope api) seen=$(token watch --scope metrics)
check "secrets are not kept" bash -c "! grep -qF '$edge' '$dir/tokens' && grep -q '^board1 [0-9a-f]\{64\} edge 0' '$dir/tokens'"
"$bin/forayd" --config "$tmp/forayd.conf" 2>"$tmp/log" & pid=$!
wait_for weights "$tmp/log" || exit 1
port=$(sed -n 's/.*listening on .* port \([0-9]*\), TLS.*/\1/p' "$tmp/log")
hport=$(sed -n 's/.*HTTP on .* port \([0-9]*\), TLS.*/\1/p' "$tmp/log")
url=https://localhost:$hport
gen() { "$bin/foray" generate --plain --tokenizer $m -n 8 -q -p 'Why is the sky blue?' "$@" </dev/null; }
want=$(build/release/bin/foray generate --plain -m $m -n 8 -q -p 'Why is the sky blue?' </dev/null)
same() { [ "$(gen "$@")" = "$want" ]; }

mkdir -p "$tmp/with_token" "$tmp/stranger" "$tmp/nothing"
cp "$dir/ca.crt" "$tmp/with_token/"; echo "$edge" >"$tmp/with_token/token"
cp "$dir/ca.crt" "$tmp/nothing/"
"$bin/forayd" init "$tmp/other" --client admin >/dev/null
cp "$tmp/other/client.crt" "$tmp/other/client.key" "$tmp/stranger/"; cp "$dir/ca.crt" "$tmp/stranger/"
check "a certificate gets in" same --cloud "tls:localhost:$port" --cloud-tls "$dir"
check "a token gets in" same --cloud "tls:127.0.0.1:$port" --cloud-tls "$tmp/with_token"
check "nobody in particular does not" fails_with 1 "a valid token or certificate is needed" gen --cloud "tls:localhost:$port" --cloud-tls "$tmp/nothing"
check "a stranger's certificate does not" fails_with 1 "cloud" gen --cloud "tls:localhost:$port" --cloud-tls "$tmp/stranger"
check "another server is not believed" fails_with 1 "not believed" gen --cloud "tls:localhost:$port" --cloud-tls "$tmp/other"
check "an API token is no edge token" env FORAY_TOKEN="$api" bash -c ". tests/e2e/lib.sh; fails_with 1 'a valid token' $bin/foray generate --plain --tokenizer $m -n 4 -q -p x --cloud tls:localhost:$port --cloud-tls $tmp/nothing"
check "plain TCP finds nothing there" bash -c "timeout 3 '$bin/foray' generate --plain --tokenizer $m -n 4 -q -p x --cloud tcp:127.0.0.1:$port; [ \$? -eq 124 ]" # it tries again

c() { curl -sS --max-time 30 --cacert "$dir/ca.crt" "$@"; }
status() { local want=$1; shift; local got; got=$(c -o "$tmp/body" -w '%{http_code}' "$@"); [ "$got" = "$want" ] || { echo "$got instead of $want"; cat "$tmp/body"; return 1; }; }
check "health is open" status 200 "$url/health"
check "the API is not" status 401 "$url/v1/models"
check "with a token it is" status 200 -H "Authorization: Bearer $api" "$url/v1/models"
check "or a certificate" status 200 --cert "$dir/client.crt" --key "$dir/client.key" "$url/v1/models"
check "metrics need their scope" status 401 -H "Authorization: Bearer $api" "$url/metrics"
check "and have it" status 200 -H "Authorization: Bearer $seen" "$url/metrics"
check "only TLS 1.3" bash -c "! curl -sS --max-time 5 --cacert '$dir/ca.crt' --tls-max 1.2 '$url/health'"
early() { echo | openssl s_client -connect "localhost:$hport" -CAfile "$dir/ca.crt" -tls1_3 -sess_out "$tmp/sess" >"$tmp/s1" 2>&1; grep -q 'Max Early Data: 0' "$tmp/s1" || ! grep -q 'Max Early Data: [1-9]' "$tmp/s1"; }
check "no early data" early
check "HTTP port without TLS says nothing" bash -c "! curl -sS --max-time 5 'http://localhost:$hport/health'"

# ---- enrolment
read -r enroll print < <(token board7 --scope enroll | tr '\n' ' ' | sed 's/fingerprint of the CA: //')
check "enroll checks the fingerprint" fails_with 1 "fingerprint" "$bin/foray" enroll "localhost:$hport" --token "$enroll" --fingerprint "$(printf '%064d' 0)" --dir "$tmp/b7"
check "enroll checks the token" fails_with 1 "scope enroll" "$bin/foray" enroll "localhost:$hport" --token "$api" --fingerprint "$print" --dir "$tmp/b7"
check "enroll" "$bin/foray" enroll "localhost:$hport" --token "$enroll" --fingerprint "$print" --dir "$tmp/b7"
check "it works once" fails_with 1 "scope enroll" "$bin/foray" enroll "localhost:$hport" --token "$enroll" --fingerprint "$print" --dir "$tmp/b8"
check "the board has the name of its token" bash -c "openssl x509 -in '$tmp/b7/client.crt' -noout -subject | grep -q 'board7'"
check "the enrolled board gets in" same --cloud "tls:localhost:$port" --cloud-tls "$tmp/b7"

# ---- revocation, reload: without a restart
check "revoke" "$bin/forayd" token revoke board1 --tls "$dir"
check "a revoked token is out" fails_with 1 "a valid token" gen --cloud "tls:localhost:$port" --cloud-tls "$tmp/with_token"
echo board7 >"$dir/revoked"
check "a revoked certificate is out" fails_with 1 "a valid token" gen --cloud "tls:localhost:$port" --cloud-tls "$tmp/b7"
check "the others are in" same --cloud "tls:localhost:$port" --cloud-tls "$dir"
old=$(c --cert "$dir/client.crt" --key "$dir/client.key" -v "$url/health" 2>&1 | grep -c 'TLSv1.3')
cp "$dir/server.crt" "$tmp/keep.crt"; echo rubbish >"$dir/server.crt"
kill -HUP $pid
check "a bad certificate changes nothing" wait_for "the old certificates stay" "$tmp/log"
cp "$tmp/keep.crt" "$dir/server.crt"
kill -HUP $pid
check "reload" wait_for "forayd: reloaded" "$tmp/log"
check "and it goes on" same --cloud "tls:localhost:$port" --cloud-tls "$dir"
[ "$old" -gt 0 ] || echo "note: curl did not say which TLS"

# ---- brute force: ten wrong tokens of an address are heard, then even a right one is not
for i in $(seq 11); do c -o /dev/null -H "Authorization: Bearer wrong$i" "$url/v1/models"; done
check "who guesses is shut out" status 401 -H "Authorization: Bearer $api" "$url/v1/models"
kill -TERM $pid
check "forayd ends" wait $pid

# ---- limits of connections, at and over; plain TCP on this machine needs nobody's name
"$bin/forayd" -m $m --port 0 --conns-per-address 2 -t 1 2>"$tmp/log2" & pid=$!
wait_for weights "$tmp/log2" || exit 1
port=$(sed -n 's/.*listening on .* port \([0-9]*\).*/\1/p' "$tmp/log2")
held() { # two stay, the third is closed at once
  exec 5<>"/dev/tcp/127.0.0.1/$port" 6<>"/dev/tcp/127.0.0.1/$port" 7<>"/dev/tcp/127.0.0.1/$port" || return 1
  local rc=0
  read -r -t 5 -u 7; [ $? -eq 1 ] || { echo "the third was not closed"; rc=1; }
  read -r -t 0.5 -u 6; [ $? -gt 128 ] || { echo "the second was closed"; rc=1; }
  exec 5>&- 6>&- 7>&-
  return $rc
}
check "connections of one address are limited" held
check "and come back" same --cloud "127.0.0.1:$port"
kill -TERM $pid
wait $pid
finish
