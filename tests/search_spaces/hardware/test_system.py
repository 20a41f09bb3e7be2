"""The machines and what they cost: against another table, and against the days on which prices changed."""

import csv
import datetime as dt
import re
from importlib.resources import files
from itertools import pairwise

import pytest
from ruamel.yaml import YAML

from search_spaces.errors import InputError, UnknownNameError
from search_spaces.hardware.system import PRICE_LISTS, Price, find_system, list_price, systems
from search_spaces.models.model import models
from search_spaces.tables import read_csv

EVERY_SYSTEM = pytest.mark.parametrize("system", systems().values(), ids=list(systems()))


def silicon(name: str) -> dict:
    """AIConfigurator's own description of a system."""
    text = files("aiconfigurator_core").joinpath("systems", f"{name}.yaml").read_text(encoding="utf-8")
    return YAML(typ="safe", pure=True).load(text)


@EVERY_SYSTEM
def test_every_system_has_the_memory_and_the_speed_that_its_silicon_data_assume(system):
    gpu = silicon(system.silicon_name)["gpu"]
    assert system.gpu.memory_bytes == gpu["mem_capacity"]
    assert system.gpu.memory_bandwidth == gpu["mem_bw"]
    assert system.gpu.bf16_flops == gpu["bfloat16_tc_flops"]
    assert system.gpu.fp8_flops == gpu["fp8_tc_flops"]
    assert system.gpu.fp4_flops == gpu.get("fp4_tc_flops")
    assert system.gpu.power_watts == gpu["power"]


@EVERY_SYSTEM
def test_every_system_is_wired_as_its_silicon_data_assume(system):
    node = silicon(system.silicon_name)["node"]
    assert system.gpus_per_node == node["num_gpus_per_node"]
    assert system.nvlink_bandwidth == node["intra_node_bw"]
    assert system.nvlink_gpus == node.get("num_gpus_per_rack", node["num_gpus_per_node"])
    assert system.max_gpus % system.gpus_per_node == 0
    assert system.network_bandwidth < system.nvlink_bandwidth


def test_only_hopper_lacks_fp4():
    assert {system.name for system in systems().values() if not system.gpu.has_fp4} == {"h100", "h200"}


def test_blackwell_ultra_is_half_as_fast_again_in_fp4_but_not_in_fp8():
    ultra, plain = find_system("gb300-nvl72").gpu, find_system("gb200-nvl72").gpu
    assert ultra.fp4_flops == 1.5 * plain.fp4_flops
    assert ultra.fp8_flops == plain.fp8_flops


def test_a_rack_of_72_is_one_nvlink_domain_and_hands_its_cache_over_nvlink():
    rack = find_system("gb200-nvl72")
    assert rack.nvlink_gpus == rack.max_gpus == 72
    assert rack.kv_link_bandwidth == rack.nvlink_bandwidth == 900e9


def test_a_blackwell_gpu_cannot_hold_deepseek_r1_but_eight_can():
    gpu = find_system("b200").gpu
    r1 = models()["deepseek-r1"]
    nvfp4_bytes = (r1.dense_parameters + r1.expert_parameters) * 9 / 16
    assert gpu.memory_bytes < nvfp4_bytes < 8 * gpu.memory_bytes


def test_an_unknown_system_raises_with_the_nearest_name_first():
    with pytest.raises(UnknownNameError, match="unknown system 'gb300nvl72'; valid: gb300-nvl72, "):
        find_system("gb300nvl72")
    with pytest.raises(UnknownNameError, match="valid: h200, "):
        find_system("H200-SXM")


# Prices.


@EVERY_SYSTEM
@pytest.mark.parametrize("price_list", PRICE_LISTS)
def test_every_system_has_a_price_in_every_list(system, price_list):
    price = list_price(system, price_list)
    assert 1 < price.usd_per_gpu_hour < 5
    assert price.all_in_watts_per_gpu > system.gpu.power_watts
    assert "InferenceX-app" in price.source


def test_the_latest_price_holds_where_no_day_is_given():
    price = list_price(find_system("b200"), "hyperscaler")
    assert price.usd_per_gpu_hour == 1.73
    assert price.all_in_watts_per_gpu == 1710


@pytest.mark.parametrize(
    ("day", "usd", "watts"),
    [
        ("2026-03-18", 1.95, 2170),
        ("2026-07-13", 1.95, 2170),
        ("2026-07-14", 1.95, 1710),
        ("2026-07-15", 1.95, 2170),
        ("2026-07-23", 1.95, 2170),
        ("2026-07-24", 1.95, 1710),
        ("2026-07-30", 1.95, 1710),
        ("2026-07-31", 1.73, 1710),
        ("2027-01-01", 1.73, 1710),
    ],
)
def test_a_price_holds_from_its_day_until_the_next(day, usd, watts):
    price = list_price(find_system("b200"), "hyperscaler", dt.date.fromisoformat(day))
    assert (price.usd_per_gpu_hour, price.all_in_watts_per_gpu) == (usd, watts)


def test_the_three_lists_are_three_prices():
    day = dt.date(2026, 3, 18)
    found = [list_price(find_system("gb300-nvl72"), price_list, day).usd_per_gpu_hour for price_list in PRICE_LISTS]
    assert found == [2.652, 3.3, 3.96]


def test_before_the_first_day_of_the_table_there_is_no_price():
    with pytest.raises(InputError, match="no rental price for h100 on or before 2026-03-17; valid dates: 2026-03-18"):
        list_price(find_system("h100"), "rental", dt.date(2026, 3, 17))


def test_the_price_table_holds_only_changes():
    rows = read_csv("search_spaces.hardware", "prices.csv")
    facts = [(row["gpu"], tuple(value for key, value in row.items() if key not in {"date", "source"})) for row in rows]
    for gpu in {gpu for gpu, _ in facts}:
        history = [fact for name, fact in facts if name == gpu]
        assert all(before != after for before, after in pairwise(history))


def test_the_price_table_has_one_row_for_a_gpu_and_day_in_order_of_days():
    rows = read_csv("search_spaces.hardware", "prices.csv")
    keys = [(row["date"], row["gpu"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert [date for date, _ in keys] == sorted(date for date, _ in keys)


def test_every_priced_gpu_belongs_to_a_system():
    assert {row["gpu"] for row in read_csv("search_spaces.hardware", "prices.csv")} == {
        system.gpu.name for system in systems().values()
    }


def test_a_second_costs_its_share_of_the_hour_and_the_energy_where_that_is_charged_apart():
    rent = Price(usd_per_gpu_hour=1.8, all_in_watts_per_gpu=2000)
    assert rent.usd_per_gpu_second == pytest.approx(0.0005)
    metered = Price(usd_per_gpu_hour=1.8, all_in_watts_per_gpu=2000, usd_per_kwh=0.09)
    assert metered.usd_per_gpu_second == pytest.approx((1.8 + 0.18) / 3600)


@pytest.mark.parametrize(("usd", "watts", "kwh"), [(0, 1000, 0), (1, 0, 0), (1, 1000, -0.1)])
def test_a_price_that_is_not_positive_is_refused(usd, watts, kwh):
    with pytest.raises(InputError, match="a price needs usd_per_gpu_hour > 0"):
        Price(usd_per_gpu_hour=usd, all_in_watts_per_gpu=watts, usd_per_kwh=kwh)


@pytest.mark.parametrize("table", ["models/models.yaml", "hardware/systems.yaml", "hardware/prices.csv"])
def test_no_table_names_a_path_of_the_machine_it_was_made_on(table):
    text = files("search_spaces").joinpath(table).read_text(encoding="utf-8")
    assert not re.search(r"(?:^|[\s(])/[a-z]|\.\./|site-packages", text)


def test_the_price_table_is_a_plain_rectangle():
    with files("search_spaces.hardware").joinpath("prices.csv").open(encoding="utf-8", newline="") as lines:
        assert {len(row) for row in csv.reader(lines)} == {7}
