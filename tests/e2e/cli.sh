#!/bin/sh
# SPDX-License-Identifier: MIT
# cli.sh - the commands that need no model: exit statuses, messages, and that what `show` prints
# is a pipeline that says the same.
set -u
pb=$(cd "${PATCHBAY_BUILD:-.}" && pwd)/patchbay
[ -x "$pb" ] || { echo "$pb is not built"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0

# expect STATUS WORDS COMMAND...: exit status, and WORDS somewhere in the output
expect() {
    want=$1 words=$2
    shift 2
    "$pb" "$@" >out 2>err
    got=$?
    if [ "$got" != "$want" ] || ! grep -qF -- "$words" out err; then
        echo "FAIL: patchbay $*: status $got, expected $want with '$words'; it said:"
        cat out err
        failed=1
    fi
}

cat >base.ini <<'INI'
; a pipeline
[pipeline]
threads = 2
[attention]
plugin = paged
page_size = 32
INI
printf '[pipeline]\nbase = base.ini\n[attention]\nplugin = hash\n' >hash.ini
printf '[atention]\nplugin = paged\n' >section.ini
printf '[attention]\nplugin = paegd\n' >plugin.ini
printf '[attention]\nplugin = paged\npage_sise = 3\n' >key.ini
printf '[attention]\nplugin = paged\npage_size = 0\n' >range.ini
printf '[attention]\nplugin = paged\nplugin = hash\n' >twice.ini
printf '[pipeline]\nbase = b.ini\n' >a.ini
printf '[pipeline]\nbase = a.ini\n' >b.ini

expect 2 "Commands:"
expect 0 "Commands:" help
expect 0 "plugin ABI" --version
expect 2 "did you mean 'show'?" shwo
expect 2 "did you mean --json?" check --jsno base.ini
expect 2 "which pipeline?" check

expect 0 "base.ini: ok" check base.ini hash.ini
expect 2 "section.ini:1: unknown section [atention]; did you mean [attention]?" check section.ini
expect 2 "plugin.ini:2: [attention] plugin = paegd: no plugin 'paegd' for slot attention; did you mean 'paged'?" check plugin.ini
expect 2 "key.ini:3: [attention] page_sise: paged has no such option; did you mean 'page_size'?" check key.ini
expect 2 "range.ini:3: [attention] paged: page_size = 0: allowed is" check range.ini
expect 2 "twice.ini:3: [attention] plugin is set twice; first in line 2" check twice.ini
expect 2 "b.ini:2: base = goes in a circle: a.ini -> b.ini -> a.ini" check a.ini
expect 2 "gone.ini: No such file" check gone.ini
expect 2 '"ok": false' check base.ini gone.ini --json
expect 2 "no plugin 'pagedd'" check base.ini --set attention=pagedd

# broken plugins and such that cannot run here
old_path=${PATCHBAY_PLUGIN_PATH-}
PATCHBAY_PLUGIN_PATH=$old_path:$(dirname "$pb")/tests/broken/.libs
export PATCHBAY_PLUGIN_PATH
expect 4 "sampler-magic.so: symbol pb_plugin_v0 is no plugin descriptor" check base.ini --set sampler=magic
expect 4 "sampler-twin.so: claims to be sampler-good, and so does" check base.ini --set sampler=twin
expect 0 "note: sampler-probe cannot run on this machine: no such device here" check base.ini --set sampler=probe
expect 0 "sampler-probe: no such device here" check base.ini --set sampler=probe --json
expect 0 "broken: " plugins
PATCHBAY_PLUGIN_PATH=$old_path

expect 0 "page_size = 32" show base.ini
expect 0 "base.ini:6" show base.ini
expect 0 '"origin": "--set"' show base.ini --json --set attention.page_size=8
"$pb" show base.ini >first.ini
"$pb" show first.ini >second.ini
sed 's/ *;.*//' first.ini >1
sed 's/ *;.*//' second.ini >2
if ! cmp -s 1 2; then
    echo "FAIL: show of a shown pipeline differs"
    diff 1 2
    failed=1
fi
expect 0 "no difference" diff base.ini base.ini
expect 0 "attention" diff base.ini hash.ini
expect 0 "equal; the same tokens must come out" diff base.ini hash.ini
expect 0 '"same_numeric_key": true' diff --json base.ini hash.ini

expect 0 "attention   paged" plugins
expect 0 '"broken": []' plugins --json
expect 0 "decides which page holds which position" help attention
expect 0 "threads = 0" help pipeline
expect 2 "did you mean 'page_size'?" help attention-paged page_sise
expect 0 "page_size = 16" help attention-paged page_size
expect 0 "usage: patchbay check" help check
expect 2 "no command, slot or plugin 'xyzzy'" help xyzzy

# every plugin explains itself, as text and as a man page that has its name and options
for p in $("$pb" plugins | awk '/^[a-z]/ { print $1 "-" $2 }'); do
    expect 0 "plugin = ${p#*-}" help "$p"
    expect 0 ".SH OPTIONS" help --man "$p"
    if command -v man >/dev/null 2>&1; then
        if man --warnings -E UTF-8 -l -Tutf8 -Z out 2>&1 >/dev/null | grep -q .; then
            echo "FAIL: man page of $p has warnings:"
            man --warnings -E UTF-8 -l -Tutf8 -Z out 2>&1 >/dev/null
            failed=1
        fi
    fi
done
exit $failed
