#!/bin/sh
# SPDX-License-Identifier: MIT
# report.sh - the page of a comparison: complete, self-contained, escaped, and without an error
# in a real browser where there is one. Runs on the virtual clock.
set -u
pb=$(cd "${PATCHBAY_BUILD:-.}" && pwd)/patchbay
[ -x "$pb" ] || { echo "$pb is not built"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
fail() { echo "FAIL: $*"; exit 1; }

printf '[pipeline]\nmax_seqs = 1\n[weights]\nplugin = synthetic\n[backend]\nplugin = sim\nstep_us = 1000\n' >base.ini
printf '[pipeline]\nbase = base.ini\n[attention]\nplugin = hash\n' >'a<i>&.ini'
for i in 1 2 3; do
    echo '{"ids": [5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22], "max_tokens": 8, "ignore_eos": true}'
done >requests.jsonl
"$pb" compare base.ini 'a<i>&.ini' --with backend.step_us=1500 -f requests.jsonl \
    --report out.html --json >out.json 2>err || fail "compare ended with $?: $(cat err)"

grep -q '<i>' out.html && fail "a name of a file is markup"
grep -q 'a&lt;i&gt;&amp;.ini' out.html || fail "the arm is not named"
grep -qiE 'https?://|<script|src=' out.html && fail "the page asks for something from outside"
for words in 'the same tokens and logits' 'class=slower>slower' 'backend.step_us' '<svg' \
    'share of answers whose TTFT' 'base against itself'; do
    grep -qF "$words" out.html || fail "the page lacks: $words"
done
[ "$(grep -o '<svg' out.html | wc -l)" -eq "$(grep -o '</svg>' out.html | wc -l)" ] ||
    fail "a figure does not end"
grep -qE '[^a-z](nan|inf)[^a-z]' out.html && fail "a number is none: $(grep -oE '.{20}[^a-z](nan|inf)[^a-z].{20}' out.html | head -3)"
"$pb" compare base.ini base.ini -f requests.jsonl --epochs 1 --report none/out.html >out 2>&1 &&
    fail "a report that cannot be written is no error"
grep -q 'none/out.html' out || fail "the file that cannot be written is not named: $(cat out)"

browser=$(command -v chromium || command -v chromium-browser || true)
if [ -n "$browser" ]; then
    HOME=$work timeout 60 "$browser" --headless --no-sandbox --disable-gpu --enable-logging=stderr \
        --screenshot="$work/page.png" --window-size=1000,3000 "file://$work/out.html" >log 2>&1 ||
        { echo "the browser does not run here: $(tail -1 log)"; exit 0; }
    grep -q 'CONSOLE' log && fail "the browser complains: $(grep CONSOLE log)"
    [ -s page.png ] || fail "the browser shows nothing"
fi
echo "report: all good"
