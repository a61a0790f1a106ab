#!/bin/sh
# clang-format has nothing to change in the C files of the repository (it leaves
# generated ones and tables in peace through "clang-format off" in them).
set -eu
cd "$(dirname "$0")/../.."
tool=$(command -v clang-format-14 || command -v clang-format) || { echo "no clang-format"; exit 1; }
files=$(tools/files.sh)
# shellcheck disable=SC2086
if $tool --dry-run --Werror $files 2>"${TMPDIR:-/tmp}/format.$$"; then
    rm -f "${TMPDIR:-/tmp}/format.$$"
    echo "layout is as .clang-format says"
else
    grep -o '^[^:]*' "${TMPDIR:-/tmp}/format.$$" | grep '\.[ch]$' | sort | uniq -c | awk '{ print $2 ": " $1 " lines of report (make format)" }'
    rm -f "${TMPDIR:-/tmp}/format.$$"
    exit 1
fi
