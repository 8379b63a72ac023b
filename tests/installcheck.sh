#!/bin/sh
# SPDX-License-Identifier: MIT
#
# tests/installcheck.sh - what a plugin author has after `make install` and nothing else: the
# examples build out of tree against the installed headers and pkg-config file, pass lint, and
# work in an INI; test plugins were not installed. Run it by `make check-install`.
#
# arguments: make, cc, bindir, libdir, pkglibdir
set -eu
src=${PATCHBAY_SRC:?run by make check-install} build=${PATCHBAY_BUILD:?run by make check-install}
make=$1 CC=$2 bindir=$3 libdir=$4 pkglibdir=$5
export CC
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
unset PATCHBAY_PLUGIN_PATH MAKEFLAGS || :

step() { echo "== $*"; }
fail() {
    echo "installcheck: $*" >&2
    exit 1
}

step "install into a folder"
(cd "$build" && $make -s install DESTDIR="$root" >"$root/log" 2>&1) || { tail -20 "$root/log"; fail "make install"; }
PATH=$root$bindir:$PATH
# the installed tree is not at its prefix, so both are told where it is
PKG_CONFIG_PATH=$root$libdir/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root
export PATH PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
for p in constraint-mask output-force attention-nocopy; do
    test ! -e "$root$pkglibdir/$p.so" || fail "$p.so, a plugin for tests, was installed"
done
test -e "$root$pkglibdir/sampler-greedy.so" || fail "sampler-greedy.so was not installed"

step "build the examples out of tree"
cp -R "$src/examples" "$root/examples"
chmod -R u+w "$root/examples"
for d in hello-plugin hello-kernel; do
    flags=$(pkg-config --cflags patchbay-plugin)
    case $flags in *"$src"*) fail "pkg-config names the source tree: $flags" ;; esac
    $make -s -C "$root/examples/$d" || fail "examples/$d does not build"
done
lines=$(wc -l <"$root/examples/hello-plugin/hello.c")
test "$lines" -lt 60 || fail "hello-plugin has $lines lines; it is to stay under 60"

step "lint them"
hello=$root/examples/hello-plugin kernel=$root/examples/hello-kernel
patchbay lint --strict "$hello/scheduler-hello.so" "$kernel/kernels-hello.so" || fail "lint"

step "find, explain and check them"
PATCHBAY_PLUGIN_PATH=$hello:$kernel:$root$pkglibdir
export PATCHBAY_PLUGIN_PATH
patchbay plugins >"$root/plugins"
grep -q 'hello' "$root/plugins" || fail "patchbay plugins does not show hello"
patchbay help scheduler-hello | grep -q held_back || fail "patchbay help does not show its counter"
patchbay check "$hello/hello.ini" "$kernel/hello.ini" || fail "patchbay check"

step "run them"
cd "$root"
for i in 1 2 3 4 5 6; do echo "{\"ids\": [$i, 7, 11, 13, $i], \"max_tokens\": 12}"; done >requests.jsonl
# run PIPELINE OUT: all answers' ids, one line
run() {
    patchbay run -c "$1" -f requests.jsonl --ignore-eos --json >"$2" || fail "patchbay run -c $1"
    tr -d ' \n' <"$2" | grep -o '"output_ids":\[[0-9,]*\]' | tr '\n' ' '
}
plain=$(run "$hello/batched.ini" batched.json)
solo=$(run "$hello/hello.ini" hello.json)
echo "$solo" | cut -c1-70
test "$(echo "$solo" | wc -w)" -eq 6 || fail "not six answers: $solo"
test "$plain" = "$solo" || fail "tokens differ: $plain, with hello $solo"
tr -d ' \n' <hello.json | grep -q '"held_back"[^}]*[1-9]' || fail "hello's counter shows no effect"
rows=$(run "$kernel/plain.ini" plain.json)
mine=$(run "$kernel/hello.ini" kernel.json)
test "$rows" = "$mine" || fail "hello-kernel changes tokens: $rows, with it $mine"
tr -d ' \n' <kernel.json | grep -q '"slot":"kernels"\|"kernels"' || fail "hello-kernel is not in the answer"
# a product with other bits is refused by name before it reaches an answer
mkdir wrong
sed 's/float acc = 0;/float acc = 1e-3f;/' "$kernel/hello.c" >wrong/hello.c
cmp -s wrong/hello.c "$kernel/hello.c" && fail "the planted fault changes nothing"
cp "$kernel/Makefile" wrong/
$make -s -C wrong
PATCHBAY_PLUGIN_PATH=$root/wrong:$root$pkglibdir patchbay run -c "$kernel/hello.ini" -f requests.jsonl \
    >wrong/out 2>&1 && fail "a kernel with other bits was used"
grep -q 'q4_0_q8_hello' wrong/out || fail "a kernel with other bits is not named: $(cat wrong/out)"

step "compare them"
patchbay compare "$hello/batched.ini" "$hello/hello.ini" -f requests.jsonl --json >compare.json ||
    fail "patchbay compare"
tr -d ' \n' <compare.json >compare
grep -q '"same_tokens":true' compare || fail "the comparison does not see equal tokens"
grep -q '"never_engaged":\[\]' compare || fail "the comparison says that something never engaged"
ttft=$(grep -o '"ttft_ms":{"ratio".*' compare | grep -o '"verdict":"[a-z]*"' | head -1)
test "$ttft" = '"verdict":"slower"' || fail "one sequence at a time: TTFT has the $ttft"
# with one request nobody is held back: that is said, not called a tie
head -1 requests.jsonl >one.jsonl
rc=0
patchbay compare "$hello/batched.ini" "$hello/hello.ini" -f one.jsonl --epochs 1 >one 2>&1 || rc=$?
test $rc -ne 0 || fail "a difference that never engaged ends with exit 0"
grep -q 'hello' one || fail "a difference that never engaged is not named"
# a kernel: its products are counted; with weights of another type it has nothing to do
patchbay compare "$kernel/plain.ini" "$kernel/hello.ini" -f one.jsonl --rounds 2 --json >rows.json ||
    fail "patchbay compare with hello-kernel"
tr -d ' \n' <rows.json | grep -q '"never_engaged":\[\]' || fail "hello-kernel's products are not seen"
rc=0
patchbay compare "$kernel/plain.ini" "$kernel/hello.ini" --set weights.type=q8_0 -f one.jsonl \
    --rounds 2 >idle 2>&1 || rc=$?
test $rc -ne 0 || fail "a kernel that never ran ends with exit 0"
grep -q 'NEVER ENGAGED.*hello.*plugin_row_ops' idle || fail "a kernel that never ran is not named: $(cat idle)"
echo "installcheck: all good"
