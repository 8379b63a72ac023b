#!/bin/sh
# SPDX-License-Identifier: MIT
# static.sh OUT.o SYMBOL INPUT... - makes one relocatable object of a plugin's objects: .lo, and
# convenience .la (-l belongs to the program's link, see static.inc). The descriptor pb_plugin_v0
# becomes SYMBOL, every other symbol becomes local: plugins that were built from the same helper
# files do not clash.
set -e
out=$1 symbol=$2
shift 2
inputs=
for f in "$@"; do
    case $f in
    -*) continue ;;
    esac
    dir=$(dirname "$f") base=$(basename "$f")
    case $f in
    *.lo) inputs="$inputs $dir/.libs/${base%.lo}.o" ;;
    *.la) inputs="$inputs --whole-archive $dir/.libs/${base%.la}.a --no-whole-archive" ;;
    *.o) inputs="$inputs $f" ;;
    *) ;;
    esac
done
# shellcheck disable=SC2086 # LD and the inputs are lists of words
${LD:-ld} -r -o "$out.tmp" $inputs
"${OBJCOPY:-objcopy}" --redefine-sym pb_plugin_v0="$symbol" --keep-global-symbol="$symbol" \
    "$out.tmp" "$out"
rm -f "$out.tmp"
