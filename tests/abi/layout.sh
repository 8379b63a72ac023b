#!/bin/sh
# SPDX-License-Identifier: MIT
# layout.sh [--update] - the layout of every public struct equals tests/abi/layout.txt. After a
# wanted change raise PB_ABI_MINOR in include/patchbay/plugin.h and run it with --update.
set -eu
src=${PATCHBAY_SRC:-$(cd "$(dirname "$0")/../.." && pwd)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
want=$src/tests/abi/layout.txt
awk -f "$src/tests/abi/layout.awk" "$src"/include/patchbay/*.h >"$work/layout.c"
${CC:-cc} -std=c99 -I"$src/include" -o "$work/layout" "$work/layout.c"
"$work/layout" >"$work/layout.txt"
if [ "$(grep -c '^pb_' "$work/layout.txt")" -lt 50 ]; then
    echo "layout.awk found fewer than 50 public structs: it no longer understands the headers"
    exit 1
fi
head -n 1 "$work/layout.txt" | grep -q 'pointers 8$' || { echo "not an LP64 machine"; exit 77; }
cmp -s "$work/layout.txt" "$want" && exit 0
same_abi=no
if [ -f "$want" ] && [ "$(head -n 1 "$want")" = "$(head -n 1 "$work/layout.txt")" ]; then
    same_abi=yes
fi
if [ "${1-}" = --update ] && [ "$same_abi" = no ]; then
    cp "$work/layout.txt" "$want"
    exit 0
fi
echo "the layout of public structs changed:"
diff "$want" "$work/layout.txt" || true
if [ "$same_abi" = yes ]; then
    echo "raise PB_ABI_MINOR in include/patchbay/plugin.h; plugins that exist would misread them"
fi
echo "then run: sh tests/abi/layout.sh --update"
exit 1
