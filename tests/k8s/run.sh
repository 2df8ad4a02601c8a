#!/bin/sh
# Runs the tests that need Go: Kubernetes' own code, and its servers, against the binaries of Nodeseal.
#
# usage: run.sh wire|envelope|e2e|all [FLAG OF go test ...]
#
# NODESEAL_BIN      folder with nodeseal, nodeseald and nodeseal-sealer (default: target/release of this checkout)
# NODESEAL_BACKEND  what seals: tpm2 (default) or pkcs11; `all` runs the tests of e2e with both unless it is set
# NODESEAL_SERVERS  folder for the servers of Kubernetes, etcd and Vault, built when missing (default: nodeseal/servers in the user's cache)
# NODESEAL_E2E      full: the tests with providers in full length, which takes some minutes
set -eu

here=$(cd "$(dirname "$0")" && pwd)
usage() {
    sed -n 's/^# usage: /usage: /p' "$0" >&2
    exit 64
}

[ $# -ge 1 ] || usage
what=$1
shift
case $what in
wire | envelope | e2e) packages=./$what ;;
all) packages="./wire ./envelope ./e2e" ;;
*) usage ;;
esac

: "${NODESEAL_BIN:=$here/../../target/release}"
: "${NODESEAL_SERVERS:=${XDG_CACHE_HOME:-$HOME/.cache}/nodeseal/servers}"
NODESEAL_BIN=$(cd "$NODESEAL_BIN" 2>/dev/null && pwd) || {
    echo "error: the folder with the binaries of Nodeseal is missing" >&2
    echo "hint: \`make e2e\` builds them, or set NODESEAL_BIN" >&2
    exit 66
}
CGO_ENABLED=0
export NODESEAL_BIN NODESEAL_SERVERS CGO_ENABLED

case $what in
e2e | all)
    "$here/build-servers.sh" "$NODESEAL_SERVERS"
    "$here/../providers/build-vault.sh" "$NODESEAL_SERVERS"
    # The interpreters of tests/providers/aws/server.py and tests/providers/azure/server.py.
    NODESEAL_TESTS=$(dirname "$here")
    NODESEAL_AWS=$("$here/../venv.sh" providers/aws)
    NODESEAL_AZURE=$("$here/../venv.sh" providers/azure)
    export NODESEAL_TESTS NODESEAL_AWS NODESEAL_AZURE
    ;;
esac

cd "$here"
go vet ./...
started=$(date +%s)
# One package after the other: they share the processor with the servers that they start, and their limits of time are
# limits of those.
with_token() {
    [ "$what" = all ] && [ -z "${NODESEAL_BACKEND:-}" ] || return 0
    echo "tests/k8s e2e once more, with a token in place of the TPM"
    # What seals is nothing to providers, to another plugin and to a migration.
    NODESEAL_BACKEND=pkcs11 go test -count=1 -p 1 -timeout 15m -v -skip '^Test(Provider|Migration|AnotherPlugin)' "$@" ./e2e
}
# Those that go side by side spend most of their time waiting for kube-apiserver to look at its plugin.
if go test -count=1 -p 1 -parallel 5 -timeout 15m -v "$@" $packages && with_token "$@"; then
    echo "tests/k8s $what: all passed in $(($(date +%s) - started)) s"
else
    echo "tests/k8s $what: FAILED after $(($(date +%s) - started)) s; the lines that begin with --- FAIL say where" >&2
    exit 1
fi
