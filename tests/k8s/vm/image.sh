#!/bin/sh
# Makes the disk of a machine: the tree of base.sh, the agent of the tests, and the labels of SELinux.
#
# usage: image.sh FOLDER_OF_BASE AGENT OUT
#
# OUT is a raw ext4 file system. mkfs.ext4 fills it, so that no loop device is needed.
set -eu

[ $# -eq 3 ] || { sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 64; }
base=$1 agent=$2 out=$3
tree=$(mktemp -d "${TMPDIR:-/tmp}/nodeseal-vm.XXXXXX")
trap 'rm -rf "$tree"' EXIT
trap 'exit 130' INT TERM
tar -xf "$base/root.tar" -C "$tree" --numeric-owner --exclude='./dev/*' --exclude='./boot/*'

install -m 0755 "$agent" "$tree/usr/local/sbin/vm-agent"
cat >"$tree/etc/systemd/system/vm-agent.service" <<'UNIT'
[Unit]
Description=Agent of the test
DefaultDependencies=no
After=dev-virtio\x2dports-nodeseal.agent.device basic.target
BindsTo=dev-virtio\x2dports-nodeseal.agent.device
[Service]
ExecStart=/usr/local/sbin/vm-agent
# An operator who has logged in.
SELinuxContext=unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023
OOMScoreAdjust=-1000
[Install]
WantedBy=multi-user.target
UNIT
mkdir -p "$tree/etc/systemd/system/multi-user.target.wants" "$tree/var/log/journal" "$tree/mnt/payload"
ln -s ../vm-agent.service "$tree/etc/systemd/system/multi-user.target.wants/vm-agent.service"
for unit in systemd-firstboot.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    e2scrub_reap.service systemd-timesyncd.service getty@tty1.service; do
    ln -sf /dev/null "$tree/etc/systemd/system/$unit"
done
echo machine >"$tree/etc/hostname"
echo '/dev/vda / ext4 rw,errors=remount-ro 0 1
/dev/vdb /mnt/payload ext4 ro,nofail 0 0' >"$tree/etc/fstab"
sed -i 's/^SELINUX=.*/SELINUX=enforcing/' "$tree/etc/selinux/config"
# Without this a power cut costs the last seconds of the journal, where the test looks for reasons.
mkdir -p "$tree/etc/systemd/journald.conf.d"
printf '[Journal]\nSyncIntervalSec=1s\n' >"$tree/etc/systemd/journald.conf.d/machine.conf"

setfiles -F -r "$tree" "$tree/etc/selinux/default/contexts/files/file_contexts" "$tree" >&2
rm -f "$out"
mkfs.ext4 -q -F -d "$tree" "$out" 2G >&2
