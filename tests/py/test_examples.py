"""The example that needs a model, built as a user would build it, says what the program says."""

import os
import subprocess

import pytest
from conftest import ROOT
from tenon_llm import LIBRARY, PROGRAM


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    exe = str(tmp_path_factory.mktemp("examples") / "chat")
    subprocess.run(["cc", "-std=c11", "-Wall", "-Werror", "-I", os.path.join(ROOT, "include"),
                    os.path.join(ROOT, "examples", "04_chat.c"), "-o", exe, LIBRARY,
                    "-Wl,-rpath," + os.path.dirname(LIBRARY)], check=True)
    return exe


def test_chat(chat, smollm2):
    words = "Name three colours."
    said = subprocess.run([chat, smollm2, words], check=True, stdout=subprocess.PIPE).stdout
    want = subprocess.run([PROGRAM, "generate", "--model", smollm2, "--prompt", words,
                           "--max-tokens", "2000"], check=True, stdout=subprocess.PIPE).stdout
    assert said.strip() and said.strip() == want.strip()


def test_chat_without_model(chat):
    done = subprocess.run([chat, "/nonexistent.gguf", "Hello"], capture_output=True, text=True)
    assert done.returncode == 1 and "/nonexistent.gguf" in done.stderr
    assert subprocess.run([chat], capture_output=True).returncode == 2
