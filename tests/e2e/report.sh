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

# ---- a bundle goes to another machine, the verdict holds there or does not
"$pb" compare base.ini 'a<i>&.ini' --with backend.step_us=1500 -f requests.jsonl \
    --bundle b.pbz >out 2>&1 || fail "compare ended with $?: $(cat out)"
mkdir elsewhere
(cd elsewhere && "$pb" compare --replay ../b.pbz >out 2>&1) || fail "replay ended with $?: $(cat elsewhere/out)"
grep -q 'the verdict holds' elsewhere/out || fail "the replay does not say that it holds"
grep -q ' was ' elsewhere/out && fail "on the virtual clock a replay differs: $(cat elsewhere/out)"
sed 's/"verdict":"slower"/"verdict":"faster"/g' b.pbz >lie.pbz
cmp -s b.pbz lie.pbz && fail "there is no verdict to falsify"
"$pb" compare --replay lie.pbz >out 2>&1
[ $? = 12 ] || fail "a falsified verdict holds: $(cat out)"
grep -q 'was faster.*is slower' out || fail "the verdict that changed is not named: $(cat out)"
sed 's/"hash":"[0-9a-f]*"/"hash":"0"/' b.pbz >other.pbz
"$pb" compare --replay other.pbz >out 2>&1 || fail "another build of a plugin ended with $?"
grep -q 'is another build' out || fail "another build of a plugin is not named: $(cat out)"
head -c 2000 b.pbz >cut.pbz
for f in cut.pbz requests.jsonl base.ini nothere.pbz; do
    "$pb" compare --replay $f >out 2>&1
    rc=$?
    [ $rc = 2 ] || [ $rc = 3 ] || [ $rc = 6 ] || fail "replay of $f ended with $rc: $(cat out)"
    grep -q "$f" out || fail "the bundle $f is not named: $(cat out)"
done
sed 's/"max_epochs":[0-9]*/"max_epochs":-1/' b.pbz >limits.pbz
"$pb" compare --replay limits.pbz >out 2>&1 && fail "-1 epochs were run"
grep -q 'its options' out || fail "-1 epochs are not refused for that: $(cat out)"

browser=$(command -v chromium || command -v chromium-browser || true)
if [ -n "$browser" ]; then
    HOME=$work timeout 60 "$browser" --headless --no-sandbox --disable-gpu --enable-logging=stderr \
        --screenshot="$work/page.png" --window-size=1000,3000 "file://$work/out.html" >log 2>&1 ||
        { echo "the browser does not run here: $(tail -1 log)"; exit 0; }
    grep -q 'CONSOLE' log && fail "the browser complains: $(grep CONSOLE log)"
    [ -s page.png ] || fail "the browser shows nothing"
fi
echo "report: all good"
