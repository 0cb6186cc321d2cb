"""Whether the system is asked for the memory of large arrays again and again, counted by its page faults."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from rbs.utils.memory import keep_memory, return_memory
if "keep" in sys.argv[1]:
    keep_memory()
if "return" in sys.argv[1]:
    return_memory()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    array = np.ones(2**24)
    del array
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(after - before)
"""


def faults_of_an_array_of_128_mb(what):
    done = subprocess.run([sys.executable, "-c", FAULTS, what], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc")
def test_the_memory_of_an_array_is_used_again():
    assert faults_of_an_array_of_128_mb("keep") < 10
    assert faults_of_an_array_of_128_mb("give back") > 50  # else there would be nothing to gain
    assert faults_of_an_array_of_128_mb("keep, then return") > 50


def test_elsewhere_nothing_happens(monkeypatch):
    import rbs.utils.memory

    monkeypatch.setattr(rbs.utils.memory.ctypes, "CDLL", lambda _: object())
    assert rbs.utils.memory.keep_memory() is None
