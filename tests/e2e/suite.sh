#!/bin/sh
# SPDX-License-Identifier: MIT
#
# tests/e2e/suite.sh - compare on workloads and as a suite, as a user calls it: every pair of
# conf/article runs and has the tokens that it declares; a bundle of a workload replays; mistakes in
# a suite are named with file and line.
set -eu
patchbay=$PATCHBAY_BUILD/patchbay
conf=$PATCHBAY_SRC/conf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() {
	echo "FAIL: $*" >&2
	exit 1
}

"$patchbay" compare --suite "$conf/article" --set weights=synthetic --epochs 1 \
	--workload-set requests=6 --report "$dir/s.html" >"$dir/s.md" || [ $? = 11 ] || fail "suite: $?"
[ "$(grep -c '| the same |\|| NEVER ENGAGED |' "$dir/s.md")" = 5 ] || fail "not 5 equal: $(cat "$dir/s.md")"
grep -q 'Shorter output.*| others, as declared |' "$dir/s.md" || fail "shorter output"
grep -q 'not measured: plugins of slot parallel' "$dir/s.md" || fail "what is missing is not said"
[ "$(grep -c '<h1>' "$dir/s.html")" = 7 ] || fail "not 7 headings in the page"

# both arms get the workload's requests, drawn anew in each round, and a bundle gives them again
"$patchbay" compare "$conf/synthetic.ini" --with attention=radix -w "$conf/workloads/multi-turn.ini" \
	--workload-set requests=8 --workload-set think_ms=0 --epochs 1 --rounds 2 --json \
	--bundle "$dir/b.pbz" >"$dir/a.json" || fail "workload: $?"
"$patchbay" compare --replay "$dir/b.pbz" --json >"$dir/b.json" || fail "replay: $?"
for f in a b; do
	tr ',' '\n' <"$dir/$f.json" | grep -o '"prompt_tokens": [0-9]*' >"$dir/$f.tokens"
	[ -s "$dir/$f.tokens" ] || fail "no prompt tokens"
	grep -q '"timeline"' "$dir/$f.json" || fail "no timeline"
done
diff "$dir/a.tokens" "$dir/b.tokens" >&2 || fail "the replay had other requests"

mkdir "$dir/bad"
printf '[x]\nclaim = c\nbefroe = a.ini\n' >"$dir/bad/suite.ini"
set +e
"$patchbay" compare --suite "$dir/bad" 2>"$dir/e"
[ $? = 2 ] && grep -q 'suite.ini:3: unknown key "befroe"; did you mean "before"' "$dir/e" ||
	fail "$(cat "$dir/e")"
printf '[x]\nclaim = c\nbefore = a.ini\nafter = b.ini\nworkload = w.ini\nmetric = speed\n' >"$dir/bad/suite.ini"
"$patchbay" compare --suite "$dir/bad" 2>"$dir/e"
[ $? = 2 ] && grep -q 'metric = speed: requests_per_s' "$dir/e" || fail "$(cat "$dir/e")"
exit 0
