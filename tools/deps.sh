# SPDX-License-Identifier: MIT
#
# tools/deps.sh - sourced by demo, test and .ci/run: installs Debian packages that are missing
# and builds in a folder. Says what it does; a failure ends with a sentence that says what to do.

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# build and run; the tests need libcmocka-dev on top
PB_BUILD_PACKAGES="gcc g++ libc6-dev make autoconf automake libtool pkg-config libinih-dev libjansson-dev libhwloc-dev libxxhash-dev libpcre2-dev libutf8proc-dev"

install_packages() {
    missing=
    for p in "$@"; do
        dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || die "these packages are missing:$missing. This is no Debian, so install what provides them, then run $0 again"
    as_root=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "these packages are missing:$missing. Run as root: apt-get install$missing"
        as_root=sudo
    fi
    echo "== installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 ||
        { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null; } ||
        die "apt-get could not install$missing; look above, then run $0 again"
}

# build_in FOLDER CONFIGURE-OPTIONS...: configures once, builds what changed
build_in() {
    folder=$1
    shift
    jobs=$(nproc 2>/dev/null || echo 2)
    if [ ! -x configure ] || [ configure.ac -nt configure ]; then
        echo "== generating configure"
        ./bootstrap >/dev/null 2>"${TMPDIR:-/tmp}/patchbay-bootstrap.$$" || { cat "${TMPDIR:-/tmp}/patchbay-bootstrap.$$" >&2; die "./bootstrap failed; the reason is above"; }
        rm -f "${TMPDIR:-/tmp}/patchbay-bootstrap.$$"
    fi
    mkdir -p "$folder"
    if [ ! -f "$folder/Makefile" ]; then
        echo "== configuring in $folder"
        (cd "$folder" && "$OLDPWD/configure" -q "$@") || die "configure failed; its last line says what is missing"
    fi
    echo "== building in $folder"
    make -s -j"$jobs" -C "$folder" || die "the build failed; the first error is above"
}
