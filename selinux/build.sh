#!/bin/sh
# Builds nodeseal.pp, and links it with all other modules of Debian's policy into a policy that setools can be asked about.
#
# usage: build.sh module FOLDER
#        build.sh policy FOLDER [OTHER.te]
#
# FOLDER is made. It then holds nodeseal.pp, and with `policy` also policy.bin and file_contexts, to which another module can be added. Nothing is installed
# or loaded, and no kernel with SELinux is needed.
set -eu

usage() {
    echo "usage: $0 module FOLDER" >&2
    echo "       $0 policy FOLDER [OTHER.te]" >&2
    exit 64
}

if [ $# -lt 2 ] || [ $# -gt 3 ]; then usage; fi
what=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
other=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
headers=/usr/share/selinux/devel/Makefile
modules=/usr/share/selinux/default

need() {
    [ -e "$1" ] && return
    echo "error: $1 is missing" >&2
    echo "hint: install $2" >&2
    exit 69
}

# On Debian the policy's name in /etc/selinux/config may be missing or another; there is only this one to link with. Elsewhere the name only
# decides between MLS and MCS.
module() {
    need "$headers" "selinux-policy-dev (Fedora, RHEL: selinux-policy-devel)"
    rm -rf "$folder/tmp" "$folder"/*.pp "$folder"/*.te
    cp "$here/nodeseal.te" "$here/nodeseal.fc" "$here/nodeseal.if" "$folder"
    [ -z "$other" ] || cp "$other" "$folder"
    make -s -C "$folder" -f "$headers" ${1:+NAME="$1"} all
}

# A package of the same name that is installed would be linked twice.
policy() {
    need "$modules/base.pp.bz2" selinux-policy-default
    rm -rf "$folder/modules"
    mkdir "$folder/modules"
    for module in "$modules"/*.pp.bz2; do
        name=$(basename "$module" .bz2)
        [ "$name" = nodeseal.pp ] || bunzip2 -c "$module" >"$folder/modules/$name"
    done
    mv "$folder/modules/base.pp" "$folder/base"
    semodule_link -o "$folder/linked.lnk" "$folder/base" "$folder"/modules/*.pp "$folder"/*.pp >"$folder/link.log" 2>&1 ||
        { cat "$folder/link.log" >&2; exit 1; }
    # -a: also what must never be allowed is looked for.
    semodule_expand -a "$folder/linked.lnk" "$folder/policy.bin"
    labels
    rm -rf "$folder/modules" "$folder/base" "$folder/linked.lnk"
}

# All rules for labels in the order in which libsemanage writes them, of which the last that fits holds: patterns before plain paths,
# then by the length of what stands before the first mark of a pattern, then by their whole length.
labels() {
    for package in "$folder/base" "$folder"/modules/*.pp "$folder"/*.pp; do
        semodule_unpackage "$package" "$folder/modules/module" "$folder/modules/labels"
        cat "$folder/modules/labels"
    done | awk '
        /^\// {
            stem = $1
            gsub(/\\./, "x", stem)
            plain = !match(stem, /[.^$?*+|[({]/)
            print plain, plain ? length(stem) : RSTART - 1, length($1), $0
        }' | sort -s -n -k 1,1 -k 2,2 -k 3,3 | cut -d ' ' -f 4- >"$folder/file_contexts"
}

case $what in
module)
    if [ -d "$modules" ]; then module default; else module; fi
    ;;
policy)
    module default
    policy
    ;;
*) usage ;;
esac
