#!/bin/sh
# Every public header compiles alone, as C11 and as C++17, without warnings.
set -eu
cd "$(dirname "$0")/../.."
status=0
for header in include/tenon/*.h; do
    name=tenon/${header##*/}
    printf '#include <%s>\nint main(void) { return 0; }\n' "$name" |
        cc -std=c11 -Wall -Wextra -Wshadow -Wundef -Werror -fsyntax-only -Iinclude -x c - || status=1
    command -v g++ >/dev/null 2>&1 || continue
    printf '#include <%s>\nint main() { return 0; }\n' "$name" |
        g++ -std=c++17 -Wall -Wextra -Wundef -Werror -fsyntax-only -Iinclude -x c++ - || status=1
done
[ $status = 0 ] && echo "public headers compile as C11 and C++17"
exit $status
