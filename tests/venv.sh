#!/bin/sh
# Prints the path of a Python that has what a folder of tests lists in its requirements.txt, after making its virtual environment if
# that is not there yet.
#
# usage: venv.sh providers/aws|providers/azure|house
#
# The environment is made once for each list of requirements, from PyPI, in the cache folder; later calls only look for it.
set -eu

requirements=$(dirname "$0")/${1:?usage: venv.sh providers/aws|providers/azure|house}/requirements.txt
[ -e "$requirements" ] || { echo "error: there is no $requirements" >&2; exit 64; }
root=${XDG_CACHE_HOME:-$HOME/.cache}/nodeseal
home=$root/$(basename "$1")-$(sha256sum "$requirements" | cut -c1-16)
if [ ! -e "$home/complete" ]; then
    if ! command -v python3 >/dev/null 2>&1; then
        echo "error: python3 is missing" >&2
        echo "hint: apt-get install python3-venv" >&2
        exit 69
    fi
    echo "making a virtual environment for tests/$1 in $home (once, about a minute)" >&2
    mkdir -p "$root"
    # One at a time. Its scripts name its place, so it is made where it stays, and marked when all is there.
    exec 9>"$home.lock"
    flock 9
    if [ ! -e "$home/complete" ]; then
        rm -rf "$home"
        python3 -m venv "$home" >&2
        "$home/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" >&2
        touch "$home/complete"
    fi
fi
echo "$home/bin/python"
