#!/bin/sh
# Makes sure that this machine has what a target of the Makefile needs, says what it does, and does nothing twice.
#
# usage: need.sh build|test|seccomp|lint|mutants|msrv|fuzz|selinux|package|vm|aarch64|rules
#
# Toolchains are asked for, never installed. Debian's packages are installed with apt-get, which needs root.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 build|test|seccomp|lint|mutants|msrv|fuzz|selinux|package|vm|aarch64|rules" >&2; exit 64; }

toolchain() {
    command -v "$1" >/dev/null 2>&1 && return
    echo "error: $1 is missing" >&2
    echo "hint: install $2 and run this again" >&2
    exit 69
}

# $1 is a floor such as 1.95, $2 what the tool says of itself.
at_least() {
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ] && return
    echo "error: $3 $2 is older than $1" >&2
    echo "hint: update it and run this again" >&2
    exit 69
}

packages() {
    missing=
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "error: these Debian packages, or what they are called elsewhere, are missing:$missing" >&2
        exit 69
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "error: packages are missing, and only root can install them" >&2
        echo "hint: sudo apt-get install$missing" >&2
        exit 77
    fi
    echo "installing Debian packages:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# A program of cargo's, $1, in this version, $2.
cargo_tool() {
    root=${XDG_CACHE_HOME:-$HOME/.cache}/nodeseal/$1
    [ -x "$root/bin/$1" ] && return
    echo "building $1 into $root (once, some minutes)"
    # Its own target folder: ours may not hold another project's objects.
    CARGO_TARGET_DIR=$root/target cargo install --quiet --locked --version "$2" --root "$root" "$1"
    rm -rf "$root/target"
}

# Of Debian's package alone: as a whole it is a service, and brings fonts and JavaScript. Nothing is installed.
promtool_of_debian() {
    root=${XDG_CACHE_HOME:-$HOME/.cache}/nodeseal/promtool
    if command -v promtool >/dev/null 2>&1 || [ -x "$root/usr/bin/promtool" ]; then return; fi
    echo "fetching Debian's prometheus (19 MB), and promtool out of it into $root"
    mkdir -p "$root"
    fetched=$(mktemp -d)
    if (cd "$fetched" && apt-get download -qq prometheus) && ls "$fetched"/prometheus_*.deb >/dev/null; then
        dpkg-deb --fsys-tarfile "$fetched"/prometheus_*.deb | tar -x -C "$root" ./usr/bin/promtool
    fi
    rm -rf "$fetched"
    [ -x "$root/usr/bin/promtool" ] && return
    echo "error: there is no promtool to be had" >&2
    echo "hint: install Prometheus, or run apt-get update and this again" >&2
    exit 69
}

cargo_deny() {
    cargo_tool cargo-deny 0.20.2
}

build="gcc libc6-dev pkg-config libtss2-dev swtpm libtss2-tcti-swtpm0 softhsm2"
# selinux-utils: selabel_lookup. policycoreutils: setfiles. setools: seinfo and sesearch.
selinux="make m4 bzip2 selinux-policy-dev selinux-policy-default checkpolicy semodule-utils setools policycoreutils selinux-utils"
if [ "$1" = selinux ]; then
    # shellcheck disable=SC2086
    packages $selinux
    exit
fi
if [ "$1" = rules ]; then
    promtool_of_debian
    exit
fi
toolchain cargo "Rust 1.95 or later (https://rustup.rs)"
at_least 1.95.0 "$(cargo --version | cut -d' ' -f2)" cargo
case $1 in
build)
    # shellcheck disable=SC2086
    packages $build
    ;;
lint)
    # shellcheck disable=SC2086
    packages $build shellcheck python3-venv
    cargo_deny
    "$(dirname "$0")/../tests/venv.sh" house >/dev/null
    ;;
mutants)
    # shellcheck disable=SC2086
    packages $build
    cargo_tool cargo-mutants 27.1.0
    ;;
msrv)
    # shellcheck disable=SC2086
    packages $build
    toolchain rustup "rustup (https://rustup.rs), which keeps several Rusts beside each other"
    ;;
test | seccomp)
    toolchain go "Go 1.26 or later (https://go.dev/dl)"
    at_least 1.26 "$(go env GOVERSION | sed 's/^go//')" go
    # shellcheck disable=SC2086
    packages $build $selinux apparmor age swtpm-tools tpm2-tools opensc libp11-kit0 libnss3 libnss3-tools binutils systemd util-linux procps python3-venv
    cargo_deny
    "$(dirname "$0")/../tests/venv.sh" providers/aws >/dev/null
    "$(dirname "$0")/../tests/venv.sh" providers/azure >/dev/null
    [ "$1" = test ] || packages strace
    ;;
fuzz)
    # libFuzzer is C++.
    # shellcheck disable=SC2086
    packages $build g++
    cargo_tool cargo-fuzz 0.13.2
    ;;
package | vm)
    # rpm: its own scripts say what a program needs. groff and mmdebstrap are for the test of the packages.
    # shellcheck disable=SC2086
    packages $build $selinux dpkg-dev rpm groff-base mmdebstrap
    cargo_tool cargo-deb 3.7.0
    cargo_tool cargo-generate-rpm 0.21.1
    [ "$1" = vm ] || exit 0
    toolchain go "Go 1.26 or later (https://go.dev/dl)"
    packages qemu-system-x86 e2fsprogs age
    ;;
aarch64)
    # shellcheck disable=SC2086
    packages $build $selinux dpkg-dev mmdebstrap gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user util-linux
    cargo_tool cargo-deb 3.7.0
    toolchain rustup "the target aarch64-unknown-linux-gnu (https://rustup.rs)"
    rustup --quiet target add aarch64-unknown-linux-gnu
    ;;
*)
    echo "usage: $0 build|test|seccomp|lint|mutants|msrv|fuzz|selinux|package|vm|aarch64|rules" >&2
    exit 64
    ;;
esac
