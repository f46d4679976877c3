from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from flyweight.energy import hosting, planning
from flyweight.energy.beside import ratio, spent
from flyweight.energy.constants import constants, facts_of
from flyweight.energy.hosting import LEVELS, Copy, Model, model_of_size
from flyweight.energy.load import read_load, read_model, read_size, short_size, sizes_beside
from flyweight.energy.planning import Device, Planned, Task, plan
from flyweight.errors import OptionError
from flyweight.figure import Figure

A100 = Device("a100-80", facts_of("a100-80"), hosting.MOST_A_COPY)
SERVING = constants().serving
TASK = Task(0.1, 500, 250, "FRA")
# layers x KV groups x head dimension of open models with grouped-query attention, by parameters
PUBLISHED = {
    0.27e9: 18 * 1 * 256,  # Gemma 3
    0.494e9: 24 * 2 * 64,  # Qwen 2.5, with the next ones
    1.54e9: 28 * 2 * 128,
    7.6e9: 28 * 4 * 128,
    14.8e9: 48 * 8 * 128,
    32.8e9: 64 * 8 * 128,
    72.7e9: 80 * 8 * 128,
    1.24e9: 16 * 8 * 64,  # Llama 3
    3.21e9: 28 * 8 * 128,
    8.03e9: 32 * 8 * 128,
    70.6e9: 80 * 8 * 128,
    406e9: 126 * 8 * 128,
    7.25e9: 32 * 8 * 128,  # Mistral
}

sizes = st.floats(1e7, 2e12).map(round)
loads = st.floats(1e-3, 1e4)
named = st.sampled_from([*constants().devices])
tokens = st.integers(1, 20_000)


def device(name: str) -> Device:
    facts = facts_of(name)
    return Device(name, facts, hosting.MOST_A_COPY if facts.computer == "server" else 1)


def copy(parameters: int = 20 * 10**9, **changes: Any) -> Copy:
    told = {"facts": A100.facts, "serving": SERVING, "devices": 1, "read": 500, "written": 250}
    return Copy(model_of_size(parameters, 16), **(told | changes))


def planned(parameters: int, bits: int = 16, on: Device = A100, task: Task = TASK) -> Planned:
    found = plan(model_of_size(parameters, bits, short_size(parameters)), on, task)
    assert isinstance(found, Planned)
    return found


def figures(found: BaseModel) -> list[Figure]:
    """All figures of a part and of the parts within."""
    if isinstance(found, Figure):
        return [found]
    inside = (getattr(found, name) for name in type(found).model_fields)
    return [each for one in inside if isinstance(one, BaseModel) for each in figures(one)]


@pytest.mark.parametrize(
    ("size", "bits", "devices"),
    [("500B", 16, 16), ("20B", 16, 1), ("500B", 4, 4), ("70B", 16, 4), ("1T", 16, 32)],
)
def test_devices_hold_the_weights_with_room_and_are_a_power_of_two(
    size: str, bits: int, devices: int
) -> None:
    parameters = read_size(size)
    assert parameters is not None
    found = planned(parameters, bits)
    assert (found.devices, found.devices_a_copy, found.copies) == (devices, devices, 1)
    assert found.devices_range == (devices, devices)
    assert devices / 2 < 1.2 * parameters * bits / 8 / 80e9 <= devices


def test_a_step_reads_all_weights_and_works_with_them_once() -> None:
    alone = copy().step(1)
    assert alone == pytest.approx(40e9 / (0.7 * 2.039e12), rel=0.01)  # 28 ms: it reads
    full = copy().step(256)
    assert full == pytest.approx(256 * 40e9 / (0.4 * 312e12))  # 82 ms: it works
    assert copy().prefill == pytest.approx(500 * 40e9 / (0.4 * 312e12))
    over_boxes = copy(devices=16).step(1) / copy(devices=8).step(1)
    assert over_boxes == pytest.approx(8 / 16 / 0.6)


def test_littles_law_holds_at_the_batch_that_is_found() -> None:
    one = copy()
    for load in (0.2, 1.0, 3.0):
        batch = one.batch_for(load)
        assert 1 < batch < one.most
        assert batch == pytest.approx(load * one.seconds(batch))
    assert one.batch_for(1e-3) == 1
    assert one.batch_for(1e3) == one.most


def test_the_largest_batch_fits_and_pays() -> None:
    one = copy()
    assert one.rate(one.most) == pytest.approx(one.rate(hosting.TOGETHER), rel=1e-9)
    assert one.rate(one.most - 2) < one.rate(one.most)
    tight = copy(30 * 10**9, written=20_000)  # 12 GB are left beside the weights
    held = tight.most * tight.model.kv.value * 20_500  # type: ignore
    assert tight.model.bytes + held <= 0.9 * 80e9


def test_of_experts_a_batch_reads_those_that_any_of_it_asks() -> None:
    kv = Figure(low=1, value=1, high=1, kind="assumed")
    model = Model("mixture", 47 * 10**9, 16, kv, 13 * 10**9, routed=2 / 8)
    assert model.bytes_read(1) == pytest.approx(26e9)
    assert model.bytes_read(100) == pytest.approx(94e9)
    assert 26e9 < model.bytes_read(2) < 52e9


@pytest.mark.parametrize("parameters", PUBLISHED)
def test_keys_and_values_of_published_models_lie_in_the_rule_of_thumbs_range(
    parameters: float,
) -> None:
    kv = model_of_size(round(parameters), 16).kv
    assert kv.low <= PUBLISHED[parameters] * 2 * 2 <= kv.high  # both, at two bytes


def test_energy_of_a_fixed_batch_is_power_times_time() -> None:
    model, facts = model_of_size(500 * 10**9, 16), facts_of("a100-80")
    found = hosting.answer(model, facts, read=500, written=250, batch=1)
    seconds = copy(500 * 10**9, devices=16).seconds(1)
    assert found.chip.value == pytest.approx(16 * 330 * seconds)
    assert found.computer.value == pytest.approx(16 * (330 + 200) * seconds)
    assert found.facility.value == pytest.approx(16 * (330 + 200) * seconds * 1.54)
    full = hosting.answer(model, facts, read=500, written=250)
    assert full.chip.high < found.chip.high
    assert full == hosting.answer(model, facts, read=500, written=250, batch=10**6)
    assert all(each.kind == "assumed" for each in figures(found))
    assert all(constants().version in each.source for each in figures(found))


def test_the_range_of_500b_against_20b_comes_out_of_the_arithmetic() -> None:
    big, small = (model_of_size(each * 10**9, 16) for each in (500, 20))
    for load in (1e-3, 0.1, 1, 10, 1000):
        found = ratio(big, small, A100, Task(load, 500, 250))
        assert found.idle == 16  # devices, where both only wait
        assert found.weights == 25
        assert found.spread
        # 25 times the work, by as many times as two boxes may reach less than one
        assert found.full.low == pytest.approx(25 / SERVING.spread.high)
        assert found.full.high == pytest.approx(25 / SERVING.spread.low)
        assert found.energy.low == pytest.approx(16)
        assert found.energy.high == pytest.approx(100)
        for each in (found.alone, found.full, found.energy):
            assert each.value is not None
            assert found.energy.low <= each.low <= each.value <= each.high <= found.energy.high
        assert 15 < found.batching[0].alone.low < found.batching[0].alone.high < 60
    assert ratio(big, small, A100, Task(1e-6, 500, 250)).energy.value == pytest.approx(16, rel=1e-3)


def test_idle_devices_differ_by_their_number_alone() -> None:
    asleep = Task(1e-6, 500, 250)
    big, small = (planned(each * 10**9, task=asleep).joules.computer for each in (500, 20))
    for level in LEVELS:
        assert hosting.at(big, level) / hosting.at(small, level) == pytest.approx(16, rel=1e-3)


def test_a_batch_of_one_takes_many_times_what_a_full_one_does() -> None:
    one = copy()
    assert spent(one, 1) / spent(one) == pytest.approx(one.rate(one.most) / one.rate(1))


@settings(deadline=None, max_examples=60)
@given(size=sizes, name=named, load=loads, more=st.floats(1, 100), read=tokens, written=tokens)
def test_more_load_never_takes_fewer_devices(
    size: int, name: str, load: float, more: float, read: int, written: int
) -> None:
    model = model_of_size(size, 8)
    few, many = (
        plan(model, device(name), Task(each, read, written)) for each in (load, load * more)
    )
    assert few.fits == many.fits
    if isinstance(few, Planned) and isinstance(many, Planned):
        assert few.devices <= many.devices


@settings(deadline=None, max_examples=60)
@given(
    size=sizes,
    name=named,
    load=loads,
    bits=st.lists(st.integers(2, 16), min_size=2, max_size=2).map(sorted),
    read=tokens,
    written=tokens,
)
def test_fewer_bits_never_take_more_devices(
    size: int, name: str, load: float, bits: list[int], read: int, written: int
) -> None:
    few, many = (
        plan(model_of_size(size, each), device(name), Task(load, read, written)) for each in bits
    )
    assert few.fits or not many.fits
    if isinstance(few, Planned) and isinstance(many, Planned):
        assert few.devices <= many.devices


@settings(deadline=None, max_examples=60)
@given(size=sizes, name=named, load=loads, read=tokens, written=tokens)
def test_a_plan_is_in_order_and_adds_up(
    size: int, name: str, load: float, read: int, written: int
) -> None:
    task = Task(load, read, written, "FRA")
    found = plan(model_of_size(size, 4), device(name), task)
    if not isinstance(found, Planned):
        return
    assert all(each.kind == "assumed" for each in figures(found))
    assert all(each.low <= (each.value or 0) <= each.high for each in figures(found))
    assert found.devices == found.copies * found.devices_a_copy
    assert found.devices_range[0] <= found.devices <= found.devices_range[1]
    joules, year = found.joules, found.year
    for level in LEVELS:
        chip, computer, facility = (
            hosting.at(each, level) for each in (joules.chip, joules.computer, joules.facility)
        )
        assert chip <= computer <= facility * (1 + 1e-9)
        assert hosting.at(year.kwh, level) * 3.6e6 == pytest.approx(facility * year.answers)
    assert year.answers == pytest.approx(load * planning.SECONDS_A_YEAR)
    assert year.carbon.value == pytest.approx(hosting.at(year.kwh, "value") * 0.056)
    assert hosting.at(found.busy, "value") <= 1
    assert hosting.at(found.batch, "value") <= found.batch_most
    carried = hosting.at(found.answers_per_second_most, "value")
    assert load <= carried * (1 + 1e-6)


@settings(deadline=None, max_examples=60)
@given(size=sizes, name=named, read=tokens, written=tokens, batch=st.floats(1, 255))
def test_a_larger_batch_writes_no_fewer_answers(
    size: int, name: str, read: int, written: int, batch: float
) -> None:
    model, facts = model_of_size(size, 8), facts_of(name)
    for one in hosting.copies_at(model, facts, SERVING, read, written).values():
        assert one.rate(batch) <= one.rate(batch + 1) * (1 + 1e-9)


def test_without_a_country_carbon_is_a_range_without_a_middle() -> None:
    found = planned(20 * 10**9, task=Task(0.1, 500, 250)).year.carbon
    assert found.value is None
    assert found.low < found.high


def test_water_on_the_site_is_that_of_data_centres() -> None:
    year = planned(20 * 10**9).year
    computers = hosting.at(planned(20 * 10**9).joules.computer, "value") * year.answers / 3.6e6
    assert year.water.value == pytest.approx(computers * (0.36 + 1.54 * 3.1))
    laptop = planned(10**9, 4, device("laptop")).year
    assert laptop.water.value == pytest.approx(hosting.at(laptop.kwh, "value") * 3.1)


@pytest.mark.parametrize("name", ["laptop", "phone", "pi-5"])
def test_what_one_such_device_does_not_hold_does_not_fit(name: str) -> None:
    found = plan(model_of_size(500 * 10**9, 4, "500B"), device(name), TASK)
    assert not found.fits
    assert found.devices is None
    assert name in found.why
    assert "300 GB" in found.why
    assert not plan(model_of_size(10**14, 16), A100, TASK).fits


def test_a_long_answers_context_has_to_fit_too() -> None:
    short, long = (planned(30 * 10**9, task=Task(1e-3, read, 250)) for read in (500, 200_000))
    assert short.devices_a_copy < long.devices_a_copy


@pytest.mark.parametrize(
    ("told", "parameters"),
    [
        ("500B", 500e9),
        ("1.5b", 1.5e9),
        ("270M", 270e6),
        ("20_000_000_000", 20e9),
        ("20,000,000,000", 20e9),
        ("2e10", 2e10),
        (" 1 T ", 1e12),
        ("800k", 800e3),
    ],
)
def test_sizes_as_people_write_them(told: str, parameters: float) -> None:
    assert read_size(told) == parameters
    assert read_size(short_size(parameters)) == parameters


@pytest.mark.parametrize(
    ("told", "a_second"),
    [
        ("10req/s", 10),
        ("500/min", 500 / 60),
        ("2e6/day", 2e6 / 86400),
        ("0.5 req/s", 0.5),
        ("1000 requests/hour", 1000 / 3600),
        ("1,000 requests per hour", 1000 / 3600),
        (".5/sec", 0.5),
        ("1 answer/year", 1 / 31_536_000),
    ],
)
def test_loads_as_people_write_them(told: str, a_second: float) -> None:
    assert read_load(told) == pytest.approx(a_second)


@pytest.mark.parametrize(
    "told",
    ["", "10", "req/s", "0/s", "-1/s", "nan/s", "inf/s", "1e99/s", "1e-30/s", "10/fortnight", "_/s",
     "2e6/day/day"],
)  # fmt: skip
def test_a_load_that_is_none_is_one_line_with_what_to_give(told: str) -> None:
    with pytest.raises(OptionError, match=r"--load is .*(such as 10req/s|a year and a million)"):
        read_load(told)


@pytest.mark.parametrize(
    "told", ["", " ", "0B", "-5B", "nan", "inf", "5e99", "1e9B", "7", "B", "_"]
)
def test_a_size_that_is_none_is_one_line_with_what_to_give(told: str) -> None:
    with pytest.raises(OptionError, match=r"such as 500B") as caught:
        read_model(told, 16)
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(size=st.floats(1e4, 4e13).map(round))
def test_beside_a_model_stand_a_small_one_and_a_bigger_one(size: int) -> None:
    beside = sizes_beside(size)
    assert beside[-1] > size
    if len(beside) == 2:
        assert math.isclose(size / beside[0], 25, rel_tol=0.01)
    else:
        assert size < 25e4


def test_beside_the_biggest_that_is_taken_stands_no_bigger_one() -> None:
    assert [each < 1e14 for each in sizes_beside(10**14)] == [True]


def test_beside_500b_stand_20b_and_1t() -> None:
    assert [short_size(each) for each in sizes_beside(500 * 10**9)] == ["20B", "1T"]
