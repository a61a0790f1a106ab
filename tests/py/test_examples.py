"""The example that needs a model, built as a user would build it, says what the program says."""

import os
import subprocess

from conftest import ROOT
from tenon_llm import LIBRARY, PROGRAM


def test_chat(smollm2, tmp_path):
    exe, folder = str(tmp_path / "chat"), os.path.dirname(LIBRARY)
    subprocess.run(["cc", "-std=c11", "-Wall", "-Werror", "-I", os.path.join(ROOT, "include"),
                    os.path.join(ROOT, "examples", "04_chat.c"), "-o", exe, LIBRARY,
                    "-Wl,-rpath," + folder], check=True)
    said = subprocess.run([exe, smollm2, "Name three colours."], check=True, stdout=subprocess.PIPE).stdout
    want = subprocess.run([PROGRAM, "generate", "--model", smollm2, "--prompt", "Name three colours.",
                           "--max-tokens", "2000"], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout
    assert said.strip() == want.strip() and said.strip()


def test_chat_without_model(tmp_path):
    exe = str(tmp_path / "chat")
    subprocess.run(["cc", "-std=c11", "-I", os.path.join(ROOT, "include"),
                    os.path.join(ROOT, "examples", "04_chat.c"), "-o", exe, LIBRARY,
                    "-Wl,-rpath," + os.path.dirname(LIBRARY)], check=True)
    done = subprocess.run([exe, "/nonexistent.gguf", "Hello"], capture_output=True, text=True)
    assert done.returncode == 1 and "/nonexistent.gguf" in done.stderr
    assert subprocess.run([exe], capture_output=True).returncode == 2
