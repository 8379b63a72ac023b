#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/new.sh - `patchbay new` for each slot that has a skeleton: it builds without a warning,
# lints clean and is taken by an INI; wrong names and existing folders are refused.
set -u
src=${PATCHBAY_SRC:?run by make check} build=${PATCHBAY_BUILD:?run by make check}
patchbay=$build/patchbay
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 99
bad=0
for slot in attention scheduler sampler constraint spec output kernels; do
    "$patchbay" new $slot-mine >/dev/null || { echo "new $slot-mine fails"; bad=1; continue; }
    ${CC:-cc} -std=c11 -O1 -ffp-contract=off -Wall -Wextra -Werror -fPIC -shared -fvisibility=hidden \
        -Wl,-z,defs -I"$src/include" -o "$work/$slot-mine.so" $slot-mine/mine.c -lm || { bad=1; continue; }
    "$patchbay" lint "$work/$slot-mine.so" >log 2>&1 || { cat log; bad=1; }
    PATCHBAY_PLUGIN_PATH=$work:$build/.libs "$patchbay" check $slot-mine/mine.ini >log 2>&1 ||
        { cat log; bad=1; }
    grep -q '@' $slot-mine/mine.c && { echo "$slot: a word was not replaced"; bad=1; }
done
refuse() {
    want=$1
    shift
    out=$("$patchbay" new "$@" 2>&1)
    rc=$?
    test $rc = 2 || { echo "new $*: exit $rc, expected 2"; bad=1; }
    echo "$out" | grep -q "$want" || { echo "new $*: $out; expected '$want'"; bad=1; }
}
refuse 'exists' sampler-mine
refuse 'no slot' shampoo-mine
refuse 'not SLOT-NAME' sampler
refuse 'a-z' sampler-Mine
refuse 'no skeleton' backend-mine
refuse 'which plugin'
exit $bad
