"""The driver's side of a server, with a stand-in for NVML: the real one needs a GPU."""

import pytest

from runners.runner import RunFailedError
from runners.served.nvml import Driver, driver
from tests.runners.served.fake_nvml import GIB, FakeNvml


def test_the_gpus_are_those_that_this_process_may_use(monkeypatch):
    found = Driver(FakeNvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert found.devices == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5, 3")
    assert found.devices == ("GPU-5", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert found.devices == ()


def test_energy_is_joules_of_all_of_them_and_missing_on_old_ones():
    assert Driver(FakeNvml()).joules(("0", "1")) == 3.0
    assert Driver(FakeNvml()).joules(("GPU-1",)) == 2.0
    assert Driver(FakeNvml(energy=False)).joules(("0",)) is None


def test_versions_name_driver_cuda_and_gpu():
    assert Driver(FakeNvml()).versions(("0", "1")) == (("driver", "580.1"), ("cuda", "13.2"), ("gpu", "NVIDIA H200"))


def test_memory_that_is_released_after_a_while_is_waited_for():
    found = Driver(FakeNvml(used=[GIB, 9 * GIB, 5 * GIB, GIB]))
    found.wait_until_released(found.used_bytes(("0",)), limit_s=10)


def test_memory_that_stays_is_the_environments_failure():
    found = Driver(FakeNvml(used=[GIB, 9 * GIB]))
    with pytest.raises(RunFailedError, match="GPU 0: 8192 MiB") as caught:
        found.wait_until_released(found.used_bytes(("0",)), limit_s=0)
    assert caught.value.environment


@pytest.mark.gpu
def test_a_real_driver_tells_versions_memory_and_energy():
    found = driver()
    if found is None or not found.devices:
        pytest.skip("no NVIDIA GPU here")
    names = dict(found.versions(found.devices))
    assert set(names) == {"driver", "cuda", "gpu"}
    assert all(used > 0 for used in found.used_bytes(found.devices).values())
    joules = found.joules(found.devices)
    assert joules is None or joules > 0
