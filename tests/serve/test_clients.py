"""Other programs that speak to OpenAI's interface, each with a tool and a typed answer."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from pydantic import BaseModel

SAID = "pump 5 leaks, somebody please look"


class Order(BaseModel):
    """A work order."""

    asset: Literal["pump", "valve"]
    urgent: bool


def test_pydantic_ai(address: str) -> None:
    from pydantic_ai import Agent, NativeOutput, ToolOutput
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{address}/v1", api_key="none")
    for model in (OpenAIChatModel("demo", provider=provider),
                  OpenAIResponsesModel("demo", provider=provider)):  # fmt: skip
        said = Agent(model).run_sync(SAID, model_settings={"max_tokens": 64})
        assert isinstance(said.output, str)
        assert said.output
        for kind in (NativeOutput(Order), ToolOutput(Order)):
            told = Agent(model, output_type=kind).run_sync(SAID)
            assert isinstance(told.output, Order)
        assert told.usage.output_tokens > 0

    async def streamed() -> str:
        async with Agent(OpenAIChatModel("demo", provider=provider)).run_stream(SAID) as stream:
            return await stream.get_output()

    assert asyncio.run(streamed())


def test_openai_agents(address: str) -> None:
    from agents import (
        Agent,
        ModelSettings,
        OpenAIChatCompletionsModel,
        OpenAIResponsesModel,
        Runner,
        function_tool,
        set_tracing_disabled,
    )
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    called: list[tuple[str, bool]] = []

    @function_tool
    def order(asset: Literal["pump", "valve"], urgent: bool) -> str:
        """Make a work order."""
        called.append((asset, urgent))
        return "made"

    async def ask(kind: Any) -> tuple[Any, Any]:
        async with AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client:
            model = kind(model="demo", openai_client=client)
            agent = Agent(
                name="plant",
                instructions="Be brief.",
                model=model,
                tools=[order],
                # once: after a call the agent lets the model choose again
                model_settings=ModelSettings(tool_choice="required", max_tokens=200),
            )
            told = await Runner.run(agent, SAID, max_turns=3)
            typed = Agent(name="typed", model=model, output_type=Order)
            return told.final_output, (await Runner.run(typed, SAID)).final_output

    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        called.clear()
        said, typed = asyncio.run(ask(kind))
        assert isinstance(said, str)
        assert called
        assert called[0][0] in ("pump", "valve")
        assert isinstance(typed, Order)


def test_smolagents(address: str) -> None:
    from smolagents import OpenAIModel, Tool, ToolCallingAgent
    from smolagents.models import ChatMessage, MessageRole

    class MakeOrder(Tool):
        """Makes a work order."""

        name = "make_order"
        description = "Makes a work order."
        inputs = {"asset": {"type": "string", "description": "what", "enum": ["pump", "valve"]}}  # noqa: RUF012
        output_type = "string"

        def forward(self, asset: str) -> str:
            """Smolagents' call."""
            return f"made for {asset}"

    model = OpenAIModel("demo", api_base=f"{address}/v1", api_key="none", max_tokens=200)
    message = ChatMessage(MessageRole.USER, content=[{"type": "text", "text": SAID}])
    assert model.generate([message]).content
    called = model.generate([message], tools_to_call_from=[MakeOrder()])
    assert called.tool_calls
    assert called.tool_calls[0].function.name == "make_order"
    pieces = list(model.generate_stream([message]))
    assert "".join(piece.content or "" for piece in pieces) == model.generate([message]).content
    # its own prompt is longer than the demo's context: a short one in its place
    agent = ToolCallingAgent(tools=[MakeOrder()], model=model, max_steps=2)
    agent.prompt_templates["system_prompt"] = "Be brief."
    agent.memory.system_prompt.system_prompt = "Be brief."
    steps = list(agent.run(SAID, stream=True))
    names = [call.name for step in steps for call in (getattr(step, "tool_calls", None) or [])]
    assert set(names) <= {"make_order", "final_answer"}
    assert names


def test_what_is_too_long_is_told_to_the_client(address: str) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "leak " * 5000}]
        )
    assert raised.value.code == "context_length_exceeded"
