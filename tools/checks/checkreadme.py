#!/usr/bin/env python3
"""The documents are true where a script can tell: C code in README.md stands verbatim in examples/
(which are compiled and run), the output shown is the expected one, links lead to files, and
commits that are cited exist."""
import re
import subprocess
import sys
from pathlib import Path

root = Path(__file__).resolve().parents[2]
failed = []
readme = (root / "README.md").read_text()
examples = {p.name: p.read_text() for p in (root / "examples").iterdir() if p.suffix in (".c", ".cpp", ".expected")}
for kind, block in re.findall(r"^```(c?)\n(.*?)^```$", readme, re.M | re.S):
    known = any(block in text for text in examples.values())
    if kind == "c" and not known:
        failed.append("README.md: code that is in no example:\n" + block)
if examples["01_hello.c"] not in readme or examples["01_hello.expected"] not in readme:
    failed.append("README.md: 01_hello.c and what it prints are not shown as they are")
for name in ("README.md", "DESIGN.md", "CONTRIBUTING.md", "tests/data/README.md"):
    text = (root / name).read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        if not ((root / name).parent / link).exists():
            failed.append(f"{name}: {link} does not exist")
    for path in re.findall(r"`((?:src|tests|tools|examples|cmd|docs|include|bench)/[\w./-]+)`", text):
        if not (root / path).exists():
            failed.append(f"{name}: {path} does not exist")
    if (root / ".git").exists():
        shallow = subprocess.run(["git", "rev-parse", "--is-shallow-repository"], cwd=root, capture_output=True, text=True)
        for commit in re.findall(r"Commit `([0-9a-f]{7,40})`", text):
            there = subprocess.run(["git", "cat-file", "-e", commit + "^{commit}"], cwd=root, capture_output=True)
            if there.returncode and shallow.stdout.strip() != "true":
                failed.append(f"{name}: there is no commit {commit}")
print("\n".join(failed) or "documents agree with examples and files")
sys.exit(bool(failed))
