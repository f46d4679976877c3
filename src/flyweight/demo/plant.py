"""The plant of the demo: its machines, faults, severities and what to do about each.

Everything here is invented. A work order is four facts; its action follows from the plant's
own table (fault by severity), which a model has to learn: the words alone do not give it away.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

SEVERITIES = ("low", "medium", "high")

COMMON_KINDS = (
    "pump", "conveyor", "press", "fan", "motor", "mixer", "boiler",
    "compressor", "robot", "oven", "valve", "crane", "lathe", "drill",
)  # fmt: skip
RARE_KINDS = ("chiller", "palletizer", "centrifuge", "shredder", "dryer", "labeler")

# What people say instead of the name in the register.
ALIASES = {
    "conveyor": "belt", "fan": "blower", "press": "stamper", "robot": "robot arm",
    "oven": "furnace", "crane": "hoist", "mixer": "blender", "motor": "drive",
    "dryer": "drying unit", "labeler": "label machine",
}  # fmt: skip

CODES = {
    "pump": "PU", "conveyor": "CV", "press": "PR", "fan": "FA", "motor": "MO", "mixer": "MX",
    "boiler": "BO", "compressor": "CO", "robot": "RO", "oven": "OV", "valve": "VA", "crane": "CR",
    "lathe": "LA", "drill": "DR", "chiller": "CH", "palletizer": "PA", "centrifuge": "CE",
    "shredder": "SH", "dryer": "DY", "labeler": "LB",
}  # fmt: skip

# fault: (action at low, medium, high severity)
ACTIONS = {
    "leak": ("tighten", "reseal", "isolate"),
    "vibration": ("monitor", "balance", "stop"),
    "noise": ("monitor", "inspect", "stop"),
    "overheat": ("monitor", "clean", "stop"),
    "jam": ("clear", "inspect", "isolate"),
    "power": ("reset", "inspect", "replace"),
    "pressure": ("monitor", "refill", "stop"),
    "smoke": ("inspect", "isolate", "evacuate"),
    "wear": ("order", "replace", "stop"),
    "misaligned": ("monitor", "align", "stop"),
    "sensor": ("clean", "calibrate", "replace"),
    "dry": ("grease", "inspect", "stop"),
}
FAULTS = tuple(ACTIONS)
ESCALATED = "escalate"  # the operator has tried already: a specialist comes


@dataclass(frozen=True)
class Asset:
    """One machine: its kind and its number on the floor (1 to 40)."""

    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind} {self.number}"


@dataclass(frozen=True)
class WorkOrder:
    """What maintenance needs to know: which machine, what is wrong, how bad, what to do."""

    asset: Asset
    fault: str
    severity: str
    tried: bool = False

    @property
    def action(self) -> str:
        if self.tried:
            return ESCALATED
        return ACTIONS[self.fault][SEVERITIES.index(self.severity)]

    def to_json(self) -> str:
        """The exact answer of the work-order job: compact JSON, keys in this order."""
        fields = {
            "asset": str(self.asset),
            "fault": self.fault,
            "severity": self.severity,
            "action": self.action,
        }
        return json.dumps(fields, separators=(",", ":"))


# Readings that decide a severity: (unit as written, lowest, highest, decimals, medium from,
# high from). For pressure the scale runs downwards: less is worse.
@dataclass(frozen=True)
class Gauge:
    """A measured quantity with the plant's limits; `falling` when less is worse."""

    unit: str
    lowest: float
    highest: float
    decimals: int
    medium: float
    high: float
    falling: bool = False

    def severity(self, value: float) -> str:
        """The plant's severity for a reading in this gauge's unit."""
        if self.falling:
            return "high" if value < self.high else "medium" if value < self.medium else "low"
        return "high" if value >= self.high else "medium" if value >= self.medium else "low"


GAUGES = {
    "overheat": (Gauge("C", 50, 120, 0, 75, 90), Gauge("F", 122, 248, 0, 167, 194)),
    "vibration": (Gauge("mm/s", 1.0, 12.0, 1, 4.5, 7.1),),
    "pressure": (
        Gauge("bar", 0.5, 6.0, 1, 4.0, 2.5, falling=True),
        Gauge("psi", 8, 87, 0, 58, 36, falling=True),
    ),
}
