"""The commands that README.md shows print what it says they print."""

import os
import re
import subprocess

import pytest
from tenon_llm import PROGRAM, ROOT

with open(os.path.join(ROOT, "README.md")) as f:
    CONSOLE = re.search(r"^```console\n(.*?)^```$", f.read(), re.M | re.S).group(1)
SHOWN = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", CONSOLE, re.M)


def test_every_command_is_shown():
    shown = {re.search(r"tenon (\w+)", command).group(1) for command, _ in SHOWN}
    assert shown == {"generate", "perplexity", "tokenize", "render", "info"}


@pytest.mark.parametrize("command,output", SHOWN)
def test_command(command, output, smollm2):
    env = {**os.environ, "MODEL": smollm2, "PATH": os.path.dirname(PROGRAM) + ":" + os.environ["PATH"]}
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
    if " info " in command:  # begins with the machine
        output, done.stdout = output[output.index("\nmodel"):], done.stdout[done.stdout.index("\nmodel"):]
    assert done.stdout.rstrip() == output.rstrip()
