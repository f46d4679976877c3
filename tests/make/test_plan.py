from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import flyweight
import zoo
from flyweight.cli import main
from flyweight.energy import load as reading
from flyweight.energy.constants import constants
from flyweight.energy.machine import cores
from flyweight.errors import OptionError, TeacherError
from flyweight.figure import Figure
from flyweight.make import plan_here
from flyweight.make.plan_show import MASS, POWER, ranged, short, show_plan


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLYWEIGHT_COUNTRY", raising=False)
    monkeypatch.setenv("FLYWEIGHT_COMPUTER", "laptop")
    monkeypatch.delenv("FLYWEIGHT_WATTS", raising=False)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flyweight", "plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def shown(found: dict[str, Any], width: int = 80) -> str:
    into = StringIO()
    show_plan(found, Console(file=into, width=width, highlight=False, emoji=False))
    return into.getvalue()


def figures(found: Any) -> list[Figure]:
    if isinstance(found, dict) and {"low", "high", "kind"} <= found.keys():
        return [Figure.model_validate(found)]
    if not isinstance(found, dict | list):
        return []
    inside = found.values() if isinstance(found, dict) else found
    return [each for one in inside for each in figures(one)]


def test_500b_takes_16_devices_and_20b_one() -> None:
    for size, devices, copies in (("500B", 16, 1), ("20B", 1, 1)):
        done = run(size, "--bits", "16", "--device", "a100-80", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        found = json.loads(done.stdout)
        assert (found["devices"], found["copies"]) == (devices, copies)
        assert found["fits"]


def test_json_is_what_the_verb_returns_and_labelled(capsys: pytest.CaptureFixture[str]) -> None:
    found = flyweight.plan("500B", country="fra", load="10req/s", bits=8, json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(json.dumps(found))
    assert (found["kind"], found["constants"]) == ("assumed", constants().version)
    assert (found["load"], found["read"], found["write"]) == (10, 500, 250)
    assert found["country"] == "FRA"
    assert [each["model"] for each in found["beside"]] == ["20B", "1T"]
    assert [(each["bigger"], each["smaller"]) for each in found["ratios"]] == [
        ("500B", "20B"),
        ("1T", "500B"),
    ]
    assert len(figures(found)) > 40
    assert all(each.kind == "assumed" for each in figures(found))


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_says_what_is_assumed_and_fits_the_terminal(width: int) -> None:
    said = shown(flyweight.plan("500B"), width)
    assert f"all figures are assumed, with constants of {constants().version}" in said
    assert "500 tokens read and 250 written" in said
    assert "500B takes 16 to 100 times the energy of 20B" in said
    assert "16  devices alone" in said
    assert "25  bytes of weights" in said
    assert all(len(line.rstrip()) <= width for line in said.splitlines())
    for label in ("devices", "takes", "energy, chip", "CO2e of power", "water"):
        [line] = [each for each in said.splitlines() if each.strip().startswith(f"{label} ")][:1]
        assert sum(character.isdigit() for character in line) >= 3  # a cell for each model


def test_a_model_that_a_phone_cannot_hold_is_no_plan_of_many_phones() -> None:
    found = flyweight.plan("500B", device="phone", bits=4)
    assert (found["fits"], found["devices"]) == (False, None)
    assert "does not fit: 300 GB" in found["why"]
    small, _ = found["beside"]
    assert not small["fits"]  # 20B at 4 bits: 12 GB
    assert found["ratios"] == []
    assert "500B does not fit" in shown(found)


def test_others_can_be_put_beside() -> None:
    found = flyweight.plan("7B", against=["70B", "1B"])
    assert [each["model"] for each in found["beside"]] == ["70B", "1B"]
    assert found["ratios"][0]["bigger"] == "70B"


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_a_folder_tells_its_size_shape_and_experts(tmp_path: Path, family: str) -> None:
    model = zoo.build(family)
    folder = tmp_path / "tiny"
    model.save_pretrained(folder)
    read = reading.read_model(str(folder), 4)
    assert read.name == "tiny"
    assert read.parameters == sum(each.numel() for each in model.parameters())
    assert read.kv.value == 2 * 2 * 4 * 4 * 16  # both, bytes, layers, groups, head dimension
    assert (read.active < read.parameters) == (family == "qwen3_moe")
    if family == "qwen3_moe":
        assert read.bytes_read(1) == pytest.approx(read.active / 2)
        said = flyweight.plan(str(folder), device="phone", against=["1M"])["assumptions"]
        assert any("parameters a token meets" in each for each in said)


def test_an_encoder_and_a_stranger_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.build("bert").save_pretrained(tmp_path / "bert")
    with pytest.raises(OptionError, match="writes nothing"):
        reading.read_model(str(tmp_path / "bert"), 16)
    with pytest.raises(OptionError, match="neither a model's size nor its folder"):
        reading.read_model(str(tmp_path / "absent"), 16)
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "gpt2"}')
    monkeypatch.setattr("flyweight.checkpoint._check_weights", lambda *_: None)
    with pytest.raises(OptionError, match="give its size instead"):
        reading.read_model(str(tmp_path / "gpt2"), 16)


def test_of_a_hub_name_only_the_config_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = zoo.build("llama")
    model.config.save_pretrained(tmp_path)
    asked = []

    def answer(name: str, file: str) -> str:
        asked.append((name, file))
        if name != "some/model":
            raise OSError("no network")
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", answer)
    found = reading.read_model("some/model", 16)
    assert asked == [("some/model", "config.json")]
    assert found.parameters == sum(each.numel() for each in model.parameters())
    with pytest.raises(TeacherError, match=r"no network\).*its size instead"):
        reading.read_model("some/other", 16)


def test_this_machine_is_measured_and_its_watts_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_here, "read_speed", lambda size: 10e9)
    monkeypatch.setattr(plan_here, "_arithmetic", lambda: 1e11)
    device = plan_here.this_machine()
    kind = constants().computers["laptop"]
    assert (device.name, device.most) == ("this", 1)
    assert device.facts.memory > 1e8
    assert (device.facts.bandwidth, device.facts.flops) == (10e9, 1e11)
    assert kind.core.value is not None
    assert kind.idle.value is not None
    assert device.facts.busy.value == kind.core.value * cores() + kind.idle.value
    assert "measured" in device.facts.source
    found = flyweight.plan("100M", device="this", bits=4, load="1/min")
    assert (found["device"], found["devices"]) == ("this", 1)
    assert all(each.kind == "assumed" for each in figures(found))
    assert "machine" in " ".join(found["assumptions"])


def test_arithmetic_is_measured() -> None:
    assert plan_here._arithmetic() > 1e8


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["0B"], "0B"),
        (["nonsense"], "nonsense"),
        (["500B", "--load", "0/s"], "--load"),
        (["500B", "--load", "nan/s"], "--load"),
        (["500B", "--device", "tpu"], "tpu"),
        (["500B", "--country", "XXX"], "XXX"),
        (["500B", "--against", "inf"], "inf"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], wrong: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["flyweight", "plan", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    [line] = printed.err.splitlines()
    assert line.startswith("flyweight: ")
    assert wrong in line


@pytest.mark.parametrize(
    ("option", "value"),
    [("bits", 1), ("bits", 64), ("read", 0), ("write", 0), ("write", 10**9), ("read", -5),
     ("against", ["1B"] * 5)],
)  # fmt: skip
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"--{option}"):
        flyweight.plan("1B", **{option: value})


@pytest.mark.parametrize(
    ("low", "value", "high", "said"),
    [
        (28e3, 46e3, 84e3, "46 (28–84) MWh"),
        (46.0, 46.0, 46.0, "46 kWh"),
        (1200, None, 30e3, "1.2–30 MWh"),
        (0, 0, 0, "0 Wh"),
        (0.95, 0.9996, 2345, "1 (0.95–2,300) kWh"),
    ],
)
def test_a_figure_and_its_range_share_a_unit(
    low: float, value: float | None, high: float, said: str
) -> None:
    assert ranged({"low": low, "value": value, "high": high}, POWER) == said


def test_no_more_digits_than_a_figure_is_worth() -> None:
    values = (0, 0.0234, 0.5, 1.234, 9.96, 12.3, 345.6, 9876, 2.0)
    assert [short(each) for each in values] == [
        "0", "0.023", "0.5", "1.2", "10", "12", "346", "9,900", "2",
    ]  # fmt: skip
    assert ranged({"low": 1, "value": 2, "high": 3}, MASS) == "2 (1–3) kg"
