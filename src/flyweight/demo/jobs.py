"""The teacher's other jobs: short replies, readings, chart facts, tool calls, and small talk.

Each generator yields one conversation: messages in the chat format, the last one by the
assistant. The work orders are the job that `make` is given; these are what a real teacher
knows besides, and what a cut may give up.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

from flyweight.demo import orders, phrasing
from flyweight.demo.plant import FAULTS, GAUGES

Conversation = list[dict[str, str]]

REPLY_SYSTEM = "Reply in one sentence."
READING_SYSTEM = "Answer about readings."
CHART_SYSTEM = "Answer about the chart."
TOOL_SYSTEM = "Use the tools."
CHAT_SYSTEM = "You are the plant assistant."

SENSORS = {"temperature": "C", "vibration": "mm/s", "pressure": "bar"}
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

SMALL_TALK = (
    (("hello", "hi", "good morning", "hey there"), "Hello! Which machine can I help with?"),
    (("thanks", "thank you", "great, thanks a lot"), "You are welcome."),
    (("who are you", "what are you"), "I am the plant assistant. I work without internet."),
    (
        ("what can you do", "how can you help me", "help"),
        "I write work orders, read gauges and charts, and call the plant's tools.",
    ),
    (("bye", "see you tomorrow", "end of shift"), "Goodbye, have a safe way home."),
    (("are you online", "do you need internet"), "No, I run on this device."),
    (
        ("what is the weather", "tell me a joke", "who won the game", "write a poem"),
        "I only know this plant. Ask me about a machine.",
    ),
)


def chat(system: str, user: str, assistant: str) -> Conversation:
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": user},
        {"role": "assistant", "content": assistant},
    ]


def work_order(rng: random.Random) -> Conversation:
    """An utterance of a train phrasing and its exact order."""
    needs_order = rng.random() >= orders.SHARE_NO_ORDER
    item = orders.say(orders.draw_group(rng, "train", needs_order), rng)
    return chat(orders.SYSTEM, item.text, item.answer)


def spoken_reply(rng: random.Random) -> Conversation:
    """The same kind of utterance, answered as one would aloud."""
    needs_order = rng.random() >= orders.SHARE_NO_ORDER
    item = orders.say(orders.draw_group(rng, "train", needs_order), rng)
    if item.order is None:
        return chat(REPLY_SYSTEM, item.text, "No work order is needed.")
    order = item.order
    reply = f"Noted, {order.asset}: {phrasing.BARE[order.fault]}, {order.severity}. "
    return chat(REPLY_SYSTEM, item.text, reply + f"Next step: {order.action}.")


def reading(rng: random.Random) -> Conversation:
    """How bad is this reading, by the plant's limits?"""
    fault = rng.choice(list(GAUGES))
    gauge = rng.choice(GAUGES[fault])
    value = round(rng.uniform(gauge.lowest, gauge.highest), gauge.decimals)
    written = f"{value:.{gauge.decimals}f} {gauge.unit}"
    asset = orders.say_asset(orders.draw_asset(rng), rng)
    question = rng.choice(("{A} shows {v}, how bad is it", "is {v} ok on {A}", "{v} at {A}?"))
    severity = gauge.severity(value)
    verdict = {"low": "in the normal range", "medium": "above the warning limit"}
    if gauge.falling:
        verdict["medium"] = "below the warning limit"
    answer = f"{written} is {verdict.get(severity, 'an alarm')}: {severity}."
    return chat(READING_SYSTEM, question.format(A=asset, v=written), answer)


def chart_fact(rng: random.Random) -> Conversation:
    """A short series and a question about its highest, lowest, last value or direction."""
    count = rng.randint(3, 6)
    values = rng.sample(range(10, 100), count)
    series = dict(zip(DAYS, values, strict=False))
    kind = rng.choice(("highest", "lowest", "last", "change"))
    if kind == "last":
        day, answer = DAYS[count - 1], f"The last value is {values[-1]}."
    elif kind == "change":
        direction = "rose" if values[-1] > values[0] else "fell"
        answer = f"It {direction} from {values[0]} to {values[-1]}."
    else:
        pick = max if kind == "highest" else min
        day = pick(series, key=series.__getitem__)
        answer = f"The {kind} value is {series[day]} on {day}."
    question = {"change": "did it rise or fall"}.get(kind, f"what is the {kind} value")
    listing = ", ".join(f"{day} {value}" for day, value in series.items())
    return chat(CHART_SYSTEM, f"{listing}. {question}?", answer)


def tool_use(rng: random.Random) -> Conversation:
    """A request that a tool answers: the call, its result, and the sentence made of it."""
    asset = orders.draw_asset(rng)
    said = orders.say_asset(asset, rng)
    sensor = rng.choice(list(SENSORS))
    kind = rng.randrange(3)
    if kind == 0:
        asked = rng.choice(("what is the {s} of {A}", "read the {s} on {A}", "{A} {s} please"))
        call = {"name": "read_sensor", "arguments": {"asset": str(asset), "sensor": sensor}}
        value = rng.randint(1, 120)
        result = {"value": value, "unit": SENSORS[sensor]}
        answer = f"The {sensor} of {asset} is {value} {SENSORS[sensor]}."
    elif kind == 1:
        asked = rng.choice(("stop {A}", "please shut down {A}", "switch {A} off"))
        call = {"name": "stop_machine", "arguments": {"asset": str(asset)}}
        result = {"ok": rng.random() < 0.8}
        answer = f"{asset} is stopped." if result["ok"] else f"{asset} did not stop. Call someone."
    else:
        asked = rng.choice(("any open tickets for {A}", "how many tickets has {A}"))
        call = {"name": "count_tickets", "arguments": {"asset": str(asset)}}
        result = {"open": rng.randint(0, 9)}
        answer = f"{asset} has {result['open']} open tickets."
    called = "<|tool_call|>" + json.dumps(call, separators=(",", ":"))
    turns = chat(TOOL_SYSTEM, asked.format(A=said, s=sensor), called)
    if rng.random() < 0.5:
        turns.append({"role": "tool", "content": json.dumps(result, separators=(",", ":"))})
        turns.append({"role": "assistant", "content": answer})
    return turns


def small_talk(rng: random.Random) -> Conversation:
    asked, answer = rng.choice(SMALL_TALK)
    question = rng.choice(asked)
    if rng.random() < 0.3:
        question = f"{rng.choice(phrasing.OPENERS[:5])}, {question}"
    return chat(CHAT_SYSTEM, question.format(who=rng.choice(phrasing.WHO)), answer)


def fault_meaning(rng: random.Random) -> Conversation:
    """What kind of fault do these words mean?"""
    fault = rng.choice(FAULTS)
    words = rng.choice(phrasing.FAULT_NOUNS[fault] + phrasing.FAULT_PREDICATES[fault])
    return chat(CHAT_SYSTEM, f"what fault is it: {words}", f"{fault.capitalize()}.")


Job = Callable[[random.Random], Conversation]
# Share of the teacher's lessons. Work orders are the hardest and get most of them.
JOBS: dict[Job, float] = {
    work_order: 0.72,
    spoken_reply: 0.08,
    reading: 0.06,
    chart_fact: 0.05,
    tool_use: 0.05,
    fault_meaning: 0.03,
    small_talk: 0.01,
}


def lessons(seed: int) -> Iterator[Conversation]:
    """Endless conversations over all jobs, reproducible from the seed."""
    rng = random.Random(f"{seed}/lessons")
    jobs, shares = list(JOBS), list(JOBS.values())
    while True:
        yield rng.choices(jobs, shares)[0](rng)
