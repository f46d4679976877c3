"""The plant's table and limits, and that a work order is written exactly."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.demo.plant import (
    ACTIONS,
    ALIASES,
    CODES,
    COMMON_KINDS,
    ESCALATED,
    FAULTS,
    GAUGES,
    RARE_KINDS,
    SEVERITIES,
    Asset,
    Gauge,
    WorkOrder,
)

KINDS = (*COMMON_KINDS, *RARE_KINDS)
orders = st.builds(
    WorkOrder,
    st.builds(Asset, st.sampled_from(KINDS), st.integers(1, 40)),
    st.sampled_from(FAULTS),
    st.sampled_from(SEVERITIES),
    st.booleans(),
)
EVERY_GAUGE = [
    pytest.param(fault, gauge, id=f"{fault} in {gauge.unit}")
    for fault, gauges in GAUGES.items()
    for gauge in gauges
]


def test_every_kind_has_one_code_and_no_name_means_two_machines() -> None:
    assert CODES.keys() == set(KINDS)
    assert len(KINDS) == len(set(KINDS))
    assert len(set(CODES.values())) == len(CODES)
    names = [*KINDS, *ALIASES.values()]
    assert len(set(names)) == len(names)
    assert ALIASES.keys() <= set(KINDS)


def test_the_action_is_not_given_away_by_severity_or_fault_alone() -> None:
    by_severity = [{row[i] for row in ACTIONS.values()} for i in range(len(SEVERITIES))]
    assert all(len(actions) > 2 for actions in by_severity)
    assert all(len(set(row)) == len(SEVERITIES) for row in ACTIONS.values())
    assert all(ESCALATED not in row for row in ACTIONS.values())


@given(orders)
def test_an_order_is_compact_json_with_its_action_from_the_table(order: WorkOrder) -> None:
    written = order.to_json()
    fields = json.loads(written)
    assert written == json.dumps(fields, separators=(",", ":"))
    assert list(fields) == ["asset", "fault", "severity", "action"]
    assert fields["asset"] == f"{order.asset.kind} {order.asset.number}"
    row = dict(zip(SEVERITIES, ACTIONS[fields["fault"]], strict=True))
    assert fields["action"] == (ESCALATED if order.tried else row[fields["severity"]])


@pytest.mark.parametrize(("fault", "gauge"), EVERY_GAUGE)
def test_a_gauge_grows_worse_in_one_direction_and_shows_every_severity(
    fault: str, gauge: Gauge
) -> None:
    step = 10**-gauge.decimals
    steps = round((gauge.highest - gauge.lowest) / step)
    values = [round(gauge.lowest + i * step, gauge.decimals) for i in range(steps + 1)]
    ranks = [SEVERITIES.index(gauge.severity(value)) for value in values]
    assert ranks == sorted(ranks, reverse=gauge.falling)
    assert set(ranks) == {0, 1, 2}
    assert fault in FAULTS


@pytest.mark.parametrize(
    ("fault", "unit", "value", "severity"),
    [
        ("overheat", "C", 74, "low"),
        ("overheat", "C", 75, "medium"),
        ("overheat", "C", 90, "high"),
        ("overheat", "F", 166, "low"),
        ("overheat", "F", 194, "high"),
        ("vibration", "mm/s", 4.4, "low"),
        ("vibration", "mm/s", 7.1, "high"),
        ("pressure", "bar", 2.4, "high"),
        ("pressure", "bar", 2.5, "medium"),
        ("pressure", "bar", 4.0, "low"),
        ("pressure", "psi", 35, "high"),
        ("pressure", "psi", 58, "low"),
    ],
)
def test_limits_are_those_of_the_plant(fault: str, unit: str, value: float, severity: str) -> None:
    gauge = next(gauge for gauge in GAUGES[fault] if gauge.unit == unit)
    assert gauge.severity(value) == severity


def test_both_units_of_a_quantity_mean_the_same() -> None:
    celsius, fahrenheit = GAUGES["overheat"]
    assert (fahrenheit.medium, fahrenheit.high) == tuple(
        celsius_limit * 9 / 5 + 32 for celsius_limit in (celsius.medium, celsius.high)
    )
    bar, psi = GAUGES["pressure"]
    for in_bar, in_psi in ((bar.medium, psi.medium), (bar.high, psi.high)):
        assert math.isclose(in_bar * 14.5038, in_psi, abs_tol=0.5)  # a psi has no decimals
