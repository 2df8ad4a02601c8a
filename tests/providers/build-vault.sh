#!/bin/sh
# Builds HashiCorp Vault and its plugin for logins of Kubernetes into CACHE_DIR, once a machine and release.
#
# usage: build-vault.sh CACHE_DIR
#
# Published modules, unmodified, each as a Go tool of a module of its own, so that it gets the dependencies its own project
# pinned. `-tags minimal` leaves out of Vault what no test uses: transit and the logins by token, AppRole, JWT and certificate
# stay, that of Kubernetes does not and becomes the plugin. The two replaces in vault/go.mod are those of Vault's own build,
# which a module that only requires it does not inherit.
# As in tests/k8s/build-servers.sh, the file name carries the release, and a file that is there is complete.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 CACHE_DIR" >&2; exit 64; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)

CGO_ENABLED=0
export CGO_ENABLED
trap 'rm -f "$cache"/*.tmp.$$' EXIT INT TERM

# build FOLDER MODULE PACKAGE NAME
build() {
    cd "$1"
    release=$(go list -m -f '{{.Version}}' "$2")
    if [ -x "$cache/$4-$release" ]; then
        echo "$4-$release: already built"
    else
        echo "$4-$release: building (the first time takes some minutes)"
        started=$(date +%s)
        nice go build -mod=readonly -tags minimal -ldflags "-s -w" -o "$cache/$4.tmp.$$" "$3"
        mv "$cache/$4.tmp.$$" "$cache/$4-$release"
        echo "$4-$release: built in $(($(date +%s) - started)) s"
    fi
    ln -sfn "$4-$release" "$cache/$4"
}

plugin=github.com/hashicorp/vault-plugin-auth-kubernetes
build "$here/vault" github.com/hashicorp/vault github.com/hashicorp/vault vault
build "$here/vault/kubernetes" "$plugin" "$plugin/cmd/vault-plugin-auth-kubernetes" vault-plugin-auth-kubernetes
