#!/bin/sh
# Prints the size of programs, and fails if one is larger than it may be.
#
# usage: sizes.sh FILE MAX-BYTES [FILE MAX-BYTES…]
set -eu

[ $# -ge 2 ] || { echo "usage: $0 FILE MAX-BYTES [FILE MAX-BYTES…]" >&2; exit 64; }
code=0
while [ $# -ge 2 ]; do
    size=$(stat -c %s "$1")
    echo "$1: $size bytes, at most $2"
    if [ "$size" -gt "$2" ]; then
        echo "error: $1 is too large" >&2
        code=1
    fi
    shift 2
done
exit "$code"
