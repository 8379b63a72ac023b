#!/bin/bash
# SPDX-License-Identifier: MIT
# complete.sh - what bash offers after some words.
set -u
src=$(cd "${PATCHBAY_SRC:-.}" && pwd)
PATH=$(cd "${PATCHBAY_BUILD:-.}" && pwd):$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
touch a.ini b.ini model.gguf
# shellcheck disable=SC1091
. "$src/completions/patchbay.bash"
failed=0

# offers WANT NOT WORD...: the last word is being typed; WANT must be offered, NOT must not
offers() {
    local want=$1 not=$2
    shift 2
    COMP_WORDS=(patchbay "$@")
    COMP_CWORD=$#
    _patchbay
    local all=" ${COMPREPLY[*]} "
    [[ -z $want || $all == *" $want "* ]] && [[ -z $not || $all != *" $not "* ]] ||
        { echo "FAIL: after 'patchbay $*' are offered:$all(expected $want, not $not)"; failed=1; }
}
offers compare scheduler ''
offers compare check com
offers --model --cache run --
offers --cache --prompt-file compare --
offers a.ini model.gguf run -c ''
offers model.gguf '' run -m ''
offers natural '' compare --cache n
offers attention-paged backend-cpu help attention-p
offers attention '' run --calls a
offers b.ini '' diff a.ini b
[ $failed = 0 ] && echo "complete: all good"
exit $failed
