"""What OpenAI's own client gets: the engine's answers, in the types that it knows."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel
from transformers import AutoTokenizer

from flyweight.folder import GGUF_NAMES
from flyweight.runtime.llama import LlamaEngine

SAID = "pump 5 leaks, somebody please look"
CHAT: list[Any] = [{"role": "user", "content": SAID}]
ORDER: Any = {
    "type": "function",
    "function": {
        "name": "order",
        "description": "Make a work order.",
        "parameters": {
            "type": "object",
            "properties": {
                "asset": {"type": "string", "maxLength": 12},
                "priority": {"enum": ["low", "high"]},
            },
            "required": ["asset", "priority"],
            "additionalProperties": False,
        },
    },
}
HELP: Any = {"type": "function", "function": {"name": "call_for_help"}}


class Order(BaseModel):
    """A work order."""

    asset: Literal["pump", "valve"]
    number: int


@pytest.fixture(scope="module")
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def engine(demo_model: Path) -> Iterator[LlamaEngine]:
    with LlamaEngine(demo_model / GGUF_NAMES[8], context=2048) as engine:
        yield engine


def prompt_of(folder: Path, messages: list[Any]) -> list[int]:
    """The ids that transformers gives."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def test_an_answer_is_the_engines(
    client: openai.OpenAI, engine: LlamaEngine, demo_model: Path
) -> None:
    prompt = prompt_of(demo_model, CHAT)
    wanted = engine.generate(prompt, 64)
    for extra in ({}, {"temperature": 0}, {"max_tokens": 64}, {"model": "demo"}):
        told = client.chat.completions.create(**{"model": "demo", "messages": CHAT} | extra)
        assert told.choices[0].message.content == wanted.text
        assert told.choices[0].finish_reason == "stop"
        assert told.usage
        assert told.usage.prompt_tokens == len(prompt)
        assert told.usage.completion_tokens == wanted.written
    assert told.usage.prompt_tokens_details.cached_tokens > 0  # type: ignore[union-attr]
    cut = client.chat.completions.create(model="demo", messages=CHAT, max_completion_tokens=3)
    assert cut.choices[0].finish_reason == "length"
    assert wanted.text.startswith(cut.choices[0].message.content or "?")
    stop = wanted.text.split()[2]
    ended = client.chat.completions.create(model="demo", messages=CHAT, stop=[stop, "zzz"])
    assert ended.choices[0].message.content == wanted.text.partition(stop)[0]


def test_a_stream_is_the_same_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="demo", messages=CHAT)
    chunks = list(
        client.chat.completions.create(
            model="demo", messages=CHAT, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens  # type: ignore[union-attr]
    assert len({chunk.id for chunk in chunks}) == 1


def test_seeds_and_several_answers(client: openai.OpenAI) -> None:
    def drawn(seed: int, n: int = 1) -> list[str | None]:
        told = client.chat.completions.create(
            model="demo", messages=CHAT, temperature=1.5, seed=seed, n=n
        )
        return [choice.message.content for choice in told.choices]

    several = drawn(7, n=6)
    assert len(several) == 6
    assert len(set(several)) > 1
    assert drawn(7) == drawn(7) == several[:1]
    chunks = client.chat.completions.create(
        model="demo", messages=CHAT, temperature=1.5, seed=7, n=6, stream=True
    )
    texts = [""] * 6
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == several


def test_log_probabilities_are_the_engines(
    client: openai.OpenAI, engine: LlamaEngine, demo_model: Path
) -> None:
    told = client.chat.completions.create(
        model="demo", messages=CHAT, logprobs=True, top_logprobs=3
    )
    said = told.choices[0].logprobs
    assert said
    assert said.content
    assert "".join(each.token for each in said.content[:-1]) == told.choices[0].message.content
    wanted = engine.generate(prompt_of(demo_model, CHAT), 64, top=3)
    for mine, theirs in zip(said.content, wanted.top, strict=True):
        assert mine.logprob == pytest.approx(theirs[0][1], abs=0.02)
        assert len(mine.top_logprobs) == 3
        assert bytes(mine.bytes or []) == mine.token.encode()


def test_json_holds_to_its_schema(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(model="demo", messages=CHAT, response_format=Order)
    assert isinstance(parsed.choices[0].message.parsed, Order)
    told = client.chat.completions.create(
        model="demo", messages=CHAT, response_format={"type": "json_object"}, max_tokens=400
    )
    if told.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(told.choices[0].message.content or ""), dict)
    with client.chat.completions.stream(
        model="demo", messages=CHAT, response_format=Order
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == parsed.choices[0].message.parsed


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"order", "call_for_help"}),
        ({"type": "function", "function": {"name": "order"}}, {"order"}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "call_for_help"}}],
                },
            },
            {"call_for_help"},
        ),
    ],
    ids=["required", "named", "allowed"],
)
def test_tools_are_called_as_their_schemas_say(
    client: openai.OpenAI, choice: Any, names: set[str], stream: bool
) -> None:
    wish: dict[str, Any] = {
        "model": "demo",
        "messages": CHAT,
        "tools": [ORDER, HELP],
        "tool_choice": choice,
        "max_tokens": 300,
    }
    if stream:
        with client.chat.completions.stream(**wish) as events:
            told = events.get_final_completion()
    else:
        told = client.chat.completions.create(**wish)
    assert told.choices[0].finish_reason == "tool_calls"
    calls = told.choices[0].message.tool_calls
    assert calls
    for call in calls:
        assert call.type == "function"
        assert call.function.name in names
        given = json.loads(call.function.arguments)
        if call.function.name == "order":
            assert set(given) == {"asset", "priority"}
            assert given["priority"] in ("low", "high")
    assert len({call.id for call in calls}) == len(calls)
    # the result goes back, and the model goes on
    turns = [
        *CHAT,
        told.choices[0].message.model_dump(exclude_none=True, exclude={"parsed"}),
        *({"role": "tool", "tool_call_id": call.id, "content": "done"} for call in calls),
    ]
    for turn in turns:
        for call in turn.get("tool_calls", ()):
            call["function"].pop("parsed_arguments", None)
    after = client.chat.completions.create(
        model="demo", messages=turns, tools=[ORDER, HELP], tool_choice="none", max_tokens=30
    )
    assert after.choices[0].message.content
    assert not after.choices[0].message.tool_calls


def test_with_auto_and_one_at_a_time(client: openai.OpenAI) -> None:
    told = client.chat.completions.create(
        model="demo",
        messages=CHAT,
        tools=[ORDER],
        tool_choice="auto",
        parallel_tool_calls=False,
        max_tokens=200,
    )
    message = told.choices[0].message
    assert message.content or len(message.tool_calls or []) == 1
    one = client.chat.completions.create(
        model="demo",
        messages=CHAT,
        tools=[ORDER],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
    )
    assert len(one.choices[0].message.tool_calls or []) == 1


def test_responses(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(model="demo", messages=CHAT)
    told = client.responses.create(model="demo", input=SAID)
    assert told.output_text == chat.choices[0].message.content
    assert told.status == "completed"
    assert told.usage
    assert told.usage.input_tokens == chat.usage.prompt_tokens  # type: ignore[union-attr]
    text, kinds = "", []
    for event in client.responses.create(model="demo", input=CHAT, stream=True):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    assert text == told.output_text
    assert kinds[:3] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
    ]
    assert kinds[-1] == "response.completed"
    tool: Any = {"type": "function", **ORDER["function"], "strict": True}
    with client.responses.stream(
        model="demo", input=SAID, tools=[tool], tool_choice="required", max_output_tokens=300
    ) as events:
        called = events.get_final_response().output[0]
    assert called.type == "function_call"
    assert set(json.loads(called.arguments)) == {"asset", "priority"}
    result: Any = {"type": "function_call_output", "call_id": called.call_id, "output": "done"}
    mine: Any = called.model_dump(exclude_none=True, exclude={"parsed_arguments"})
    after = client.responses.create(
        model="demo", input=[*CHAT, mine, result], max_output_tokens=20, instructions="Be brief."
    )
    assert after.output_text
    parsed = client.responses.parse(model="demo", input=SAID, text_format=Order)
    assert isinstance(parsed.output_parsed, Order)


def test_texts_are_gone_on_with(client: openai.OpenAI, engine: LlamaEngine) -> None:
    prompts = ["pump 5 is", "the valve"]
    told = client.completions.create(model="demo", prompt=prompts, max_tokens=5, logprobs=2)
    ids = client.completions.create(
        model="demo", prompt=engine.tokenize(prompts[0]), max_tokens=5, stream=True
    )
    for prompt, choice in zip(prompts, told.choices, strict=True):
        assert choice.text == engine.generate(engine.tokenize(prompt), 5).text
        assert choice.logprobs
        assert len(choice.logprobs.tokens or []) <= 5
    assert "".join(each.choices[0].text for each in ids) == told.choices[0].text


def test_vectors_are_the_engines(client: openai.OpenAI, engine: LlamaEngine) -> None:
    texts = ["pump 5", "the valve leaks"]
    plain = client.embeddings.create(model="demo", input=texts, encoding_format="float")
    packed = client.embeddings.create(model="demo", input=texts)  # base64 by default
    for text, one, other in zip(texts, plain.data, packed.data, strict=True):
        wanted = engine.embed(engine.tokenize(text))
        assert one.embedding == pytest.approx(wanted.tolist(), abs=1e-4)
        assert other.embedding == pytest.approx(one.embedding, abs=1e-6)


def test_asynchronous_and_many_at_once(address: str, client: openai.OpenAI) -> None:
    wanted = client.chat.completions.create(model="demo", messages=CHAT).choices[0].message.content

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="x") as asking:

            async def one(stream: bool) -> str:
                if not stream:
                    told = await asking.chat.completions.create(model="demo", messages=CHAT)
                    return told.choices[0].message.content or ""
                chunks = await asking.chat.completions.create(
                    model="demo", messages=CHAT, stream=True
                )
                return "".join([c.choices[0].delta.content or "" async for c in chunks])

            return await asyncio.gather(*(one(bool(i % 2)) for i in range(24)))

    answers = asyncio.run(ask())
    # several streams are computed together, in another order of sums: a near tie may fall otherwise
    assert sum(answer == wanted for answer in answers) > 20


def test_the_readmes_curl(address: str) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    [command] = re.findall(r"<!-- curl -->\n```sh\n(.*?)```", readme, re.DOTALL)
    assert "http://127.0.0.1:8080" in command
    done = subprocess.run(
        [
            "bash",
            "-c",
            command.replace("http://127.0.0.1:8080", address).replace("curl", "curl -s"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    order = json.loads(json.loads(done.stdout)["choices"][0]["message"]["content"])
    assert (order["asset"], order["fault"]) == ("pump 12", "leak")


def test_models_are_listed(client: openai.OpenAI) -> None:
    [model] = client.models.list().data
    assert model.id == "demo"
    assert client.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError, match="There is: demo"):
        client.chat.completions.create(model="../../etc/passwd", messages=CHAT)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty is not supported"),
        ({"logit_bias": {"5": 1}}, "logit_bias is not supported"),
        ({"extra_body": {"top_k": 5}}, "top_k: this service does not know this field"),
        ({"store": True}, "store is not supported"),
        ({"max_tokens": 10**6}, "does not fit"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 100}, "n: "),
        ({"stop": ""}, "stop"),
        ({"tool_choice": "required"}, "without tools"),
        ({"tools": [ORDER, ORDER]}, "same name"),
        ({"tools": [ORDER], "tool_choice": {"type": "function", "function": {"name": "x"}}},
         "names no tool"),
        ({"response_format": {"type": "json_schema", "json_schema":
          {"name": "x", "schema": {"type": "nosuch"}}}}, "cannot be used"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url":
          {"url": "file:///etc/passwd"}}]}]}, "no eyes"),
        ({"messages": [{"role": "user", "content": "pump " * 4000}]}, "does not fit"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_an_error(
    client: openai.OpenAI, extra: dict[str, Any], message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as raised:
        client.chat.completions.create(**{"model": "demo", "messages": CHAT, **extra})
    assert raised.value.body["type"] == "invalid_request_error"  # type: ignore[index]
    assert client.chat.completions.create(model="demo", messages=CHAT, max_tokens=1)
