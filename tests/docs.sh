#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/docs.sh - the code of docs/writing-a-plugin.md compiles without a warning and lints clean.
set -u
src=${PATCHBAY_SRC:?run by make check} build=${PATCHBAY_BUILD:?run by make check}
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
sed -n '/^```c$/,/^```$/p' "$src/docs/writing-a-plugin.md" | grep -v '^```' >"$work/shortest.c"
test "$(wc -l <"$work/shortest.c")" -gt 100 || { echo "the page has hardly any code"; exit 1; }
${CC:-cc} -std=c11 -O1 -Wall -Wextra -Werror -fPIC -shared -fvisibility=hidden -Wl,-z,defs \
    -I"$src/include" -o "$work/scheduler-shortest.so" "$work/shortest.c" || exit 1
"$build/patchbay" lint --strict "$work/scheduler-shortest.so" || exit 1
