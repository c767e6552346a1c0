#!/bin/sh
# Stands in for `python3 -m pip download` and `npm pack`. It is reached through a link in a test's own folder, where
# it finds the packages to give (`packages/NAME==VERSION.whl`, `packages/NAME@VERSION.tgz`), and writes what it was
# asked for (`calls`). `fail` makes it print that text and fail, `hang` makes it never end.
here=$(dirname "$0")
for arg; do
    case "$previous" in
        --dest | --pack-destination) dest=$arg ;;
    esac
    previous=$arg
done
echo "$previous" >> "$here/calls"
if [ -e "$here/hang" ]; then
    exec sleep 600
fi
if [ -e "$here/fail" ]; then
    cat "$here/fail" >&2
    exit 1
fi
cp "$here/packages/$previous".* "$dest"
