#!/bin/sh
# Prints which libraries the programs contain, and under which terms: what their licences ask whoever passes the programs on to pass on too.
#
# usage: notices.sh TRIPLE [ARGUMENT-OF-CARGO…]
#
# Each text stands there once, with the names of all that it comes with.
set -eu

[ $# -ge 1 ] || { echo "usage: $0 TRIPLE [ARGUMENT-OF-CARGO…]" >&2; exit 64; }
triple=$1
shift
cd "$(dirname "$0")/.."
export LC_ALL=C
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src

# Not what runs at build time alone: macros and build scripts. Of a path `(/…)` is said, and of this project nothing else is there.
cargo tree --locked --target "$triple" --edges normal,no-proc-macro --prefix none --format '{p}|{l}, {r}' "$@" |
    sed -n 's/ (\*)$//; /(proc-macro)/d; /(\//d; s/^\([^ ]*\) v\([^|]*\)|/\1 \2 /p' | sort -u >"$work/crates"
mkdir "$work/texts" "$work/names"
while read -r name version terms; do
    found=
    for file in "$sources"/*/"$name-$version"/*; do
        case $(basename "$file" | tr '[:lower:]' '[:upper:]') in
        *LICENSE* | *LICENCE* | COPYING* | COPYRIGHT* | NOTICE*) [ -f "$file" ] || continue ;;
        *) continue ;;
        esac
        # Lines of another system's kind, and blanks at their ends, make no other text.
        tr -d '\r' <"$file" | sed 's/[[:space:]]*$//' >"$work/text"
        sum=$(sha256sum "$work/text" | cut -c 1-64)
        mv "$work/text" "$work/texts/$sum"
        echo "$name $version" >>"$work/names/$sum"
        found=yes
    done
    echo "$name $version: $terms$([ -n "$found" ] || echo ' (its package has no text of its own)')"
done <"$work/crates" >"$work/list"
[ -s "$work/list" ] || { echo "error: cargo tree names no library" >&2; exit 70; }

echo "Nodeseal is under Apache-2.0. Its programs contain the Rust standard library (MIT OR Apache-2.0, the Rust project's"
echo "contributors) and these libraries:"
echo
cat "$work/list"
# In the order of the first that it comes with.
for names in "$work"/names/*; do
    echo "$(sort -u "$names" | head -n 1) $(basename "$names")"
done | sort | while read -r _ _ sum; do
    echo
    echo "================================================================================"
    sort -u "$work/names/$sum"
    echo "--------------------------------------------------------------------------------"
    cat "$work/texts/$sum"
done
