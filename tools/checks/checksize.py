#!/usr/bin/env python3
"""No file is over 900 lines, no function over 70 (of tests: reported only), and the median function
is at most 12.

A function is what starts after a line at column 0 that ends in "{" and holds a "(", and
ends at the next "}" at column 0: enough for code laid out by clang-format."""
import statistics
import subprocess
import sys
from pathlib import Path

root = Path(__file__).resolve().parents[2]
names = subprocess.run([root / "tools/files.sh"], capture_output=True, text=True, check=True).stdout.split()
lengths, failed = [], False
for name in names:
    lines = (root / name).read_text().splitlines()
    if len(lines) > 900 and "generated" not in "".join(lines[:3]):
        print(f"{name}: {len(lines)} lines (900 at most)")
        failed = True
    start, head = None, ""
    for at, line in enumerate(lines, 1):
        if line[:1].isalpha() or line[:1] == "_":
            head, head_at = line, at
        elif start is None and line[:1] == " ":
            head += line
        if start is None and line.endswith("{") and "(" in head and not head.startswith(("typedef", "enum", "struct")):
            if line[:1] not in (" ", "") or head.endswith("{"):
                start = head_at
        if line[:1] in "/#" or line.startswith("}"):
            if line.startswith("}") and start is not None:
                lengths.append(at - start + 1)
                if lengths[-1] > 70:
                    print(f"{name}:{start}: a function of {lengths[-1]} lines (70 at most)")
                    failed |= not name.startswith("tests/")
            start, head = (None, "") if line.startswith("}") else (start, head)
median = statistics.median(lengths)
print(f"{len(names)} files, {len(lengths)} functions, median {median:g} lines")
sys.exit(failed or median > 12)
