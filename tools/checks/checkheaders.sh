#!/bin/sh
# Every public header compiles alone, and every example, as C11 and as C++17, with each
# compiler there is, without a warning.
set -eu
cd "$(dirname "$0")/../.."
status=0
compile() { # compiler and flags, language, suffix of examples
    command -v "${1%% *}" >/dev/null 2>&1 || return 0
    flags='-Wall -Wextra -Wpedantic -Wshadow -Wundef -Werror -fsyntax-only -Iinclude'
    # shellcheck disable=SC2086
    for header in include/tenon/*.h; do
        printf '#include <tenon/%s>\nint main(void) { return 0; }\n' "${header##*/}" |
            $1 $flags -x "$2" - || status=1
    done
    # shellcheck disable=SC2086
    for example in examples/*."$3"; do
        $1 $flags "$example" || status=1
    done
}
for cc in cc gcc clang; do compile "$cc -std=c11" c c; done
for cxx in c++ g++ clang++; do compile "$cxx -std=c++17" c++ cpp; done
[ $status = 0 ] && echo "public headers and examples compile as C11 and C++17"
exit $status
