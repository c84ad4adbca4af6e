#!/usr/bin/env bash
# layers.sh 'lib:folder:allowed layers'...: every quoted include of a library names a folder that it may see,
# and <foray/...> is the only angle-bracket include of ours. The compiler enforces the same through build/inc;
# this check also covers files that are not compiled here and says which rule was broken.
set -u
bad=0 files=0
for row in "$@"; do
  IFS=: read -r lib dir allowed <<<"$row"
  [ -d "$dir" ] || continue
  while IFS= read -r f; do
    files=$((files + 1))
    while IFS=: read -r line inc; do
      inc=$(sed -E 's/.*#[ \t]*include[ \t]*"([^"]+)".*/\1/' <<<"$inc")
      top=${inc%%/*}
      [ "$top" = "$inc" ] && { [ -e "$dir/$inc" ] || [[ $inc == *.pb-c.h ]] || { echo "$f:$line: \"$inc\": name it by its folder"; bad=1; }; continue; }
      case " $allowed " in *" $top "*) ;; *) echo "$f:$line: layer '$lib' may not include \"$inc\" (allowed: $allowed)"; bad=1 ;; esac
    done < <(grep -nE '^[ \t]*#[ \t]*include[ \t]*"' "$f")
  done < <(find "$dir" -maxdepth 1 -name '*.[ch]')
done
# cloud and host meet only in core, model and proto; nothing below the tools sees both sides.
if grep -rnE '#[ \t]*include[ \t]*"(dev|rt|net)/' cloud/ 2>/dev/null; then echo "cloud/ includes a host-side layer"; bad=1; fi
if grep -rnE '#[ \t]*include[ \t]*"(engine|batch|link|train)/' host/ 2>/dev/null; then echo "host/ includes a cloud-side layer"; bad=1; fi
[ $bad -eq 0 ] && echo "layers: $files files respect the order of layers"
exit $bad
