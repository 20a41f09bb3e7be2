"""The GPUs of this machine as NVIDIA's driver sees them: names, memory in use and energy. None where there is none."""

import os
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from runners.runner import RunFailedError

SLACK_BYTES = 512 << 20
"""By how much more memory may be in use after a server than before it: a driver's own bookkeeping."""

RELEASE_S = 15.0
POLL_S = 0.25


class Driver:
    """NVML, with GPUs by index or UUID, as CUDA_VISIBLE_DEVICES names them."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    @property
    def devices(self) -> tuple[str, ...]:
        """Those that this process may use."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1"))
        return tuple(str(index) for index in range(self._nvml.nvmlDeviceGetCount()))

    def versions(self, devices: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Driver, the newest CUDA that it runs, and the GPUs' name."""
        cuda = self._nvml.nvmlSystemGetCudaDriverVersion()
        names = sorted({_text(self._nvml.nvmlDeviceGetName(self._handle(device))) for device in devices})
        return (
            ("driver", _text(self._nvml.nvmlSystemGetDriverVersion())),
            ("cuda", f"{cuda // 1000}.{cuda % 1000 // 10}"),
            ("gpu", ", ".join(names)),
        )

    def joules(self, devices: Sequence[str]) -> float | None:
        """Energy used since the driver was loaded; None for GPUs older than Volta, which do not count it."""
        try:
            used = [self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle(device)) for device in devices]
        except self._nvml.NVMLError:
            return None
        return float(sum(used)) / 1000

    def used_bytes(self, devices: Sequence[str]) -> dict[str, int]:
        return {device: int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle(device)).used) for device in devices}

    def wait_until_released(self, before: dict[str, int], *, limit_s: float = RELEASE_S) -> None:
        """Raises RunFailedError where a GPU still holds more than `before` the server began."""
        end = time.monotonic() + limit_s
        while held := self._held(before):
            if time.monotonic() > end:
                raise RunFailedError("GPU memory held", f"after the server ended: {held}", environment=True)
            time.sleep(POLL_S)

    def _held(self, before: dict[str, int]) -> str:
        more = {device: used - before[device] for device, used in self.used_bytes(list(before)).items()}
        return ", ".join(f"GPU {device}: {size >> 20} MiB" for device, size in more.items() if size > SLACK_BYTES)

    def _handle(self, device: str) -> Any:
        if device.isdigit():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(device))
        return self._nvml.nvmlDeviceGetHandleByUUID(device)


@cache
def driver() -> Driver | None:
    """None where there is no NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return Driver(pynvml)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
