#!/bin/sh
# Makes the file tree of a Debian 12 machine with everything but Nodeseal, and prints the folder in which it and its kernel lie.
#
# usage: base.sh FOLDER
#
# FOLDER/<hash of this script>/{root.tar,vmlinuz,initrd.img}. Made once, from the package sources of this machine, as root.
set -eu

[ $# -eq 1 ] || { sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 64; }
home=$1/$(sha256sum "$0" | cut -c1-16)
if [ -e "$home/complete" ]; then
    echo "$home"
    exit
fi
[ "$(id -u)" -eq 0 ] || { echo "error: only root can make a file tree with other owners" >&2; exit 77; }
echo "making a Debian 12 machine in $home (once, about three minutes)" >&2
rm -rf "$home"
mkdir -p "$home"

# systemd, a kernel, SELinux with its reference policy, AppArmor for the machine that has that instead, the audit daemon that writes its denials down, and what Nodeseal stands on.
packages="systemd systemd-sysv dbus udev kmod linux-image-amd64 initramfs-tools selinux-policy-default policycoreutils apparmor auditd
libtss2-esys-3.0.2-0 libtss2-mu0 libtss2-tctildr0 libtss2-tcti-device0 tpm2-tools tpm-udev adduser debconf init-system-helpers procps iproute2"

# Only what this machine boots from goes into its initrd: software emulation unpacks it slowly.
# shellcheck disable=SC2016,SC2086 # mmdebstrap expands $1; a list of words
mmdebstrap --quiet --variant=minbase --include="$(echo $packages | tr ' ' ',')" \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
    --essential-hook='printf "MODULES=list\nCOMPRESS=lz4\n" >"$1/etc/initramfs-tools/conf.d/machine"' \
    --essential-hook='printf "virtio_pci\nvirtio_blk\next4\n" >"$1/etc/initramfs-tools/modules"' \
    --customize-hook='rm -rf "$1"/usr/share/doc/* "$1"/usr/share/locale/* "$1"/var/cache/apt/*' \
    bookworm "$home/root.tar" >&2
tar -xf "$home/root.tar" -C "$home" --wildcards --strip-components=2 './boot/vmlinuz-*' './boot/initrd.img-*'
mv "$home"/vmlinuz-* "$home/vmlinuz"
mv "$home"/initrd.img-* "$home/initrd.img"
: >"$home/complete"
echo "$home"
