#!/bin/sh
# Builds tools/gen.c with the build machine's compiler and writes the generated files
# below the folder given (default: here).
set -eu
cd "$(dirname "$0")/.."
to=${1:-.}
mkdir -p build "$to/include/tenon" "$to/docs"
cc -std=gnu11 -O1 -Iinclude -Isrc tools/gen.c -o build/gen
build/gen ops.h >build/gen.out && cp build/gen.out "$to/include/tenon/ops.h"
build/gen ops.md >build/gen.out && cp build/gen.out "$to/docs/ops.md"
