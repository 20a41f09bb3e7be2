"""What the kernel of this machine can tell."""

import os

import pytest

RELEASE = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))
NEEDS_MEMORY_OF_THE_REAPED = pytest.mark.skipif(
    RELEASE < (6, 15), reason="before Linux 6.15 a process is forgotten once its parent has been told how it ended"
)
