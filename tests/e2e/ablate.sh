#!/bin/sh
# SPDX-License-Identifier: MIT
#
# tests/e2e/ablate.sh - patchbay ablate as a user calls it; and docs/compatibility.md is what running
# every pair of plugins gives today.
set -eu
patchbay=$PATCHBAY_BUILD/patchbay
conf=$PATCHBAY_SRC/conf
PATCHBAY_PLUGIN_PATH=$PATCHBAY_BUILD/.libs # what is shipped: without the plugins of tests
export PATCHBAY_PLUGIN_PATH
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() {
	echo "FAIL: $*" >&2
	exit 1
}

"$PATCHBAY_SRC/tools/compatibility.sh" "$patchbay" "$conf" >"$dir/now.md" || fail "pairs ended with $?"
diff "$PATCHBAY_SRC/docs/compatibility.md" "$dir/now.md" >&2 ||
	fail "docs/compatibility.md is not what runs: make compatibility"

# a factorial of 2 x 2 x 2 with all forms of output; one factor cannot run beside a level
w="$conf/workloads/uniform.ini --workload-set requests=3 --workload-set prompt=9 --workload-set output=4"
# shellcheck disable=SC2086
"$patchbay" ablate "$conf/synthetic.ini" -w $w --epochs 2 --json --report "$dir/a.html" \
	--factors 'attention=paged|radix' 'scheduler=continuous|chunked' 'spec=|ngram' >"$dir/a.json"
grep -q '"format": *"patchbay-ablation/1"' "$dir/a.json" || fail "no document"
[ "$(grep -o '"same_logits": *true' "$dir/a.json" | wc -l)" = 8 ] || fail "not 8 equal cells"
[ "$(grep -o '"with":' "$dir/a.json" | wc -l)" = 3 ] || fail "not 3 interactions"
grep -q '<h1>Ablation</h1>' "$dir/a.html" || fail "no page"

# a refused cell is named with its reason and the others still run
# shellcheck disable=SC2086
"$patchbay" ablate "$conf/synthetic.ini" -w $w --epochs 1 \
	--factors 'attention=paged|radix' 'pipeline.kv_bytes=64M|1K' >"$dir/r.txt"
[ "$(grep -c refused "$dir/r.txt")" = 2 ] || fail "not 2 refused cells: $(cat "$dir/r.txt")"

# 6 factors: a fraction, which says what cannot be told apart
# shellcheck disable=SC2086
"$patchbay" ablate "$conf/synthetic.ini" -w $w --epochs 1 --factors 'attention=paged|radix' \
	'scheduler=continuous|static' 'spec=|ngram' 'pipeline.threads=1|2' 'attention.page_size=16|32' \
	'pipeline.max_rows=64|128' >"$dir/f.txt"
grep -q 'one of 4 cells was run' "$dir/f.txt" || fail "no fraction"
grep -q 'cannot be told from' "$dir/f.txt" || fail "no aliases"

set +e
"$patchbay" ablate "$conf/synthetic.ini" -p x --factors 'attention=paged' 2>"$dir/e"
[ $? = 2 ] && grep -q 'factor attention has one level' "$dir/e" || fail "one level: $(cat "$dir/e")"
"$patchbay" ablate "$conf/synthetic.ini" -p x 2>"$dir/e"
[ $? = 2 ] && grep -q 'no factor' "$dir/e" || fail "no factor: $(cat "$dir/e")"
exit 0
