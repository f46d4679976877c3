"""The verbs `sticker` and `usage`: what they write, what they refuse."""

from __future__ import annotations

import json
import shutil
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

import flyweight
import flyweight.demo
from flyweight.anatomy.gguf import LLAMA
from flyweight.cli import main
from flyweight.energy.ledger import Ledger, entry, ledger_file
from flyweight.errors import FolderError, OptionError
from flyweight.figure import Figure
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.gguf import write_gguf
from flyweight.sticker_card import Boundaries, Sticker

SCHEMA = Path(__file__).parents[2] / "docs/reference/sticker.schema.json"


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("FLYWEIGHT_COUNTRY", raising=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed folder without a card."""
    folder = tmp_path_factory.mktemp("sticker") / "packed"
    shutil.copytree(Path(flyweight.demo.__file__).parent / "teacher", folder)
    write_gguf(folder, folder / GGUF_NAMES[8], 8, LLAMA)
    return folder


def test_the_sticker_is_of_its_schema_and_its_parts_agree(model: Path) -> None:
    assert flyweight.sticker(model, country="fra", n=5) == model
    told = json.loads((model / "sticker.json").read_text())
    jsonschema.validate(told, json.loads(SCHEMA.read_text()))
    found = Sticker.model_validate(told)
    assert (found.country, found.answers, found.making) == ("FRA", 5, None)
    chip, facility = found.joules.chip, found.joules.facility
    both = (found.reading.value or 0.0) + (found.writing.value or 0.0)
    assert both == pytest.approx(chip.value)
    assert found.kind == chip.kind
    # the equivalents, worked out here from the definitions
    assert facility.value is not None
    assert found.answers_a_phone_charge.value == pytest.approx(19 * 3600 / facility.value)
    assert found.carbon.value == pytest.approx(56 * facility.value / 3.6e6)
    assert found.answers_a_bottle.value == pytest.approx(0.5 / (found.water.value or 0.0))
    assert found.counterfactual.joules.low > facility.low
    drawn = ElementTree.parse(model / "sticker.svg").getroot()
    assert drawn.tag.endswith("svg")
    assert (model / "sticker.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_country_the_carbon_is_a_range(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    flyweight.sticker(model, out=out, n=3)
    found = Sticker.model_validate_json((out / "sticker.json").read_bytes())
    assert found.country is None
    assert found.carbon.value is None
    assert 0 < found.carbon.low < found.carbon.high


def test_the_country_may_stand_in_the_environment(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_COUNTRY", "DEU")
    flyweight.sticker(model, out=tmp_path, n=2)
    assert Sticker.model_validate_json((tmp_path / "sticker.json").read_bytes()).country == "DEU"


def test_a_told_computer_decides_what_is_assumed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_COMPUTER", "phone")
    monkeypatch.setenv("FLYWEIGHT_WATTS", "2-3")
    flyweight.sticker(model, out=tmp_path, n=3)
    found = Sticker.model_validate_json((tmp_path / "sticker.json").read_bytes())
    assert found.device.computer == "phone"
    assert found.joules.facility == found.joules.computer  # no data centre around it
    chip = found.joules.chip
    if chip.kind == "modelled":
        assert chip.low / chip.high == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"country": "Germny"}, "DEU"),
        ({"n": 0}, "at least 1"),
        ({"answers": 0}, "at least 1"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    model: Path, tmp_path: Path, options: dict, said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        flyweight.sticker(model, out=tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("FLYWEIGHT_WATTS", "many"), ("FLYWEIGHT_WATTS", "9-2"), ("FLYWEIGHT_COMPUTER", "abacus")],
)
def test_wrong_settings_are_one_line(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["flyweight", "sticker", str(model), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert name in capfd.readouterr().err.splitlines()[-1]


def test_as_many_answers_are_metered_as_are_asked_for(model: Path, tmp_path: Path) -> None:
    flyweight.sticker(model, out=tmp_path, n=130)
    assert Sticker.model_validate_json((tmp_path / "sticker.json").read_bytes()).answers == 130


def test_another_task_brings_its_name_and_no_score(model: Path, tmp_path: Path) -> None:
    lines = [
        {"prompt": f"valve {i} drips in {split}", "answer": "ok", "split": split}
        for split in ("train", "dev", "test")
        for i in range(4)
    ]
    task = tmp_path / "drips.jsonl"
    task.write_text(
        "".join(json.dumps(each | {"group": str(i)}) + "\n" for i, each in enumerate(lines))
    )
    flyweight.sticker(model, task=task, out=tmp_path, n=4)
    found = Sticker.model_validate_json((tmp_path / "sticker.json").read_bytes())
    assert (found.task, found.score) == ("drips", None)


@pytest.mark.parametrize("place", ["/proc/none/here", "{file}/in"])
def test_a_place_that_cannot_be_written_is_one_line(
    model: Path, tmp_path: Path, place: str
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(FolderError):
        flyweight.sticker(model, out=Path(place.format(file=file)), n=2)


def test_a_folder_without_files_to_run_says_how_to_make_them(tmp_path: Path) -> None:
    teacher = Path(flyweight.demo.__file__).parent / "teacher"
    shutil.copytree(teacher, tmp_path / "bare")
    with pytest.raises(FolderError, match="flyweight pack"):
        flyweight.sticker(tmp_path / "bare")


def test_usage_sums_by_day_model_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Figure(value=2.0, low=1.0, high=4.0, kind="modelled", source="CPU time")
    joules = Boundaries(chip=one, computer=one * 2.0, facility=one * 3.0)
    lines = [
        entry("answer", model, joules, "v", key=key, read=10, written=5)
        for model, key in (("a", "anna"), ("a", "ben"), ("<b> & co", "anna"))
    ]
    old = replace(lines[0], at=time.time() - 40 * 24 * 3600)
    with Ledger(ledger_file()) as ledger:
        ledger.add(*lines, old, entry("make", "a", joules, "v"))
    for by, labels in (("model", {"<b> & co", "a"}), ("key", {"", "anna", "ben"})):
        found = flyweight.usage(by=by)
        assert {each["label"] for each in found} == labels
        assert sum(each["facility"] for each in found) == pytest.approx(4 * 6.0)
    assert sum(each["count"] for each in flyweight.usage(days=60)) == 5
    for name in ("plot.svg", "plot.png"):
        flyweight.usage(by="model", plot=tmp_path / name)
    drawn = "".join(ElementTree.parse(tmp_path / "plot.svg").getroot().itertext())
    assert "<b> & co" in drawn
    assert "18 J" in drawn  # of the model `a`: two answers and a job
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    told = flyweight.usage(json=True)
    assert json.loads(capsys.readouterr().out) == told


def test_usage_of_nothing_and_wrong_options(tmp_path: Path) -> None:
    assert flyweight.usage() == []
    assert not ledger_file().exists()  # looking makes none
    with pytest.raises(OptionError, match="day, model or key"):
        flyweight.usage(by="hour")
    with pytest.raises(FolderError):
        flyweight.usage(plot=Path("/proc/none/plot.svg"))
    with pytest.raises(OptionError, match="36,500"):
        flyweight.usage(days=10**9)
    with pytest.raises(OptionError, match="svg"):
        flyweight.usage(plot=tmp_path / "plot.pdf")
    with pytest.raises(OptionError, match="DEU"):
        flyweight.usage(country="germany")
