#!/bin/sh
# SPDX-License-Identifier: MIT
# constraints.sh - on a real small model: answers match the pattern, the grammar, the schema, and are
# the same under every attention, scheduler and speculation.
set -u
pb=$(cd "${PATCHBAY_BUILD:-.}" && pwd)/patchbay
src=$(cd "${PATCHBAY_SRC:-.}" && pwd)
model=${PATCHBAY_DATA:-$src/../shared/data}/models/stories260K/stories260K.gguf
[ -x "$pb" ] || { echo "$pb is not built"; exit 1; }
[ -r "$model" ] || { echo "skipped: $model is absent"; exit 77; }
command -v python3 >/dev/null || { echo "skipped: python3 checks the answers"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
cat >"$work/r.jsonl" <<'R'
{"prompt": "Once upon a time", "temperature": 0}
{"prompt": "Lily and Tom and Lily and Tom and", "temperature": 0}
{"prompt": "The dog", "temperature": 1, "seed": 3}
{"prompt": "A big red", "temperature": 2, "seed": 4}
R
cat >"$work/check.py" <<'P'
import json, re, sys
kind, tests = sys.argv[1], {
    "regex": lambda s: re.fullmatch(r"[A-Z][a-z]+( [a-z]+){3,8}\.", s),
    "grammar": lambda s: re.fullmatch(r" ?(\(*[a-z]+\)*, ){2}\(*[a-z]+\)*\.", s) and s.count("(") == s.count(")"),
    "json": lambda s: (lambda d: set(d) == {"name", "legs"} and len(d["name"]) <= 20 and type(d["legs"]) is int)(json.loads(s)),
}
bad = [r["text"] for r in json.load(sys.stdin)["requests"]
       if r["finish_reason"] != "stop" or not tests[kind](r["text"])]
sys.exit("not valid: %r" % bad if bad else 0)
P
ids() { python3 -c 'import json, sys; print([r["output_ids"] for r in json.load(open(sys.argv[1]))["requests"]])' "$1"; }
for kind in regex grammar json; do
    first=
    for how in attention=contiguous attention=hash attention=radix scheduler=static \
        scheduler=chunked spec=ngram; do
        set -- --set "$how" --set sampler=chain
        test $kind != regex || set -- "$@" --set 'constraint.regex.pattern=[A-Z][a-z]+( [a-z]+){3,8}\.'
        if ! "$pb" run -c "$src/conf/$kind.ini" -m "$model" -f "$work/r.jsonl" -n 200 "$@" --json \
            >"$work/out" 2>"$work/err"; then
            echo "FAIL: $kind $how: $(cat "$work/err")"
            failed=1
            continue
        fi
        python3 "$work/check.py" $kind <"$work/out" || { echo "FAIL: $kind $how"; failed=1; }
        now=$(ids "$work/out")
        first=${first:-$now}
        test "$now" = "$first" || { echo "FAIL: $kind: $how gives other tokens"; failed=1; }
    done
done
exit $failed
