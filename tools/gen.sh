#!/bin/sh
# Builds tools/gen.c with the build machine's compiler and writes the generated files
# below the folder given (default: here). The manual page comes from the program's tables
# of options, so only once build/tenon is there.
set -eu
cd "$(dirname "$0")/.."
to=${1:-.}
mkdir -p build "$to/include/tenon" "$to/docs"
cc -std=gnu11 -O1 -Iinclude -Isrc tools/gen.c -o build/gen
build/gen ops.h >build/gen.out && cp build/gen.out "$to/include/tenon/ops.h"
build/gen ops.md >build/gen.out && cp build/gen.out "$to/docs/ops.md"
[ ! -x build/tenon ] || { build/tenon man >build/gen.out && cp build/gen.out "$to/docs/tenon.1"; }
