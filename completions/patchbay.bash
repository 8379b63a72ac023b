# SPDX-License-Identifier: MIT
# bash completion of patchbay. Commands, options and plugins are asked of the program itself, so
# nothing here goes out of date.

_patchbay_options() { # options of a command, from its help
    patchbay help "$1" 2>/dev/null | sed -n 's/^  *\(--[a-z-]*\).*/\1/p'
}

_patchbay_plugins() { # "slot-name" of all plugins
    patchbay plugins 2>/dev/null | sed -n 's/^\([a-z]*\)  *\([a-z0-9_-]*\)  *[0-9].*/\1-\2/p'
}

_patchbay() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$(patchbay help 2>/dev/null |
            sed -n '/^Commands:/,/^$/s/^  *\([a-z]*\)  *.*/\1/p')" -- "$cur")
        return
    fi
    case $prev in
    -c | --config) mapfile -t COMPREPLY < <(compgen -f -X '!*.ini' -- "$cur") ;;
    -m | --model | -f | --file | --ids) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    --cache) mapfile -t COMPREPLY < <(compgen -W 'cold warm natural' -- "$cur") ;;
    --calls) mapfile -t COMPREPLY < <(compgen -W "$(_patchbay_plugins | sed 's/-.*//' | sort -u)" -- "$cur") ;;
    help) mapfile -t COMPREPLY < <(compgen -W "$(_patchbay_plugins)" -- "$cur") ;;
    esac
    [ ${#COMPREPLY[@]} -eq 0 ] || return
    case $cur in
    -*) mapfile -t COMPREPLY < <(compgen -W "$(_patchbay_options "$command")" -- "$cur") ;;
    *) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    esac
}
complete -o filenames -F _patchbay patchbay
