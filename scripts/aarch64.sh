#!/bin/sh
# Runs a command with an environment in which cargo builds for aarch64 (--target aarch64-unknown-linux-gnu).
#
# Headers and libraries are Debian's own packages for arm64, unpacked into a folder of the cache: this machine's packages stay as they
# are. What is built for tests finds its loader and libraries there by itself, so that a test can start a program by its path
# (scripts/binfmt.sh); a package's programs are built with `release`, which leaves that out.
#
# usage: aarch64.sh test|release COMMAND [ARGUMENT…]
set -eu

[ $# -ge 2 ] || { echo "usage: $0 test|release COMMAND [ARGUMENT…]" >&2; exit 64; }
for_tests=$([ "$1" = test ] && echo 1 || echo 0)
shift
root=${XDG_CACHE_HOME:-$HOME/.cache}/nodeseal/arm64
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -e "$root" ]; then
    echo "unpacking Debian's packages for arm64 into $root (once, a minute or two)" >&2
    rm -rf "$root.new"
    # shellcheck disable=SC2046 # a list of words
    mmdebstrap --quiet --variant=extract --architectures=arm64 \
        --include=libc6-dev,libgcc-12-dev,libtss2-dev,libtss2-tcti-swtpm0,libtss2-tcti-device0 \
        bookworm "$root.new" $("$here/debian-sources.sh") >&2
    # Links from the root of a machine that this folder is not.
    find "$root.new" -type l -lname '/*' | while read -r link; do
        ln -sfn "$root$(readlink "$link")" "$link"
    done
    mv "$root.new" "$root"
fi

export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CFLAGS_aarch64_unknown_linux_gnu="--sysroot=$root"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-Clink-arg=--sysroot=$root"
export PKG_CONFIG_ALLOW_CROSS=1
export PKG_CONFIG_SYSROOT_DIR_aarch64_unknown_linux_gnu="$root"
export PKG_CONFIG_LIBDIR_aarch64_unknown_linux_gnu="$root/usr/lib/aarch64-linux-gnu/pkgconfig:$root/usr/share/pkgconfig"
if [ "$for_tests" = 1 ]; then
    libraries=$root/usr/lib/aarch64-linux-gnu
    # RPATH and not RUNPATH: the libraries of the TPM load others by name.
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="$CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS \
-Clink-arg=-Wl,--dynamic-linker=$root/lib/ld-linux-aarch64.so.1 -Clink-arg=-Wl,--disable-new-dtags \
-Clink-arg=-Wl,-rpath,$libraries:$root/lib/aarch64-linux-gnu"
fi
exec "$@"
