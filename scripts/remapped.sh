#!/bin/sh
# Runs a command with an environment in which what rustc compiles names no folder of this machine, so that two builds of one commit are
# the same whoever makes them and where.
#
# usage: remapped.sh COMMAND [ARGUMENT…]
#
# CARGO_TARGET_DIR is heeded if it is set. aws-lc, the only C here, does the same for itself.
set -eu

[ $# -ge 1 ] || { echo "usage: $0 COMMAND [ARGUMENT…]" >&2; exit 64; }
here=$(cd "$(dirname "$0")/.." && pwd)
cargo=${CARGO_HOME:-$HOME/.cargo}
target=${CARGO_TARGET_DIR:-$here/target}
case $here$cargo$target in
*[[:space:]]*)
    echo "note: a path with a space cannot be remapped: this build is not reproducible" >&2
    exec "$@"
    ;;
esac
# The last one that fits is taken, and one folder may lie in another.
flags="--remap-path-prefix=$cargo=/cargo --remap-path-prefix=$here=/nodeseal --remap-path-prefix=$target=/target"

# Cargo takes the first of these that is set, and it alone.
arm=CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS
if [ -n "${RUSTFLAGS:-}" ]; then
    export RUSTFLAGS="$RUSTFLAGS $flags"
else
    export CARGO_BUILD_RUSTFLAGS="${CARGO_BUILD_RUSTFLAGS:-} $flags"
    [ -z "${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS:-}" ] ||
        export "$arm=$CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS $flags"
fi
exec "$@"
