"""Memory that a step frees is kept for the next one: fewer page faults, the same weights."""

import json
import platform
from contextlib import nullcontext

import pytest

from neural_clip.training import trainer as trainer_module
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from second_process import python

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="Nothing is kept by other C libraries.")

FAULTS = """
import json, resource, torch
from neural_clip.training.freed_memory import freed_memory_kept

def faults(rounds=8, numbers=16 * 2**20):  # 64 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.ones(numbers)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1]) // 1024

found = {"before": faults()}
start = held()
with freed_memory_kept():
    faults(8)  # up to seven need new memory: the allocator keeps seven chunks of a size from joining their neighbours
    found["within"], found["held"] = faults(), held() - start
found["left"] = held() - start
found["after"] = faults(3, 192 * 2**20)  # more than was kept, whose addresses may be used again
print(json.dumps(found))
"""


def test_the_same_memory_is_used_again_while_training_and_returned_afterwards(tmp_path):
    (tmp_path / "faults.py").write_text(FAULTS)
    done = python(tmp_path / "faults.py")
    found = json.loads(done.stdout)
    pages = 64 * 2**20 // 4096  # of one buffer
    assert found["before"] > 7 * pages and found["after"] > 2.5 * 12 * pages
    assert found["within"] < 0.5 * pages  # of eight buffers
    assert found["held"] >= 60 and found["left"] <= 8  # MB


def test_weights_are_the_same_bit_for_bit(recipe_file, tmp_path, monkeypatch):
    given = [recipe_file, "--closed-form", "false", "--output_dir"]
    kept = train(read_recipe([*given, str(tmp_path / "kept")]))
    monkeypatch.setattr(trainer_module, "freed_memory_kept", nullcontext)
    assert (train(read_recipe([*given, str(tmp_path / "plain")])) / "model.safetensors").read_bytes() == (
        kept / "model.safetensors"
    ).read_bytes()
