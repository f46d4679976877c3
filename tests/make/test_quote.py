"""The quote: what it promises grows with the job, and is settled with what was taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import flyweight
from flyweight.anatomy import Shape
from flyweight.checkpoint import open_checkpoint
from flyweight.distill.parts import AT_ONCE
from flyweight.energy.constants import facts_of
from flyweight.energy.machine import cores
from flyweight.errors import OptionError
from flyweight.make.budget import LEAST_BYTES, Budgets
from flyweight.make.course import Course, PastCourse, likely_courses, longest_course, works_of
from flyweight.make.effort import BATCH, EFFORTS, Effort, default_steps
from flyweight.make.footprint import disk, mapped_memory, memory_warnings, working_memory
from flyweight.make.form import form_of
from flyweight.make.machine import Machine
from flyweight.make.options import check_options
from flyweight.make.plan_here import memory_here
from flyweight.make.quote import make_quote, settle
from flyweight.make.quote_energy import foretold, with_energy
from flyweight.make.rank import RankedShape
from flyweight.make.rates import Work, assumed
from flyweight.make.run import course_of
from flyweight.make.show_quote import show_quote
from flyweight.make.store import work_folder
from flyweight.make.students import Contender, Found
from flyweight.make.workload import Sizes, effort_of, sizes_of
from flyweight.mapped import ROOM
from flyweight.tasks.encode import prompt_ids
from flyweight.tasks.read import read_task
from flyweight.tasks.score import scorer

SIZES = Sizes(
    items={"train": 3000, "dev": 500, "test": 1000},
    prompt=53.0,
    answer=17.0,
    longest=120,
    unanswered=0,
    teacher=8_400_000,
    levels=(840_000, 1_680_000, 2_772_000),
    shapes=(19, 26, 18),
    kept=50_000.0,
    vocabulary=2048,
    steps=900,
    generates=True,
    classifies=False,
    forced=True,
    score="exact",
    bar=0.9,
)
QUICK = EFFORTS["quick"]
ALL = Course((1.0, 1.0, 1.0), (1, 1, 3), 2)  # the two smallest fall short
SMALLEST = Course((1.0, 1 / 8, 1 / 8), (3, 0, 0), 0)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path / "state"))


@pytest.mark.parametrize(
    "bigger",
    [
        {"teacher": 84_000_000},
        {"steps": 901},
        {"items": {"train": 3000, "dev": 5000, "test": 1000}},
        {"levels": (8_400_000,) * 3},
        {"prompt": 530.0},
        {"unanswered": 2000},
        {"trimmed": 8_300_000},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_bigger_job_is_quoted_higher(bigger: dict[str, Any]) -> None:
    machine = Machine("m")
    small, big = (make_quote(each, QUICK, machine) for each in (SIZES, replace(SIZES, **bigger)))
    assert big.seconds > small.seconds
    assert big.memory >= small.memory
    assert 0 < small.seconds_shortest < small.seconds < small.seconds_longest
    assert sum(stage.quoted for stage in small.stages) == pytest.approx(small.seconds)


def test_long_items_need_memory_up_to_what_is_worked_on_at_once() -> None:
    tokens = [20, 60, 120, AT_ONCE["cpu"] // BATCH]
    needed = [working_memory(replace(SIZES, longest=each)) for each in tokens]
    assert needed == sorted(set(needed))
    assert working_memory(replace(SIZES, longest=1000)) == needed[-1]  # in parts


def test_the_longest_item_is_found(tmp_path: Path, tiny_llama: Path) -> None:
    file = tmp_path / "task.jsonl"
    items = [
        {"prompt": f"{place} " * (1 + place % 7), "answer": "yes", "split": split}
        for place, split in enumerate(["train"] * 200 + ["dev"] * 30 + ["test"] * 30)
    ]
    items[150]["prompt"] = "look " * 20
    file.write_text("\n".join(map(json.dumps, items)))
    teacher, task = open_checkpoint(str(tiny_llama)), read_task(file)
    options = check_options(
        str(tiny_llama),
        file,
        tmp_path / "out",
        0.95,
        None,
        "exact",
        "bytes",
        "quick",
        Budgets(),
        10,
        0,
    )
    found = sizes_of(task, form_of(teacher), teacher, options, 10, scorer("exact"))
    longest = max(len(prompt_ids(teacher.tokenizer(), item.messages)) for item in task.train)
    assert longest < found.longest < longest + 10  # and the answer


def test_more_effort_costs_more_and_a_faster_machine_less() -> None:
    quotes = []
    for effort in EFFORTS.values():
        levels = [
            round(level * SIZES.teacher) for level in effort.levels for _ in range(effort.width)
        ]
        sizes = replace(SIZES, levels=tuple(levels), steps=default_steps(3000, effort))
        quotes.append(make_quote(sizes, effort, Machine("m")).seconds)
    assert quotes == sorted(quotes)
    slow, fast = (make_quote(SIZES, QUICK, Machine("m", speed=each)).seconds for each in (1, 10))
    assert fast == pytest.approx(slow / 10)


@pytest.mark.parametrize("effort", EFFORTS.values(), ids=EFFORTS)
def test_every_expected_course_lies_between_one_finished_shape_and_all(effort: Effort) -> None:
    levels = tuple(
        round(level * SIZES.teacher) for level in effort.levels for _ in range(effort.width)
    )
    sizes = replace(SIZES, levels=levels)
    expected = likely_courses(sizes, effort, [])
    assert sum(chance for chance, _ in expected) == pytest.approx(1)
    one = sizes.steps * BATCH * sizes.tokens  # tokens of one training
    whole = distilled(longest_course(sizes, effort), sizes, effort)
    assert whole == pytest.approx(one * len(levels))
    for _, course in expected:
        tokens = distilled(course, sizes, effort)
        assert one <= tokens <= whole
        assert tokens == pytest.approx(one * sum(course.trained))


def distilled(course: Course, sizes: Sizes, effort: Effort) -> float:
    """Tokens of all distillations of a course."""
    return sum(work.tokens for work in works_of(course, sizes, effort) if work.kind == "distil")


def past(course: Course, bar: float = SIZES.bar, **asked: Any) -> PastCourse:
    return PastCourse(asked.get("score", "exact"), bar, asked.get("steps", SIZES.steps), course)


def test_the_courses_of_past_jobs_tell_what_to_expect() -> None:
    known = [past(SMALLEST, bar=0.5) for _ in range(4)] + [past(ALL, bar=0.95) for _ in range(4)]

    def chance(course: Course, bar: float) -> float:
        found = likely_courses(replace(SIZES, bar=bar), QUICK, known)
        return sum(weight for weight, each in found if each == course)

    assert chance(SMALLEST, 0.5) > 0.7 > 0.3 > chance(SMALLEST, 0.95)
    assert chance(ALL, 0.95) > 0.7
    other_effort = [past(Course((1.0,) * 12, (3,) * 12, 0))] * 9
    assert likely_courses(SIZES, QUICK, other_effort) == likely_courses(SIZES, QUICK, [])


def seconds_of(course: Course, sizes: Sizes, slower: float, noise: float, seed: int):
    """What the stages of a job take on a machine `slower` than assumed, each with some noise."""
    generator = np.random.default_rng(seed)
    return [
        (work, sum(assumed(work)) * slower * float(np.exp(generator.normal(0, noise))))
        for work in works_of(course, sizes, QUICK)
    ]


@pytest.mark.parametrize("slower", [0.2, 1.0, 6.0])
def test_after_three_jobs_the_next_is_quoted_within_a_quarter(slower: float) -> None:
    """Jobs of different sizes that take the same course, on a machine unlike the assumed one."""
    generator, machine, ratios = np.random.default_rng(1), Machine("m"), []
    for number in range(10):
        items = {"train": int(generator.integers(300, 3000)), "dev": 200, "test": 300}
        sizes = replace(SIZES, steps=int(generator.integers(100, 900)), items=items)
        done = seconds_of(ALL, sizes, slower, noise=0.15, seed=number)
        quote, taken = make_quote(sizes, QUICK, machine), sum(seconds for _, seconds in done)
        ratios.append(quote.seconds / taken)
        machine.learn(done, past(ALL, steps=sizes.steps))
    assert all(abs(ratio - 1) < 0.25 for ratio in ratios[3:])


def test_what_no_stage_foresaw_is_learned_from_whole_jobs() -> None:
    """Jobs that take half as long again as their stages: imports, loading, what is held up."""
    machine, likely = Machine("m"), make_quote(SIZES, QUICK, Machine("m"))
    for foreseen in (100.0, 300.0, 50.0):
        machine.learn([(Work("time", foreseen, 0.0), 1.5 * foreseen)])
    longer = make_quote(SIZES, QUICK, machine)
    for name in ("seconds", "seconds_shortest", "seconds_longest"):
        assert getattr(longer, name) == pytest.approx(1.5 * getattr(likely, name))
    assert longer.seconds == pytest.approx(sum(stage.quoted for stage in longer.stages))


def test_the_ends_are_those_of_the_courses_that_jobs_may_take() -> None:
    machine = Machine("m", jobs=16, courses=[past(SMALLEST), past(ALL)] * 12)
    quote = make_quote(SIZES, QUICK, machine)
    totals = [
        sum(machine.rates().seconds(work) for work in works_of(course, SIZES, QUICK))
        for course in (SMALLEST, ALL)
    ]
    assert quote.seconds_shortest == pytest.approx(totals[0], rel=0.1)  # where all widths pass
    assert quote.seconds_shortest < quote.seconds < quote.seconds_longest
    assert quote.seconds_longest == pytest.approx(totals[1], rel=0.25)  # the rival is bigger then


def test_a_job_that_asks_more_than_one_in_which_nothing_passed_is_like_it() -> None:
    all_failed, passed = past(ALL, bar=0.6, steps=200), past(SMALLEST, bar=0.6, steps=200)
    harder = replace(SIZES, bar=0.95, steps=50)
    easier = replace(SIZES, bar=0.3, steps=800)
    assert all_failed.likeness(harder) == passed.likeness(easier) == 1
    assert all_failed.likeness(easier) < 0.1 > passed.likeness(harder)


def test_what_a_budget_left_out_was_not_trained() -> None:
    """The search lines up fewer shapes than were foreseen: the biggest are missing."""
    made: Any = object()
    ranked = RankedShape(Shape(8, 64, 64, 2, 1, 32, 100), 840_000, 0.1, 1.0)
    first = Contender(ranked, 900, step=900, candidates=[made])
    course = course_of(Found([], [first]), made, len(SIZES.levels), [1.0])
    assert course == Course((1.0, 0.0, 0.0), (1, 0, 0), 0)
    trained = [work for work in works_of(course, SIZES, QUICK) if work.kind == "distil"]
    assert sum(work.tokens for work in trained) == pytest.approx(900 * BATCH * SIZES.tokens)
    assert disk(SIZES, course) > 0


def test_disk_counts_every_training_and_every_packed_file() -> None:
    assert disk(SIZES, ALL) - disk(SIZES, SMALLEST) == pytest.approx(
        (4 + 1.1 + 0.7 + 0.6) * (1_680_000 + 2_772_000)  # two more are packed
        + (4 + 1.1 + 0.7 + 0.6 + 12.5)
        * (2_772_000 - 840_000),  # and a bigger rival trained and packed
        rel=0.01,
    )


def test_settled_it_shows_both_and_what_was_not_foreseen(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x" * 1234)
    quote = make_quote(SIZES, QUICK, Machine("m"))
    settled = settle(quote, 11.0, {"distil": 10.0, "surprise": 2.0}, 5000, tmp_path)
    stages = {stage.name: (stage.quoted, stage.actual) for stage in settled.stages}
    assert stages["surprise"] == (0.0, 2.0)
    assert stages["distil"][1] == 10.0
    assert stages["rank"][1] is None
    assert (settled.actual_seconds, settled.actual_tokens) == (12.0, 5000)
    assert settled.actual_disk == 1234
    assert settled.seconds == quote.seconds
    assert settled.seconds_as_it_went == 11.0


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "task.jsonl"
    lines = [{"prompt": f"pump {i} is leaking", "answer": f"pump {i}"} for i in range(700)]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


def test_sizes_are_those_of_the_task(tiny_llama: Path, task: Path, tmp_path: Path) -> None:
    source, items = open_checkpoint(tiny_llama), read_task(task)
    tokenizer = source.tokenizer()
    options = check_options(
        str(tiny_llama), task, tmp_path, 0.8, None, "exact", "bytes", "quick", Budgets(), 50, 0
    )
    sizes = sizes_of(items, form_of(source), source, options, 50, scorer("exact"))
    assert sizes.items == {name: len(part) for name, part in items.splits.items()}
    assert sizes.teacher == source.parameters
    wanted = [len(tokenizer(item.answer)["input_ids"]) + 1 for item in items.train[:200]]
    assert sizes.answer == pytest.approx(sum(wanted) / len(wanted), rel=0.05)
    assert (sizes.score, sizes.bar) == ("exact", 0.8)
    assert len(sizes.shapes) == len(QUICK.levels)


@pytest.mark.parametrize(
    ("budgets", "levels"),
    [
        (Budgets(), QUICK.levels),
        (Budgets(parameters=1e12), QUICK.levels),
        (Budgets(parameters=0.19), QUICK.levels[:2]),  # its smallest may fit
        (Budgets(parameters=0.17), QUICK.levels[:1]),
        (Budgets(parameters=1e-6), QUICK.levels[:1]),  # which the search then refuses
        (Budgets(bytes=0.12 * LEAST_BYTES[4]), QUICK.levels[:1]),
    ],
)
def test_levels_beyond_a_budget_are_neither_quoted_nor_cut(
    tiny_llama: Path, task: Path, tmp_path: Path, budgets: Budgets, levels: tuple[float, ...]
) -> None:
    source, items = open_checkpoint(tiny_llama), read_task(task)
    given = {name: each * source.parameters for name, each in budgets.as_dict().items()}
    options = check_options(
        str(tiny_llama), task, tmp_path, 0.8, None, "exact", "bytes", "quick", Budgets(**given),
        50, 0,
    )  # fmt: skip
    form = form_of(source)
    assert effort_of(options, form, source).levels == levels
    sizes = sizes_of(items, form, source, options, 50, scorer("exact"))
    assert len(sizes.shapes) == len(levels)


def test_a_teacher_that_stays_in_its_files_gives_way() -> None:
    big = replace(SIZES, teacher=8_000_000_000)
    small, held = working_memory(SIZES), working_memory(big)
    assert held - small == pytest.approx(8 * (big.teacher - SIZES.teacher))
    for mapped in (replace(big, mapped=True), replace(big, mapped=True, trimmed=7_000_000_000)):
        kept = working_memory(mapped) - mapped_memory(mapped)
        assert kept - small == pytest.approx(4 * ROOM, abs=1e8)
    read = replace(big, mapped=True, generates=False)  # of few bits it is read in fp32
    assert working_memory(read) - working_memory(replace(big, mapped=True)) == 4 * big.teacher
    assert mapped_memory(big) == 0


def test_too_little_memory_is_said() -> None:
    there = memory_here()
    assert memory_warnings(there) == []
    [said] = memory_warnings(2 * there)
    assert "--max-parameters" in said


def test_a_dry_run_quotes_and_writes_nothing(
    tiny_llama: Path, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    before = sorted(tmp_path.iterdir())
    flyweight.make(str(tiny_llama), task=task, out=out, dry_run=True)
    said = capsys.readouterr().out
    assert "Quote for" in said
    assert "assumed" in said
    assert "if the smallest size passes at once" in " ".join(said.split())
    assert not out.exists()
    assert not work_folder(out).exists()
    assert sorted(tmp_path.iterdir()) == before


def test_another_machine_is_for_quotes_alone(tiny_llama: Path, task: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flyweight.make(str(tiny_llama), task=task, out=out, dry_run=True, machine="h100")
    with pytest.raises(OptionError, match="--dry-run"):
        flyweight.make(str(tiny_llama), task=task, out=out, machine="h100")


def test_warnings_are_shown_as_they_are() -> None:
    console = Console(width=80, record=True)
    show_quote(make_quote(SIZES, QUICK, Machine("[m]")), ["dev [red] has few groups"], console)
    said = console.export_text()
    assert "dev [red] has few groups" in said
    assert "[m]" in said
    assert "kWh" not in said


def test_energy_is_foretold_from_watts_and_bent_by_what_past_jobs_took() -> None:
    machine = Machine("m")
    quote = make_quote(SIZES, QUICK, machine)
    fresh = with_energy(quote, machine, "FRA")
    assert fresh.energy is not None
    assert fresh.carbon is not None
    assert (fresh.energy_kwh, fresh.co2_kg) == (fresh.energy.value, fresh.carbon.value)
    watts = fresh.energy.middle * 3.6e6 / quote.seconds
    assert 1 < watts < 2000 * cores()
    assert fresh.carbon.middle == pytest.approx(fresh.energy.middle * 0.056)
    machine.learn([(Work("energy", 1000.0, 0.0), 500.0)])
    learned = with_energy(quote, machine, None)
    assert learned.energy is not None
    assert learned.carbon is not None
    assert learned.energy.middle == pytest.approx(fresh.energy.middle / 2)
    assert learned.carbon.value is None  # no country, no one number
    assert learned.carbon.low < learned.carbon.high
    console = Console(width=120, record=True)
    show_quote(learned, (), console)
    text = " ".join(console.export_text().split())
    assert "Energy: " in text
    assert "assumed) foretold" in text


@pytest.mark.parametrize("name", ["laptop", "a100-80", "h100"])
def test_a_named_machine_is_foretold_by_its_own_watts(name: str) -> None:
    facts = facts_of(name)
    found = foretold(3600.0, name)
    assert found.value is not None
    whole = ((facts.busy.value or 0.0) + (facts.rest.value or 0.0)) * 3600
    assert whole <= found.value <= 2 * whole


def test_no_work_costs_less_than_nothing() -> None:
    """Even after records that fit no rate at all."""
    generator, machine = np.random.default_rng(0), Machine("m")
    machine.learn(
        [(Work("distil", 10 ** generator.uniform(0, 4), 10 ** generator.uniform(0, 14)),
          10 ** generator.uniform(-3, 3)) for _ in range(30)]
    )  # fmt: skip
    quote = make_quote(SIZES, QUICK, machine)
    assert all(stage.quoted >= 0 for stage in quote.stages)
