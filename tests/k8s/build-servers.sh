#!/bin/sh
# Builds kube-apiserver, kube-controller-manager and etcd into CACHE_DIR, once a machine and release.
#
# usage: build-servers.sh CACHE_DIR
#
# Each binary is built from a module of its own, so that it gets the dependencies its own project pinned. The file name
# carries the release: another release is another file, and a file that is there is complete, because it is built under
# a temporary name and renamed. A link without the release points at the one this checkout wants.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 CACHE_DIR" >&2; exit 64; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)

CGO_ENABLED=0
export CGO_ENABLED

# The release that `module` has in the go.mod of folder $1.
release() {
    (cd "$1" && go list -m -f '{{.Version}}' "$2")
}

# build FOLDER PACKAGE OUTPUT LDFLAGS
build() {
    if [ -x "$3" ]; then
        echo "$(basename "$3"): already built"
    else
        compile "$@"
    fi
    ln -sfn "$(basename "$3")" "${3%-v*}"
}

compile() {
    echo "$(basename "$3"): building (the first time takes some minutes)"
    started=$(date +%s)
    (cd "$1" && nice go build -mod=readonly -ldflags "-s -w $4" -o "$3.tmp.$$" "$2")
    mv "$3.tmp.$$" "$3"
    echo "$(basename "$3"): built in $(($(date +%s) - started)) s"
}
trap 'rm -f "$cache"/*.tmp.$$' EXIT INT TERM

kubernetes=$(release "$here" k8s.io/kubernetes)
minor=${kubernetes#v*.}
minor=${minor%%.*}
# Without its linker flags kube-apiserver takes itself for v0.0.0-master, and derives feature gates from that.
stamp=
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    stamp="$stamp -X $package.gitVersion=$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
done

# etcd first: it is there in seconds, and what needs etcd alone can start.
build "$here/etcd" go.etcd.io/etcd/server/v3 "$cache/etcd-$(release "$here/etcd" go.etcd.io/etcd/server/v3)" ""
build "$here" k8s.io/kubernetes/cmd/kube-apiserver "$cache/kube-apiserver-$kubernetes" "$stamp"
# Most of it is compiled for kube-apiserver already.
build "$here/controller-manager" k8s.io/kubernetes/cmd/kube-controller-manager \
    "$cache/kube-controller-manager-$kubernetes" "$stamp"
