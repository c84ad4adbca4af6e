#!/usr/bin/env bash
# install.sh BUILD_DIR: programs, static library, public headers, pkg-config file, man pages, completions and the
# shipped exit files, under $DESTDIR$PREFIX.
set -eu
b=$1 root="${DESTDIR:-}${PREFIX:?}"
install -d "$root/bin" "$root/lib/pkgconfig" "$root/include/foray" "$root/share/man/man1" \
  "$root/share/bash-completion/completions" "$root/share/foray/exits" "$root/share/doc/foray"
install -m755 "$b"/bin/* "$root/bin/"
install -m644 host/include/foray/*.h "$root/include/foray/"
install -m644 README.md LICENSE docs/*.md "$root/share/doc/foray/"

# One archive for integrators: the layers below the tools.
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
libs=(core model proto dev rt tls net api)
{ echo "create $tmp/libforay.a"; for l in "${libs[@]}"; do [ -e "$b/lib$l.a" ] && echo "addlib $b/lib$l.a"; done; echo save; echo end; } | ar -M
install -m644 "$tmp/libforay.a" "$root/lib/"
cat >"$root/lib/pkgconfig/foray.pc" <<PC
prefix=$PREFIX
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: foray
Description: Edge drafting and cloud verification of language models
Version: $VERSION
Requires: libcrypto libssl jansson libpcre2-8 libcurl libprotobuf-c libevent libevent_openssl zlib
Libs: -L\${libdir} -lforay -lm -pthread
Cflags: -I\${includedir}
PC

shopt -s nullglob
for f in "$b"/devices/*.so; do install -D -m644 "$f" "$root/lib/foray/devices/$(basename "$f")"; done
if [ -e "$b/xrt/foray.xclbin" ]; then # the XRT simulation, where make sim-xrt has built it
  mkdir -p "$root/lib/foray"
  cp -a "$b/xrt" "$root/lib/foray/"
fi
install -D -m644 drivers/pcie/60-foray.rules "$root/share/foray/60-foray.rules"
for f in cloud/train/shipped/*.gguf; do install -m644 "$f" "$root/share/foray/exits/"; done
for f in docs/man/*.[1-9]; do install -D -m644 "$f" "$root/share/man/man${f##*.}/$(basename "$f")"; done
for tool in "$b"/bin/*; do
  name=$(basename "$tool")
  "$tool" --man >"$root/share/man/man1/$name.1" 2>/dev/null || rm -f "$root/share/man/man1/$name.1"
done
for c in $("$b/bin/foray" --list-commands); do "$b/bin/foray" "$c" --man >"$root/share/man/man1/foray-$c.1"; done
install -m644 tests/build/foray-completion.bash "$root/share/bash-completion/completions/foray"
install -d "$root/share/foray/deploy"
install -m644 cloud/deploy/forayd.* cloud/deploy/grafana/foray.json "$root/share/foray/deploy/"
ln -sf foray "$root/share/bash-completion/completions/forayd"
ln -sf foray "$root/share/bash-completion/completions/foray-tune"
echo "installed foray $VERSION into $root"
