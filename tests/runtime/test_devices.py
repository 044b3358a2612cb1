"""Freed memory stays with the process (glibc); the number of threads is restored."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from hesse.runtime.devices import torch_threads

# glibc (2.36) keeps up to seven freed chunks of each small size in a cache, including the ends of aligned tensors:
# these keep the first freed tensors separate for any layout of the heap. Memory is reused only afterwards.
FAULTS = """
import resource, sys
import torch
from hesse.runtime.devices import disable_malloc_trim
if sys.argv[1] == "keep":
    assert disable_malloc_trim()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(2**24)  # 64 MiB: 16384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(16):
    faults()
print(sum(faults() for _ in range(10)))
"""


def _faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept():
    if _faults("give back") < 10 * 16000:
        pytest.skip("tensors take few page faults here (huge pages)")
    assert _faults("keep") < 1000


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()

    def fail_inside() -> None:
        with torch_threads(1):
            assert torch.get_num_threads() == 1
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail_inside()
    assert torch.get_num_threads() == before
    with torch_threads(None):
        assert torch.get_num_threads() == before
