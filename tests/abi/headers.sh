#!/bin/sh
# SPDX-License-Identifier: MIT
# headers.sh - each public header compiles alone, as strict C99 and C11 and as C++11, and needs
# nothing but <stddef.h> and <stdint.h>.
set -eu
src=${PATCHBAY_SRC:-$(cd "$(dirname "$0")/../.." && pwd)}
warn="-Wall -Wextra -Wpedantic -Wconversion -Werror"
for h in "$src"/include/patchbay/*.h; do
    for std in c99 c11; do
        # shellcheck disable=SC2086 # a list of flags
        ${CC:-cc} -std=$std $warn -Wno-unused-function -I"$src/include" -fsyntax-only -x c \
            -include "$h" /dev/null
    done
    if command -v "${CXX:-c++}" >/dev/null 2>&1; then
        # shellcheck disable=SC2086
        ${CXX:-c++} -std=c++11 $warn -Wno-unused-function -I"$src/include" -fsyntax-only -x c++ \
            -include "$h" /dev/null
    fi
done
if grep -hE '^#include' "$src"/include/patchbay/*.h |
    grep -vE '<(patchbay/[a-z]+|stddef|stdint)\.h>'; then
    echo "a public header includes something else"
    exit 1
fi
