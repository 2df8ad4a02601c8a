#!/bin/sh
# Runs the fuzz targets one after the other, a line each, or keeps what they found in the corpora of the repository.
#
# usage: fuzz.sh run SECONDS FOLDER [TARGET…]
#        fuzz.sh keep FOLDER [TARGET…]
#
# FOLDER holds what is built, the growing corpora, logs and what made a target fail. The checkout is changed by `keep` alone.
set -eu

usage() {
    sed -n 's/^# usage: /usage: /p; s/^#        /       /p' "$0" >&2
    exit 64
}

cd "$(dirname "$0")/.."
all=$(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//')

# Bytes of an input. Where a format's own limit is near enough, it is passed.
max_len() {
    case $1 in
    authority) echo 40000 ;;
    envelope) echo 36000 ;;
    sealer) echo 17000 ;;
    state) echo 8192 ;;
    *) echo 4096 ;;
    esac
}

# The stable toolchain has what a sanitizer needs and only asks that one says so. Optimisation across crates costs the
# coverage its meaning and minutes of building.
build() {
    echo "building the targets with AddressSanitizer (the first time some minutes)"
    RUSTC_BOOTSTRAP=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_STRIP=none \
        CARGO_PROFILE_RELEASE_DEBUG=line-tables-only \
        "${XDG_CACHE_HOME:-$HOME/.cache}/nodeseal/cargo-fuzz/bin/cargo-fuzz" build \
        --fuzz-dir fuzz --features libfuzzer --target-dir "$folder" >"$folder/build.log" 2>&1 || {
        cat "$folder/build.log" >&2
        exit 70
    }
    programs=$folder/$(rustc -vV | sed -n 's/^host: //p')/release
}

figure() {
    sed -n "s/^stat::$1: *//p" "$folder/$target.log"
}

run() {
    failed=0
    printf '%-10s %12s %10s %10s %10s\n' target executions exec/s 'new units' crashes
    for target in $targets; do
        corpus=$folder/corpus/$target
        found=$folder/found/$target
        mkdir -p "$corpus" "$found"
        crashes=0
        set --
        [ ! -f "fuzz/$target.dict" ] || set -- "-dict=fuzz/$target.dict"
        # A target stops at its first failure: an input that panics, takes 10 seconds, or makes the process take a gigabyte.
        "$programs/$target" "$@" -max_total_time="$seconds" -max_len="$(max_len "$target")" -timeout=10 \
            -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$found/" \
            "$corpus" "fuzz/corpus/$target" >"$folder/$target.log" 2>&1 || crashes=1
        printf '%-10s %12s %10s %10s %10s\n' "$target" "$(figure number_of_executed_units)" \
            "$(figure average_exec_per_sec)" "$(figure new_units_added)" "$crashes"
        [ "$crashes" -eq 0 ] || failed=1
    done
    [ "$failed" -eq 0 ] || {
        echo "error: a target failed: the inputs are in $folder/found, the reasons in $folder/*.log" >&2
        exit 1
    }
}

keep() {
    for target in $targets; do
        mkdir -p "$folder/corpus/$target"
        # The fewest that reach the places in the code that the kept ones do not.
        "$programs/$target" -set_cover_merge=1 -use_counters=0 -use_cmp=0 -max_len=2048 "fuzz/corpus/$target" \
            "$folder/corpus/$target" >"$folder/$target.log" 2>&1
        echo "$target: $(ls "fuzz/corpus/$target" | wc -l) inputs, $(du -bs "fuzz/corpus/$target" | cut -f1) bytes"
    done
}

[ $# -ge 2 ] || usage
verb=$1
shift
case $verb in
run)
    [ $# -ge 2 ] || usage
    seconds=$1
    shift
    ;;
keep) ;;
*) usage ;;
esac
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
targets=${*:-$all}
build
$verb
