"""What a system's facts must be."""

from dataclasses import replace

import pytest

from search_spaces.hardware.laws import broken_laws
from search_spaces.hardware.system import find_system, systems

B200 = find_system("b200")
NOT_NUMBERS = (float("nan"), float("inf"), -float("inf"))


@pytest.mark.parametrize("system", systems().values(), ids=list(systems()))
def test_what_ships_breaks_none(system):
    assert list(broken_laws(system)) == []


@pytest.mark.parametrize(
    "fact", ["memory_bytes", "memory_bandwidth", "bf16_flops", "fp8_flops", "fp4_flops", "power_watts"]
)
@pytest.mark.parametrize("value", [0, -1, 1e300, *NOT_NUMBERS])
def test_a_gpu_that_cannot_be_is_refused(fact, value):
    found = list(broken_laws(replace(B200, gpu=replace(B200.gpu, **{fact: value}))))
    assert found == [f"gpu.{fact}: `1 <= {fact} <= 1e+18` must hold, but got {value!r}"]


def test_a_gpu_may_have_no_fp4():
    assert list(broken_laws(replace(B200, gpu=replace(B200.gpu, fp4_flops=None)))) == []


@pytest.mark.parametrize("fact", ["gpus_per_node", "nvlink_gpus", "max_gpus", "nvlink_bandwidth", "network_bandwidth"])
@pytest.mark.parametrize("value", [0, -8])
def test_a_system_that_cannot_be_is_refused(fact, value):
    assert f"{fact}: `1 <= {fact} <= 1e+18` must hold, but got {value}" in broken_laws(replace(B200, **{fact: value}))


@pytest.mark.parametrize("value", [-5, 2, float("nan")])
def test_a_latency_is_from_nought_to_a_second(value):
    found = list(broken_laws(replace(B200, network_latency_s=value)))
    assert found == [f"network_latency_s: `0 <= network_latency_s <= 1` must hold, but got {value!r}"]


def test_no_part_of_a_system_is_larger_than_all_of_it():
    found = list(broken_laws(replace(B200, max_gpus=4)))
    assert found == [
        "gpus_per_node: `gpus_per_node <= 4` (max_gpus) must hold, but got 8",
        "nvlink_gpus: `nvlink_gpus <= 4` (max_gpus) must hold, but got 8",
    ]
