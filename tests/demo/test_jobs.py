"""The teacher's other jobs: their answers are true, their conversations well formed."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import islice

import pytest

from flyweight.demo import jobs, orders
from flyweight.demo.plant import GAUGES

MANY = 200


def drawn(job: jobs.Job, count: int = MANY) -> list[jobs.Conversation]:
    rng = random.Random(0)
    return [job(rng) for _ in range(count)]


@pytest.mark.parametrize("job", jobs.JOBS, ids=lambda job: job.__name__)
def test_a_conversation_is_a_system_line_then_turns_that_end_with_the_assistant(
    job: jobs.Job,
) -> None:
    for conversation in drawn(job):
        roles = [message["role"] for message in conversation]
        assert roles[:2] == ["system", "user"]
        assert roles[2::2] == ["assistant"] * len(roles[2::2])
        assert roles[-1] == "assistant"
        assert set(roles[3::2]) <= {"tool"}
        assert all(message["content"].strip() for message in conversation)


def test_shares_are_those_of_the_table_and_sum_to_one() -> None:
    assert abs(sum(jobs.JOBS.values()) - 1) < 1e-9
    systems = Counter(lesson[0]["content"] for lesson in islice(jobs.lessons(0), 4000))
    share = systems[orders.SYSTEM] / 4000
    assert abs(share - jobs.JOBS[jobs.work_order]) < 0.03  # four standard errors
    assert len(systems) == 6


def test_the_seed_decides_the_lessons() -> None:
    first, again, other = (list(islice(jobs.lessons(seed), 60)) for seed in (1, 1, 2))
    assert first == again != other


def test_no_lesson_shows_a_work_order_of_dev_or_test() -> None:
    held_out = {item.text for split in ("dev", "test") for item in orders.draw_split(split, 7)}
    lessons = islice(jobs.lessons(7), 5_000)
    assert not held_out & {lesson[1]["content"] for lesson in lessons}


def test_a_spoken_reply_says_what_the_order_says() -> None:
    said = drawn(jobs.spoken_reply)
    asked = [r for *_, r in said if r["content"] != "No work order is needed."]
    assert 0 < len(asked) < len(said)
    pattern = r"Noted, [a-z]+ \d+: [a-z ]+, (low|medium|high)\. Next step: [a-z]+\."
    assert all(re.fullmatch(pattern, reply["content"]) for reply in asked)


def test_a_reading_is_judged_by_the_plants_limits() -> None:
    gauges = {gauge.unit: gauge for made in GAUGES.values() for gauge in made}
    for conversation in drawn(jobs.reading):
        answer = conversation[-1]["content"]
        found = re.fullmatch(r"([\d.]+) (\S+) is (.+): (low|medium|high)\.", answer)
        assert found is not None, answer
        assert f"{found[1]} {found[2]}" in conversation[1]["content"]
        gauge = gauges[found[2]]
        assert gauge.severity(float(found[1])) == found[4]
        limit = "below" if gauge.falling else "above"
        assert (
            found[3]
            == {
                "low": "in the normal range",
                "medium": f"{limit} the warning limit",
                "high": "an alarm",
            }[found[4]]
        )


def test_chart_facts_are_true() -> None:
    kinds = Counter()
    for conversation in drawn(jobs.chart_fact):
        question, answer = conversation[1]["content"], conversation[-1]["content"]
        listed = re.findall(r"([A-Z][a-z]{2}) (\d+)", question)
        values = [int(value) for _, value in listed]
        days = {int(value): day for day, value in listed}
        said = [int(number) for number in re.findall(r"\d+", answer)]
        if "rise or fall" in question:
            expected, kind = [values[0], values[-1]], "change"
            assert ("rose" in answer) == (values[-1] > values[0])
        elif "last" in question:
            expected, kind = [values[-1]], "last"
        else:
            kind = "highest" if "highest" in question else "lowest"
            expected = [max(values) if kind == "highest" else min(values)]
            assert answer.endswith(f"on {days[expected[0]]}.")
        assert said == expected
        kinds[kind] += 1
    assert set(kinds) == {"change", "last", "highest", "lowest"}


def test_a_tool_call_is_json_and_the_answer_repeats_the_result() -> None:
    names = Counter()
    for conversation in drawn(jobs.tool_use):
        marker, _, call = conversation[2]["content"].partition("<|tool_call|>")
        assert marker == ""
        called = json.loads(call)
        assert set(called) == {"name", "arguments"}
        assert re.fullmatch(r"[a-z]+ \d+", called["arguments"]["asset"])
        names[called["name"]] += 1
        if len(conversation) == 5:
            result, answer = json.loads(conversation[3]["content"]), conversation[4]["content"]
            assert called["arguments"]["asset"] in answer
            numbers = [str(value) for value in result.values() if not isinstance(value, bool)]
            assert all(number in answer for number in numbers if number.isdigit())
    assert set(names) == {"read_sensor", "stop_machine", "count_tickets"}


def test_the_fault_of_words_is_the_one_that_they_belong_to() -> None:
    from flyweight.demo import phrasing

    for conversation in drawn(jobs.fault_meaning):
        words = conversation[1]["content"].removeprefix("what fault is it: ")
        fault = conversation[-1]["content"].lower().rstrip(".")
        assert words in phrasing.FAULT_NOUNS[fault] + phrasing.FAULT_PREDICATES[fault]


def test_no_words_mean_two_faults() -> None:
    from flyweight.demo import phrasing

    words = Counter(
        word
        for table in (phrasing.FAULT_NOUNS, phrasing.FAULT_PREDICATES)
        for said in table.values()
        for word in said
    )
    assert max(words.values()) == 1
