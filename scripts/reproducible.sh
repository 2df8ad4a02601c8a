#!/bin/sh
# Builds the commit that is checked out twice, in two folders with two home folders, and compares programs and packages bit by bit.
#
# usage: reproducible.sh programs|packages
#
# FEATURES limits what is compiled in, such as FEATURES=tpm2, which is quicker; packages have all of them. What is not committed is not
# built.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 programs|packages" >&2; exit 64; }
what=$1
cd "$(dirname "$0")/.."
work=$(mktemp -d "${TMPDIR:-/tmp}/nodeseal-reproducible.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Toolchains and cargo's tools are this machine's in both; sources are unpacked anew in each home from what was downloaded.
export RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" XDG_CACHE_HOME="${XDG_CACHE_HOME:-$HOME/.cache}"
registry=${CARGO_HOME:-$HOME/.cargo}/registry
unset CARGO_HOME CARGO_TARGET_DIR
# What is committed in the meantime is not meant.
commit=$(git rev-parse HEAD)

# $1 and $2: where the sources and where the home folder are.
build() {
    mkdir -p "$2/.cargo/registry" "$(dirname "$1")"
    for part in cache index; do
        [ ! -e "$registry/$part" ] || cp -a "$registry/$part" "$2/.cargo/registry/"
    done
    git clone --quiet --no-checkout . "$1"
    git -C "$1" checkout --quiet --detach "$commit"
    case $what in
    programs)
        HOME=$2 "$1/scripts/remapped.sh" cargo build --quiet --release --bins --manifest-path "$1/Cargo.toml" \
            ${FEATURES:+--no-default-features --features "$FEATURES"}
        ;;
    packages)
        HOME=$2 "$1/scripts/package.sh" deb "$1/target"
        HOME=$2 "$1/scripts/package.sh" rpm "$1/target"
        ;;
    *)
        echo "usage: $0 programs|packages" >&2
        exit 64
        ;;
    esac
}

list() {
    (cd "$1/target" && find release debian generate-rpm -maxdepth 1 -type f 2>/dev/null |
        grep -E '^release/nodeseal[a-z-]*$|\.(deb|rpm)$' | sort | xargs sha256sum)
}

build "$work/one" "$work/home"
list "$work/one" >"$work/one.sums"
# Of another length, so that what is only as long as a path is seen too.
build "$work/another/folder/two" "$work/another/home/of/somebody"
list "$work/another/folder/two" >"$work/two.sums"

cat "$work/one.sums"
if ! diff "$work/one.sums" "$work/two.sums" >&2; then
    echo "error: two builds of $commit differ" >&2
    exit 1
fi
echo "ok: two builds of $commit in two folders with two home folders are the same"
