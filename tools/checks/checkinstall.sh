#!/bin/sh
# What `make install` leaves is complete and of use: an example compiles against it with
# pkg-config, with the shared and with the static library, and prints what it should.
#     checkinstall.sh [build directory]
set -eu
cd "$(dirname "$0")/../.."
root=$PWD
dir=$(cd "${1:-build}" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
DESTDIR="$tmp/root" meson install -C "$dir" --no-rebuild --quiet
pc=$(find "$tmp/root" -name tenon.pc)
[ -n "$pc" ] || { echo "no tenon.pc is installed"; exit 1; }
prefix=$(sed -n 's/^prefix=//p' "$pc")
for file in bin/tenon include/tenon/tenon.h include/tenon/ops.h include/tenon/status.h include/tenon/llm.h \
    include/tenon/nn.h include/tenon/ext.h \
    share/man/man1/tenon.1; do
    [ -f "$tmp/root$prefix/$file" ] || { echo "$prefix/$file is not installed"; exit 1; }
done
cd "$tmp"
system=$(pkg-config --variable pc_path pkg-config)
export PKG_CONFIG_LIBDIR="${pc%/*}:$system" PKG_CONFIG_SYSROOT_DIR=
flags() { pkg-config --define-variable=prefix="$tmp/root$prefix" "$@" tenon; }
lib=$(flags --variable=libdir)
for kind in shared static; do
    libs=$(flags --libs)
    # The archive in place of -ltenon, and what it needs beside.
    [ $kind = shared ] || libs=$(flags --static --libs | sed "s|-ltenon|$lib/libtenon.a|")
    # shellcheck disable=SC2046,SC2086
    cc -std=c11 -Wall -Werror $(flags --cflags) "$root/examples/01_hello.c" -o hello $libs
    LD_LIBRARY_PATH=$lib ./hello >out
    diff -u "$root/examples/01_hello.expected" out || { echo "01_hello, $kind, prints something else"; exit 1; }
done
nm -u hello | grep -q ' tn_' && { echo "01_hello was not linked statically"; exit 1; }
LD_LIBRARY_PATH=$lib "$tmp/root$prefix/bin/tenon" --version >/dev/null
echo "the installed headers, libraries, program and manual work"
