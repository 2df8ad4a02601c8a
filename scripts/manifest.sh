#!/bin/sh
# Makes a folder with links to everything of this checkout, and with a Cargo.toml that also has the lists of files of both packages: their
# tools read them there and nowhere else.
#
# usage: manifest.sh FOLDER
set -eu

[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 64; }
here=$(cd "$(dirname "$0")/.." && pwd)
rm -rf "$1"
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$here"
for entry in * .[!.]*; do
    case $entry in
    Cargo.toml | target | .git) ;;
    *) ln -s "$here/$entry" "$folder/$entry" ;;
    esac
done

# A line each: mode, what, where to. $1: the package.
files() {
    sed 's/#.*//' packaging/files | while read -r which mode from to; do
        case $which in
        '') continue ;;
        both | "$1") ;;
        deb | rpm) continue ;;
        *)
            echo "error: packaging/files: $which is neither both, deb nor rpm" >&2
            exit 65
            ;;
        esac
        case $from in
        */)
            find "$from" '(' -name '*.md' -o -name '*.yaml' ')' | LC_ALL=C sort | while read -r page; do
                echo "$mode $page $to${page#"$from"}"
            done
            ;;
        *\**) echo "$mode $from $to" ;;
        *)
            # Whole names: what one tool takes for a folder may be a file to the other.
            case $to in
            */) echo "$mode $from $to$(basename "$from")" ;;
            *) echo "$mode $from $to" ;;
            esac
            ;;
        esac
    done
}

files deb | awk '{ printf "    [\"%s\", \"%s\", \"%s\"],\n", $2, $3, $1 }' >"$folder/deb.list"
files rpm | awk '{
    doc = $3 ~ "^usr/share/(doc|licenses)/" ? ", doc = true" : ""
    printf "    { source = \"%s\", dest = \"/%s\", mode = \"%s\"%s },\n", $2, $3, $1, doc
}' >"$folder/rpm.list"
awk -v folder="$folder" '
    function assets(list,   line) {
        print "assets = ["
        while ((getline line < list) > 0) print line
        print "]"
    }
    { print }
    $0 == "[package.metadata.deb]" { assets(folder "/deb.list") }
    $0 == "[package.metadata.generate-rpm]" { assets(folder "/rpm.list") }
' Cargo.toml >"$folder/Cargo.toml"
rm "$folder/deb.list" "$folder/rpm.list"
