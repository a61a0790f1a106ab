#!/bin/sh
# Builds tools/gen.c with the build machine's compiler and writes the generated files
# below the folder given (default: here).
set -eu
cd "$(dirname "$0")/.."
mkdir -p build
cc -std=gnu11 -O1 -Iinclude -Isrc tools/gen.c -o build/gen
build/gen "${1:-.}"
