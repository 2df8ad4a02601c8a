#!/bin/sh
# Builds HashiCorp Vault into CACHE_DIR, once a machine and release.
#
# usage: build-vault.sh CACHE_DIR
#
# Vault's published module, unmodified, as a Go tool of the module in vault/. `-tags minimal` leaves out plugins that no
# test uses: transit and the logins by token, AppRole, JWT and certificate stay. The two replaces in vault/go.mod are those
# of Vault's own build, which a module that only requires it does not inherit.
# As in tests/k8s/build-servers.sh, the file name carries the release, and a file that is there is complete.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 CACHE_DIR" >&2; exit 64; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)

CGO_ENABLED=0
export CGO_ENABLED

cd "$here/vault"
release=$(go list -m -f '{{.Version}}' github.com/hashicorp/vault)
vault=$cache/vault-$release
if [ -x "$vault" ]; then
    echo "vault-$release: already built"
else
    trap 'rm -f "$vault.tmp.$$"' EXIT INT TERM
    echo "vault-$release: building (the first time takes some minutes)"
    started=$(date +%s)
    nice go build -mod=readonly -tags minimal -ldflags "-s -w" -o "$vault.tmp.$$" github.com/hashicorp/vault
    mv "$vault.tmp.$$" "$vault"
    echo "vault-$release: built in $(($(date +%s) - started)) s"
fi
ln -sfn "vault-$release" "$cache/vault"
