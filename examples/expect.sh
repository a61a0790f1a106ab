#!/bin/sh
# expect.sh PROGRAM FILE: what the program prints is what the file says, and it succeeds.
set -u
echo 1..1
# TENON_TEST_RUN: an emulator, when the program is for another machine.
# shellcheck disable=SC2086
if out=$(${TENON_TEST_RUN:-} "$1") && printf '%s\n' "$out" | diff -u "$2" - >&2; then
    echo "ok 1 - ${1##*/} prints what is expected"
else
    echo "not ok 1 - ${1##*/} prints what is expected"
fi
