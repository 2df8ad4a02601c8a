#!/bin/sh
# Takes the packages apart, and takes the .deb through its life in a Debian 12 without PID 1 (scripts/chroot.sh). Needs root.
#
# What systemd does with the units is not seen here: systemctl is a recorder, and what was asked of it is what counts.
#
# usage: run.sh DEB NEWER-DEB RPM
set -eu

[ $# -eq 3 ] || { echo "usage: $0 DEB NEWER-DEB RPM" >&2; exit 64; }
here=$(cd "$(dirname "$0")" && pwd)
deb=$1
newer=$2
rpm=$3
work=$(mktemp -d)
root=$work/root
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

fail() {
    echo "FAILED: $*" >&2
    [ ! -e "$work/said" ] || sed 's/^/    /' "$work/said" >&2
    exit 1
}

ok() {
    echo "ok: $*"
}

# With a /proc of its own, and nothing that goes on afterwards.
ENTER="unshare --mount --pid --fork --kill-child --mount-proc=$root/proc chroot $root env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"

inside() {
    # shellcheck disable=SC2086 # words
    $ENTER DEBIAN_FRONTEND=noninteractive "$@"
}

# What dpkg and the scripts say goes into a file. $1: what is tried.
dpkg_says() {
    what=$1
    shift
    inside dpkg "$@" >"$work/said" 2>&1 </dev/null || fail "$what"
}

said() {
    grep -q -- "$1" "$work/said" || fail "nothing was said about: $1"
}

not_said() {
    ! grep -q -- "$1" "$work/said" || fail "it was said: $1"
}

# Mode, owner and group of a path.
is() {
    found=$(inside stat -c '%a %U:%G' "$1") || fail "$1 is not there"
    [ "$found" = "$2" ] || fail "$1 is $found, not $2"
}

asked() {
    grep -q -- "$1" "$root/systemctl.log" || fail "systemctl was never asked: $1"
}

not_asked() {
    ! grep -E -- "$1" "$root/systemctl.log" || fail "systemctl was asked: $1"
}

fresh() {
    rm -rf "$root"
    "$here/../../scripts/chroot.sh" "$root"
}

# From here on the scripts believe that systemd runs.
with_systemd() {
    install -m 755 "$here/recorder" "$root/usr/local/bin/systemctl"
    mkdir -p "$root/run/systemd/system" "$root/active"
    : >"$root/systemctl.log"
}

set_up() {
    printf 'version = 1\ncluster = "test"\n' >"$root/etc/nodeseal/nodeseal.toml"
    inside sh -c 'echo sealed > /var/lib/nodeseal/state && chown nodeseal: /var/lib/nodeseal/state'
}

keys_are_there() {
    [ "$(cat "$root/var/lib/nodeseal/state")" = sealed ] || fail "the keys are gone"
    is /var/lib/nodeseal "700 nodeseal:nodeseal"
}

contents() {
    # Programs and units by name; of many pages and docs that there are some, each non-empty.
    dpkg-deb --fsys-tarfile "$deb" | tar -t | sed 's|^\./||; /\/$/d' | sort >"$work/deb.list"
    rpm -qlp "$rpm" 2>/dev/null | sed 's|^/||' | sort >"$work/rpm.list"
    while read -r path; do
        grep -qx "$path" "$work/deb.list" || fail "the .deb lacks $path"
        case $path in
        *copyright | *changelog.gz) continue ;;
        usr/share/zsh/vendor-completions/*) path=usr/share/zsh/site-functions/_nodeseal ;;
        esac
        grep -qx "$path" "$work/rpm.list" || fail "the .rpm lacks $path"
    done <"$here/expected"
    # Both have the same, but for what each system has at its own place.
    own='share/zsh/|share/selinux/|share/doc/nodeseal/(copyright|changelog|CHANGELOG)|share/licenses|systemd/system-preset'
    grep -Ev "$own" "$work/deb.list" >"$work/deb.same"
    grep -Ev "$own" "$work/rpm.list" >"$work/rpm.same"
    diff "$work/deb.same" "$work/rpm.same" || fail "the lists differ"
    ok "both packages have what they must, and the same: $(wc -l <"$work/deb.list") files"

    dpkg-deb -x "$deb" "$work/files"
    for page in "$work"/files/usr/share/man/man?/*.gz; do
        [ -z "$(zcat "$page" | groff -man -Tutf8 -Kutf8 -ww -z 2>&1)" ] || fail "$page is not well formed"
    done
    bash -n "$work/files/usr/share/bash-completion/completions/nodeseal" || fail "completions of bash"
    ok "manual pages and completions are well formed"
    for path in $(sed -n 's|^Documentation=file://||p' "$work"/files/usr/lib/systemd/system/*); do
        [ -s "$work/files$path" ] || fail "a unit names $path, which is not in the package"
    done
    sed -n 's/^ExecStart=//p' "$work"/files/usr/lib/systemd/system/*.service | while read -r program; do
        [ -x "$work/files$program" ] || fail "a unit starts $program, which is not in the package"
    done
    ok "what the units name is in the package"
}

install_on_a_bare_node() {
    fresh
    cp "$deb" "$root/one.deb"
    cp "$newer" "$root/two.deb"
    dpkg_says "to install" -i /one.deb
    said "not set up yet"
    said "nodeseal init"
    is /var/lib/nodeseal "700 nodeseal:nodeseal"
    is /etc/nodeseal "755 root:root"
    is /run/nodeseal "755 nodeseal:nodeseal"
    is /run/nodeseal-control "700 nodeseal:nodeseal"
    is /run/nodeseal-status "2750 nodeseal:nodeseal-status"
    is /usr/bin/nodeseald "755 root:root"
    inside id -nG nodeseal | grep -qw tss || fail "nodeseal may not use the TPM"
    [ "$(inside getent passwd nodeseal | cut -d: -f7)" = /usr/sbin/nologin ] || fail "nodeseal can log in"
    for link in sockets.target.wants/nodeseal.socket sockets.target.wants/nodeseal-sealer.socket multi-user.target.wants/nodeseal.service; do
        [ -L "$root/etc/systemd/system/$link" ] || fail "$link is not enabled"
    done
    inside nodeseal --version >/dev/null || fail "nodeseal does not start"
    # What the sealer is linked with is what the package depends on.
    inside nodeseal-sealer --version >/dev/null || fail "nodeseal-sealer does not start"
    inside runuser -u nodeseal -- nodeseal --config /usr/share/doc/nodeseal/examples/nodeseal.toml config check >"$work/said" 2>&1 ||
        fail "the example is no configuration"
    ok "it installs without PID 1: user, folders, modes, enabled units, next steps, programs that start"
}

upgrade_and_downgrade() {
    set_up
    with_systemd
    dpkg_says "to upgrade what is stopped" -i /two.deb
    not_asked '(start|restart|stop)( |$)'
    touch "$root/active/nodeseal.service" "$root/active/nodeseal-sealer.service" "$root/active/nodeseal.socket" "$root/active/nodeseal-sealer.socket"
    for package in one two; do
        : >"$root/systemctl.log"
        dpkg_says "to go over to $package" -i "/$package.deb"
        asked 'try-restart nodeseal.service'
        asked 'try-restart nodeseal-sealer.service'
        not_asked '(start|stop) .*\.socket'
        not_asked ' stop '
        not_said "not set up"
        keys_are_there
    done
    ok "upgrade and downgrade restart the services that run, and no socket"
    rm "$root/etc/systemd/system/multi-user.target.wants/nodeseal.service"
    dpkg_says "to upgrade what is disabled" -i /one.deb
    [ ! -L "$root/etc/systemd/system/multi-user.target.wants/nodeseal.service" ] || fail "an upgrade enables what was disabled"
    ok "what the administrator disabled stays disabled"
    ln -s /lib/systemd/system/nodeseal.service "$root/etc/systemd/system/multi-user.target.wants/nodeseal.service"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    : >"$root/systemctl.log"
    dpkg_says "to upgrade under a policy" -i /two.deb
    not_asked 'start'
    rm "$root/usr/sbin/policy-rc.d"
    ok "policy-rc.d is obeyed"
}

remove_and_come_back() {
    : >"$root/systemctl.log"
    dpkg_says "to remove" -r nodeseal
    said "/var/lib/nodeseal"
    asked 'stop nodeseal.service nodeseal.socket nodeseal-sealer.service nodeseal-sealer.socket'
    keys_are_there
    rm -f "$root"/active/*
    : >"$root/systemctl.log"
    dpkg_says "to install again" -i /one.deb
    for unit in nodeseal-sealer.socket nodeseal.socket nodeseal.service; do
        asked "no-block start $unit"
    done
    not_said "not set up"
    keys_are_there
    ok "a removal keeps the keys and says where; with the package back all is started"
}

purge() {
    dpkg_says "to purge without a yes" -P nodeseal
    said "the keys stay in /var/lib/nodeseal"
    keys_are_there
    [ -e "$root/etc/nodeseal/nodeseal.toml" ] || fail "the configuration of kept keys is gone"
    [ ! -L "$root/etc/systemd/system/multi-user.target.wants/nodeseal.service" ] || fail "a purge leaves links"
    ok "a purge that cannot ask keeps the keys"
    dpkg_says "to install again" -i /one.deb
    echo 'nodeseal nodeseal/purge-keys boolean true' | inside debconf-set-selections
    dpkg_says "to remove" -r nodeseal
    keys_are_there
    dpkg_says "to purge with a yes" -P nodeseal
    said "were destroyed"
    [ ! -e "$root/var/lib/nodeseal" ] && [ ! -e "$root/etc/nodeseal" ] || fail "the keys are still there"
    ok "a purge with an explicit yes destroys them"
    # Asked on a terminal: the answer, and its absence.
    for answer in yes no; do
        dpkg_says "to install again" -i /one.deb
        set_up
        printf '%s\n' "$answer" >"$work/answer"
        script -qec "$ENTER DEBIAN_FRONTEND=teletype dpkg -P nodeseal" /dev/null <"$work/answer" >"$work/said" 2>&1 || fail "to purge with $answer"
        said "Destroy the encryption keys"
        case $answer in
        yes) [ ! -e "$root/var/lib/nodeseal" ] || fail "yes did not destroy" ;;
        no) keys_are_there ;;
        esac
    done
    ok "a purge on a terminal asks, and does as it is told"
}

start_on_a_node_that_was_restored() {
    fresh
    cp "$deb" "$root/one.deb"
    with_systemd
    dpkg_says "to install" -i /one.deb
    asked 'no-block start nodeseal-sealer.socket'
    not_asked 'start nodeseal\.'
    ok "on a node that is not set up only the sealer's socket is started"
}

scripts_of_the_rpm() {
    rpm -qp --scripts "$rpm" >"$work/said" 2>/dev/null
    for word in systemd-sysusers systemd-tmpfiles try-restart "systemctl preset"; do
        said "$word"
    done
    not_said 'restart .*socket'
    ok "the .rpm has its scripts"
}

contents
install_on_a_bare_node
upgrade_and_downgrade
remove_and_come_back
purge
start_on_a_node_that_was_restored
scripts_of_the_rpm
