#!/bin/sh
# SPDX-License-Identifier: MIT
# tools/summary.sh BUILD... - names the tests that ran in these build folders and counts them.
set -eu
passed=0 failed=0 skipped=0
for b in "$@"; do
    for t in $(cd "$b" && find . -name '*.trs' | sort); do
        result=$(sed -n 's/^:global-test-result: //p' "$b/$t")
        name=${t#./}
        name=${name%.trs}
        case $result in
        PASS | XFAIL) passed=$((passed + 1)) ;;
        SKIP) skipped=$((skipped + 1)) ;;
        *) failed=$((failed + 1)) ;;
        esac
        why=
        [ "$result" = SKIP ] && why="  ($(grep -h -m1 -i skip "$b/${t%.trs}.log" 2>/dev/null || true))"
        echo "$result $b/$name$why"
    done
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
