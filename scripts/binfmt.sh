#!/bin/sh
# Runs a command among whose children programs for aarch64 start by their path, under qemu-user. Needs root, and Linux 6.7: from there
# on a user namespace has a register of its own of what interprets which program, so that the machine's is left as it is.
#
# usage: binfmt.sh COMMAND [ARGUMENT…]
set -eu

[ $# -ge 1 ] || { echo "usage: $0 COMMAND [ARGUMENT…]" >&2; exit 64; }
work=$(mktemp -d)
child=
trap '[ -z "$child" ] || kill "$child" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkfifo "$work/mapped"

# ELF of 64 bits, little-endian, an executable (also a position-independent one), for EM_AARCH64 (0xb7): binfmt_misc's own notation.
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
# shellcheck disable=SC2016 # of the inner shell
unshare --user --mount sh -c '
    read -r _ <"$1"
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    printf "%s" "$2" >/proc/sys/fs/binfmt_misc/register
    shift 2
    exec "$@"' sh "$work/mapped" ":aarch64:M::$magic:$mask:/usr/bin/qemu-aarch64:F" "$@" &
child=$!
while [ "$(readlink "/proc/$child/ns/user")" = "$(readlink /proc/self/ns/user)" ]; do
    kill -0 "$child"
    sleep 0.05
done
# Everybody stays who they are.
echo "0 0 65536" >"/proc/$child/uid_map"
echo "0 0 65536" >"/proc/$child/gid_map"
echo go >"$work/mapped"
code=0
wait "$child" || code=$?
child=
exit "$code"
