#!/bin/sh
# Build llama.cpp, the yardstick of the language-model numbers, at a pinned
# version: the copy inside the llama-cpp-python 0.3.36 source package (PyPI),
# compiled for this machine's CPU. About 6 minutes on two cores, 400 MB of disk.
#
#   bench/peer_llama.sh [FOLDER]        FOLDER: default build/peers/llama
#
# Leaves FOLDER/bin/llama-bench, llama-simple, llama-perplexity, llama_teacher
# and prints FOLDER/bin on standard output. Does nothing when they are there.
# Needs: python3-pip, cmake, g++, make or ninja. JOBS=N sets the parallelism.
set -eu

version=0.3.36
sdist_sha=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/build/peers/llama}
mkdir -p "$out"
out=$(cd "$out" && pwd)
src=$out/src/llama_cpp_python-$version/vendor/llama.cpp

say() { printf '%s\n' "peer_llama: $*" >&2; }

if [ ! -d "$src" ]; then
    say "downloading llama-cpp-python $version (77 MB)"
    mkdir -p "$out/src"
    # pip runs the source package's build back end for its metadata, no more.
    python3 -m pip download --no-deps --no-binary :all: \
        --disable-pip-version-check -d "$out/src" \
        "llama-cpp-python==$version" >&2
    sdist=$out/src/llama_cpp_python-$version.tar.gz
    printf '%s  %s\n' "$sdist_sha" "$sdist" | sha256sum -c - >&2
    tar -xzf "$sdist" -C "$out/src"
fi

if [ ! -x "$out/bin/llama-bench" ] || [ ! -x "$out/bin/llama-simple" ] ||
    [ ! -x "$out/bin/llama-perplexity" ]; then
    say "building llama.cpp in $out"
    cmake -S "$src" -B "$out" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
        -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF >&2
    cmake --build "$out" -j "${JOBS:-2}" \
        --target llama-bench llama-simple llama-perplexity >&2
fi

teacher=$root/bench/llama_teacher.c
if [ -z "$(find "$out/bin" -name llama_teacher -newer "$teacher")" ]; then
    ${CC:-cc} -O2 -std=gnu11 -Wall -Wextra -I"$src/include" \
        -I"$src/ggml/include" "$teacher" -o "$out/bin/llama_teacher" \
        -L"$out/bin" -Wl,-rpath,"$out/bin" -lllama -lggml -lggml-base -lm >&2
fi
printf '%s\n' "$out/bin"
