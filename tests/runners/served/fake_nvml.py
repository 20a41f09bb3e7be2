"""A stand-in for NVML with two GPUs."""

# ruff: noqa: N802 the names are NVML's

from types import SimpleNamespace

GIB = 1 << 30


class NVMLError(Exception):
    pass


class FakeNvml:
    """Two GPUs; memory in use is read from a list, the last value for ever. A look at energy finds `added` mJ more."""

    NVMLError = NVMLError
    added = 0

    def __init__(self, used=(GIB,), energy=True):
        self._used = list(used)
        self._energy = energy
        self._millijoules = 0
        self.asked = []

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        self.asked.append(index)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return int(uuid.rpartition("-")[2])

    def nvmlDeviceGetName(self, _handle):
        return b"NVIDIA H200"

    def nvmlSystemGetDriverVersion(self):
        return "580.1"

    def nvmlSystemGetCudaDriverVersion(self):
        return 13020

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if not self._energy:
            raise NVMLError
        self._millijoules += self.added
        return 1000 * (handle + 1) + self._millijoules

    def nvmlDeviceGetMemoryInfo(self, _handle):
        used = self._used.pop(0) if len(self._used) > 1 else self._used[0]
        return SimpleNamespace(used=used)
