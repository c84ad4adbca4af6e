#!/usr/bin/env bash
# make install into an empty folder; a stranger's C and C++ programs build against it with pkg-config.
set -u
. "$(dirname "$0")/lib.sh"
check "make install" make install DESTDIR="$tmp/root" PREFIX=/usr
root=$tmp/root/usr
check "programs" test -x "$root/bin/foray" -a -x "$root/bin/forayd" -a -x "$root/bin/foray-tune"
check "man pages" test -s "$root/share/man/man1/foray-generate.1" -a -s "$root/share/man/man1/forayd.1"
check "installed program runs" "$root/bin/foray" --version
export PKG_CONFIG_PATH=$root/lib/pkgconfig
flags=$(pkg-config --define-variable=prefix="$root" --cflags foray) libs=$(pkg-config --define-variable=prefix="$root" --libs foray)
for f in docs/examples/*.c; do
  name=$(basename "$f" .c)
  # shellcheck disable=SC2086
  check "$name builds as C" gcc -std=c11 -Wall -Wextra -Werror $flags -o "$tmp/$name" "$f" $libs
  # shellcheck disable=SC2086
  check "$name builds as C++" g++ -std=c++17 -Wall -Wextra -Werror -x c++ $flags -o "$tmp/$name-cpp" "$f" -x none $libs
  if have_model smollm2-135m-instruct; then
    check "$name runs" env PATH="$root/bin:$PATH" timeout 300 "$tmp/$name" smollm2-135m-instruct
  else skip "$name needs smollm2-135m-instruct"; fi
done
finish
