#!/bin/sh
# Every shell script of the repository through shellcheck, warnings are errors.
#
# usage: shellcheck.sh
set -eu

cd "$(dirname "$0")/.."
# By their first line, since many have no suffix. Packages' scripts are the package manager's to start, and have one too.
git grep -IlE '^#!/(usr/)?bin/(env )?(ba)?sh' | while read -r file; do
    case $(head -n 1 "$file") in
    '#!'*sh*) printf '%s\0' "$file" ;;
    esac
done | xargs -0 shellcheck -S warning
