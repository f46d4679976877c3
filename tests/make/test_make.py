"""The main job from end to end, on teachers so small that it takes seconds."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import flyweight
from flyweight.card import Card, VerdictCard
from flyweight.energy.constants import JOULES_A_KWH
from flyweight.errors import FolderError, OptionError
from flyweight.folder import MARK, read_card, read_scores
from flyweight.make.budget import LEAST_BYTES, Budgets
from flyweight.make.course import works_of
from flyweight.make.effort import EFFORTS
from flyweight.make.journal import Journal
from flyweight.make.machine import this_machine
from flyweight.make.options import check_options
from flyweight.make.quote_energy import foretold
from flyweight.make.run import prepare_job
from flyweight.make.store import open_store, work_folder
from flyweight.sticker_card import Sticker
from flyweight.tasks.read import read_task

SIZES = {"train": 24, "dev": 12, "test": 12}
QUICK: dict[str, Any] = {"effort": "quick", "steps": 2}
LOAD = """
import sys
sys.modules["flyweight"] = None  # an import of it fails from here on
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer("pump 1", return_tensors="pt")
model.generate(**ids, max_new_tokens=4, do_sample=False)
print(sum(weight.numel() for weight in model.parameters()))
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Openings of test are counted in a folder of this test's own; one thread, as in CI."""
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def brief_llama(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random teacher that soon ends its answers: its end token is drawn wider than the rest."""
    from safetensors.torch import load_file, save_file

    folder = make_llama(tmp_path_factory.mktemp("brief") / "llama", max_position_embeddings=1024)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][1] *= 4
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def json_llama(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that has learned to answer everything with the same JSON."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from flyweight.tasks.encode import encode

    folder = make_llama(tmp_path_factory.mktemp("json") / "llama", initializer_range=0.05)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [question(split, i)["prompt"] for i in range(12) for split in SIZES]
    examples = [
        encode(tokenizer, [{"role": "user", "content": prompt}], '{"ok":true,"n":1}')
        for prompt in prompts
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(150):
        example = examples[step % len(examples)]
        ids = torch.tensor(example.ids, dtype=torch.long)[None]
        labels = ids.clone()
        labels[:, : example.prompt_length] = -100
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def write_task(path: Path, record: Callable[[str, int], dict[str, Any]]) -> Path:
    """SIZES items, two of a group, in two slices; `record` says what each asks."""
    lines = [
        {"group": f"{split}{i // 2}", "split": split, "slice": ["even", "odd"][i % 2]}
        | record(split, i)
        for split, count in SIZES.items()
        for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


def question(split: str, i: int) -> dict[str, Any]:
    return {"prompt": f"{split} pump {i}"}


# ------------------------------------------------------------------ what every folder must hold


def check_folder(folder: Path, teacher: Path, task: Path) -> Card:
    """Everything that any run must hand over; returns the card."""
    card = read_card(folder)
    check_files(folder, card)
    check_scores(card, task)
    check_verdict(card.verdict)
    assert card.teacher.bytes == 2 * card.teacher.parameters
    assert card.teacher.sha256 == sha256(teacher / "model.safetensors")
    assert card.parity.equal + len(card.parity.near_ties) == card.parity.prompts > 0
    assert card.student.bytes == (folder / GGUF[card.bits]).stat().st_size
    assert card.student.bytes < card.teacher.bytes
    assert [row.role for row in card.rows].count("teacher") == 1
    assert [row.chosen for row in card.rows].count(True) == 1
    assert all(row.bytes >= LEAST_BYTES[4] * row.parameters for row in card.rows)
    for word in (card.verdict.word, card.name):
        assert word.lower() in (folder / "README.md").read_text(encoding="utf-8").lower()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert card.verdict.sentence.split(" ")[0] in page
    assert "<script src" not in page
    assert "http://" not in page.replace(
        "http://www.w3.org", ""
    )  # nothing is loaded from elsewhere
    return card


GGUF = {16: "model-f16.gguf", 8: "model-q8_0.gguf", 4: "model-q4_0.gguf", 5: "model-q5_0.gguf"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_energy(folder: Path, card: Card) -> None:
    """The sticker in the card is the one beside it, and the quote says foretold and taken."""
    sticker, quote = card.sticker, card.quote
    assert sticker is not None
    assert Sticker.model_validate_json((folder / "sticker.json").read_bytes()) == sticker
    assert sticker.joules.chip == card.student.joules.chip  # type: ignore[union-attr]
    assert sticker.making is not None
    assert quote is not None
    assert quote.energy is not None
    assert quote.actual_energy is not None
    assert sticker.making.kwh.value == pytest.approx(quote.actual_energy.value)
    # a job cannot have taken more than all cores at their most watts, in its seconds
    assert quote.actual_seconds is not None
    most = foretold(quote.actual_seconds + 60, "this").high / JOULES_A_KWH
    assert 0 < quote.actual_energy.low <= quote.actual_energy.high < 2 * most


def check_files(folder: Path, card: Card) -> None:
    """The card lists every file but those that speak about it, with its size and hash."""
    there = {path.name for path in folder.iterdir()}
    speaking = {"card.json", "README.md", "report.html", "sticker.svg", "sticker.png"}
    assert there == {*card.files, *speaking, "sticker.json", ".flyweight"}
    check_energy(folder, card)
    assert {"config.json", "model.safetensors", "tokenizer.json", *GGUF.values()} <= there
    assert len(read_scores(folder).student) == SIZES["test"]
    for name, entry in card.files.items():
        data = (folder / name).read_bytes()
        assert (entry.bytes, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def check_scores(card: Card, task: Path) -> None:
    read = read_task(task)
    assert (card.task.sha256, card.task.test_sha256) == (sha256(task), read.test_sha256)
    assert {name: getattr(card.task, name) for name in SIZES} == SIZES
    for scores in (card.scores.teacher, card.scores.student):
        for split in ("dev", "test"):
            score = getattr(scores, split)
            assert 0 <= score.low <= score.mean <= score.high
            assert (score.n, score.groups) == (SIZES[split], SIZES[split] // 2)
    assert {part.name: part.n for part in card.slices} == {"even": 6, "odd": 6}


def check_verdict(verdict: VerdictCard) -> None:
    """The word follows from the limits and the bar, whatever the program says."""
    assert verdict.low <= verdict.estimate <= verdict.high
    passes, short = verdict.low >= verdict.bar, verdict.high < verdict.bar
    assert verdict.word == ("passes" if passes else "falls short" if short else "cannot tell")


def plain_parameters(folder: Path) -> int:
    """Parameters of the checkpoint as transformers loads it, in a process without Flyweight."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


# ------------------------------------------------------------------ the runs


def test_without_answers_the_teacher_writes_them_and_no_bar_reached_is_a_verdict(
    brief_llama: Path, tmp_path: Path
) -> None:
    task = write_task(tmp_path / "task.jsonl", question)
    out = flyweight.make(str(brief_llama), task=task, out=tmp_path / "made" / "out", **QUICK)
    card = check_folder(out, brief_llama, task)
    assert card.scores.teacher.test.mean == 1  # against its own answers
    assert card.verdict.word != "passes"
    assert card.verdict.opening == 1
    assert all(answer.wanted == answer.teacher for answer in card.answers)
    assert plain_parameters(out) == card.parameters
    assert sorted(out.parent.iterdir()) == [out, work_folder(out)]


def test_what_the_teacher_answered_is_kept_for_another_score_where_it_is_no_labels(
    brief_llama: Path, tmp_path: Path
) -> None:
    words = ["oil", "hot", "near the valve", "leaks", "who?", "7", "+", "wet", "no", "Öl", "a", "("]
    task = write_task(tmp_path / "task.jsonl", lambda s, i: {"prompt": f"{words[i % 12]} {s} {i}"})
    job: dict[str, Any] = {"task": task, "out": tmp_path / "out", **QUICK}
    with pytest.raises(
        OptionError, match=r"task: \w+ has 12 items, of which .* an answer of their"
    ):
        flyweight.make(str(brief_llama), score="macro-f1", **job)
    [kept] = work_folder(job["out"]).glob("answers-*")
    flyweight.make(str(brief_llama), score="f1", **job)
    found = [event["name"] for event in Journal(kept.parent).events() if event["event"] == "found"]
    assert kept.name in found
    assert [*kept.parent.glob("answers-*")] == [kept]


def test_where_no_place_is_named_each_task_has_its_own_beside_the_demos(
    brief_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    demo = Path("out", "demo")
    demo.mkdir(parents=True)
    (demo / MARK).touch()
    Path("out", "demo-task.jsonl").write_text("as `make demo` leaves it", encoding="utf-8")
    for name in ("tickets", "notes"):
        write_task(Path(f"{name}.jsonl"), lambda s, i, name=name: {"prompt": f"{name} {s} {i}"})
    asked: dict[str, Any] = {**QUICK, "dry_run": True}
    one = flyweight.make(str(brief_llama), task=Path("tickets.jsonl"), **asked)
    both = [Path("tickets.jsonl"), Path("notes.jsonl")]
    two = flyweight.make(str(brief_llama), task=both, **asked)
    assert (one, two) == (Path("out/tickets"), Path("out/tickets+notes"))


def test_where_no_place_is_named_no_other_jobs_model_is_replaced(
    brief_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = write_task(Path("data.jsonl"), question)
    Path("other").mkdir()
    other = write_task(Path("other/data.jsonl"), lambda s, i: {"prompt": f"{s} valve {i}"})
    twin = shutil.copytree(brief_llama, "twin")
    asked: dict[str, Any] = {**QUICK, "dry_run": True}
    out = flyweight.make(str(brief_llama), task=mine, **QUICK)
    assert out == Path("out/data")
    for removed in (False, True):
        if removed:
            shutil.rmtree(work_folder(out))
        for teacher, task in ((brief_llama, other), (twin, mine)):
            with pytest.raises(FolderError, match=rf"out/data belongs .* {brief_llama} for .*data"):
                flyweight.make(str(teacher), task=task, **asked)
            assert flyweight.make(str(teacher), task=task, out=out, **asked) == out
        assert flyweight.make(f"{brief_llama}/.", task=mine.resolve(), bar=0.5, **asked) == out
    shutil.rmtree(out)
    with open_store(out) as store:  # a job that was stopped
        store.journal.start({"teacher": str(twin), "tasks": (mine,)}, {})
    with pytest.raises(FolderError, match=r"out/data belongs .* twin for data\.jsonl\. Name"):
        flyweight.make(str(brief_llama), task=mine, **asked)


def test_a_second_bar_opens_test_again_and_the_same_one_does_not(
    brief_llama: Path, tmp_path: Path
) -> None:
    task = write_task(tmp_path / "task.jsonl", question)
    cards = []
    for bar in (0.5, 0.2, 0.5):
        out = flyweight.make(
            str(brief_llama), task=task, out=tmp_path / "out", bar_absolute=bar, **QUICK
        )
        cards.append(check_folder(out, brief_llama, task))
    assert [card.verdict.opening for card in cards] == [1, 2, 1]
    assert [card.verdict.absolute for card in cards] == [True] * 3
    assert cards[0].verdict.confidence < cards[1].verdict.confidence
    first, _, again = ({n: e.sha256 for n, e in card.files.items()} for card in cards)
    assert first == again  # the same seed makes the same bytes


def test_likelihood_on_plain_text(tiny_llama: Path, tmp_path: Path) -> None:
    def text(split: str, i: int) -> dict[str, Any]:
        return {"text": f"the {split} pump {i} is leaking oil near the valve, send somebody"}

    task = write_task(tmp_path / "text.jsonl", text)
    out = flyweight.make(
        str(tiny_llama), task=task, out=tmp_path / "out", score="likelihood", **QUICK
    )
    card = check_folder(out, tiny_llama, task)
    mean, itself = card.scores.student.test.mean, card.scores.teacher.test.mean
    assert card.verdict.estimate == pytest.approx(itself / mean)
    assert itself == pytest.approx(bits_per_byte(tiny_llama, task), rel=1e-3)
    assert card.answers == []


def bits_per_byte(folder: Path, task: Path) -> float:
    """Of the test texts by the definition, with transformers' own loss."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    nats = size = 0.0
    for item in read_task(task).test:
        content = item.messages[-1]["content"]
        ids = torch.tensor([[0, *tokenizer(content, add_special_tokens=False)["input_ids"]]])
        with torch.inference_mode():
            nats += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        size += len(content.encode())
    return nats / size / torch.log(torch.tensor(2.0)).item()


def test_json_is_scored_field_by_field_and_a_learned_answer_passes(
    json_llama: Path, tmp_path: Path
) -> None:
    def order(split: str, i: int) -> dict[str, Any]:
        return question(split, i) | {"answer": {"ok": True, "n": 1 if i % 4 else 2}}

    task = write_task(tmp_path / "orders.jsonl", order)
    out = flyweight.make(
        str(json_llama),
        task=task,
        out=tmp_path / "out",
        score="json",
        bar=0.3,
        steps=60,
        effort="quick",
    )
    card = check_folder(out, json_llama, task)
    assert card.scores.teacher.test.mean == pytest.approx(0.875)  # one of two fields on a quarter
    assert card.verdict.estimate == pytest.approx(1)
    assert card.verdict.word == "passes"  # six groups tell no more than a bar of 0.3


def test_forty_chats_in_parquet_cannot_tell_and_say_how_many_would(
    json_llama: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    splits = ["train"] * 16 + ["dev"] * 12 + ["test"] * 12
    rows = [
        {
            "messages": [{"role": "user", "content": f"{split} pump {i}"}],
            "answer": '{"ok":true,"n":1}',
            "split": split,
        }
        for i, split in enumerate(splits)
    ]
    task = tmp_path / "chats.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), task)
    out = flyweight.make(str(json_llama), task=task, out=tmp_path / "out", steps=60, effort="quick")
    card = read_card(out)
    check_verdict(card.verdict)
    assert card.verdict.estimate == pytest.approx(1)
    assert card.verdict.word == "cannot tell"
    assert card.verdict.more_groups
    assert f"{card.verdict.more_groups:,} more groups" in card.verdict.sentence
    assert card.quote is not None
    assert card.quote.actual_seconds == pytest.approx(sum(card.recipe.seconds.values()), rel=0.01)
    roles = {row.role for row in card.rows}
    assert roles == {"teacher", "quantised teacher", "from scratch", "candidate"}
    [scratch] = [row for row in card.rows if row.role == "from scratch"]
    [chosen] = [row for row in card.rows if row.chosen]
    assert scratch.dev.mean == 0 or scratch.chosen_over <= chosen.dev.mean / scratch.dev.mean
    assert (scratch.chosen_over is None) == (scratch.dev.mean == 0)
    check_learned(card, str(json_llama), task)


def check_learned(card: Card, teacher: str, task: Path) -> None:
    """What this first job leaves for the next quote: its course, and the stages foreseen for it."""
    machine = this_machine()
    [past] = machine.courses
    fates = ["finished" if share == 1 else "dropped" for share in past.course.trained]
    assert fates == [each.fate.replace("hopeless", "dropped") for each in card.recovery]
    options = check_options(
        teacher, task, task.with_name("other"), 0.95, None, "exact", "bytes", "quick", Budgets(),
        60, 0,
    )  # fmt: skip
    sizes = prepare_job(options, "this").sizes
    foreseen: dict[str, list[float]] = {}
    for work in works_of(past.course, sizes, EFFORTS["quick"]):
        foreseen.setdefault(work.kind, []).append(work.tokens)
    taken = {kind: [tokens for tokens, _, _ in each] for kind, each in machine.records.items()}
    kinds = ("teacher", "score", "record", "rank", "distil", "scratch", "pack", "rival", "test")
    for kind in kinds:
        assert len(taken[kind]) == len(foreseen[kind]), kind
        assert sum(taken[kind]) == pytest.approx(sum(foreseen[kind]), rel=0.05), kind


def test_a_budget_is_kept_and_uses_what_is_known(json_llama: Path, tmp_path: Path) -> None:
    task = write_task(tmp_path / "task.jsonl", lambda s, i: question(s, i) | {"answer": "pump"})
    job: dict[str, Any] = {"task": task, "out": tmp_path / "out", "bar_absolute": 0.5, **QUICK}
    flyweight.make(str(json_llama), **job)
    sizes = [row.bytes for row in read_card(tmp_path / "out").rows if row.role == "candidate"]
    before = {path for path in work_folder(tmp_path / "out").iterdir() if path.is_dir()}
    flyweight.make(str(json_llama), **job, budget=f"{min(sizes)}B")
    assert read_card(tmp_path / "out").student.bytes <= min(sizes)
    assert before <= set(work_folder(tmp_path / "out").iterdir())
    with pytest.raises(OptionError, match="nothing was made within the budgets"):
        flyweight.make(str(json_llama), **job, budget="1kB")
