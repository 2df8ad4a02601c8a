#!/bin/sh
# Builds a package of what this checkout is, and prints its path last. Manual pages and completions are made first.
#
# usage: package.sh deb|rpm TARGET-FOLDER [TRIPLE]
#
# Manual pages do not depend on the processor, so they are made by a program of this one.
set -eu

[ $# -ge 2 ] || { echo "usage: $0 deb|rpm TARGET-FOLDER [TRIPLE]" >&2; exit 64; }
kind=$1
target=$(mkdir -p "$2" && cd "$2" && pwd)
triple=${3:-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/nodeseal
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="$target"

# Programs name no folder of this machine: whoever builds them gets the same.
remapped=$PWD/scripts/remapped.sh

# The version of one package may be told from that of the next by its revision: tests of an upgrade need two.
revision=${REVISION:-1}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# dpkg-shlibdeps knows only packages that are installed. The programs of another processor are linked with the same libraries of the same
# Debian, so it is asked about this processor's.
if [ -n "$triple" ] && [ "$kind" = deb ]; then
    "$remapped" cargo build --release --bins >&2
    shim=$(mktemp -d)
    trap 'rm -rf "$shim"' EXIT
    cat >"$shim/dpkg-shlibdeps" <<EOF
#!/bin/sh
for program; do :; done
unset DEB_HOST_ARCH
exec $(command -v dpkg-shlibdeps) -xlibgcc -O "$target/release/\$(basename "\$program")"
EOF
    chmod +x "$shim/dpkg-shlibdeps"
    PATH=$shim:$PATH
fi

"$remapped" cargo build --release --bins ${triple:+--target "$triple"} >&2
built=$target${triple:+/$triple}
cargo run --quiet -p manuals -- "$built/release/manuals" >&2
# cargo-deb compresses them by itself only if they lie elsewhere.
gzip -9n "$built"/release/manuals/man?/*
scripts/notices.sh "${triple:-$(rustc -vV | sed -n 's/^host: //p')}" | gzip -9n >"$built/release/THIRD-PARTY-NOTICES.gz"
# Files of a package are as old as the commit. Not for the compilers, whose caches it would make void.
epoch=$(git log -1 --format=%ct 2>/dev/null || true)
[ -z "${SOURCE_DATE_EPOCH:-$epoch}" ] || export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$epoch}"
lists=$built/packaging
scripts/manifest.sh "$lists"
case $kind in
deb)
    # Of this distribution's policy, which is that of the package.
    selinux/build.sh module "$built/release/selinux" >&2
    # cargo-deb empties target/debian of all other versions, so build the one that is to stay there last.
    folder=$built/debian
    [ "$revision" = 1 ] || folder=$built/debian-$revision
    mkdir -p "$folder"
    cd "$lists"
    "$cache/cargo-deb/bin/cargo-deb" --quiet --no-build --no-strip ${triple:+--target "$triple"} \
        --deb-version "$version-$revision" --output "$folder/" >&2
    ls -t "$folder/nodeseal_$version-$revision"_*.deb | head -n 1
    ;;
rpm)
    cd "$lists"
    "$cache/cargo-generate-rpm/bin/cargo-generate-rpm" --target-dir "$target" ${triple:+--target "$triple"} \
        --set-metadata "release = \"$revision\"" >&2
    ls -t "$built/generate-rpm/nodeseal-$version-$revision".*.rpm | head -n 1
    ;;
*)
    echo "usage: $0 deb|rpm TARGET-FOLDER [TRIPLE]" >&2
    exit 64
    ;;
esac
