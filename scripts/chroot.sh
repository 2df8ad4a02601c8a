#!/bin/sh
# A bare Debian 12 with systemd and what the package needs, as a folder to chroot into. Made once, from this machine's own sources of
# Debian packages, kept as an archive in the cache, and unpacked anew for each use. Needs root.
#
# usage: chroot.sh FOLDER
set -eu

[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 64; }
archive=${XDG_CACHE_HOME:-$HOME/.cache}/nodeseal/bookworm.tar
if [ ! -e "$archive" ]; then
    echo "building $archive (once, a minute or two)" >&2
    # shellcheck disable=SC2046 # a list of words
    mmdebstrap --quiet --format=tar --variant=minbase --include=systemd,debconf,tpm-udev,libtss2-esys-3.0.2-0,libtss2-mu0,libtss2-tctildr0,libtss2-tcti-device0 \
        bookworm "$archive.new" $("$(dirname "$0")/debian-sources.sh") >&2
    mv "$archive.new" "$archive"
fi
mkdir -p "$1"
tar -xf "$archive" -C "$1"
