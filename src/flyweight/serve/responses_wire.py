"""`/v1/responses` as programs word it, and as a chat request says the same."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from flyweight.serve.faults import Fault, invalid
from flyweight.serve.wire import (
    MOST_MESSAGES,
    MOST_PARTS,
    MOST_TOOLS,
    AnyJson,
    ChatRequest,
    JsonSchema,
    Name,
    Part,
    PlainText,
    Sampled,
    Tokens,
)


class InputText(Part):
    """A piece of a message; `annotations` and `logprobs` come back from earlier answers."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputImage(Part):
    """A picture in what a user says; see ImageUrl."""

    type: Literal["input_image"]
    image_url: Annotated[str, Field(min_length=1)]
    detail: Literal["auto", "low", "high"] | None = None
    file_id: None = None


Texts = Annotated[list[InputText], Field(max_length=MOST_PARTS, fail_fast=True)]
Pieces = Annotated[list[InputText | InputImage], Field(max_length=MOST_PARTS, fail_fast=True)]


class InputMessage(Part):
    """A turn of a conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Pieces
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class InputCall(Part):
    """A call that an earlier answer made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None


class InputResult(Part):
    """What came of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | Texts
    id: str | None = None
    status: str | None = None


class FunctionTool(Part):
    """A function that a model may call."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionChoice(Part):
    """The one function that has to be called."""

    type: Literal["function"]
    name: str


class AllowedChoice(Part):
    """The functions that may, or of which one has to, be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[
        list[FunctionChoice], Field(min_length=1, max_length=MOST_TOOLS, fail_fast=True)
    ]


class SchemaFormat(JsonSchema):
    """JSON that holds to a schema."""

    type: Literal["json_schema"]


class TextOptions(Part):
    """What the text of an answer has to be."""

    format: PlainText | AnyJson | SchemaFormat | None = Field(None, discriminator="type")
    verbosity: Literal["medium"] | None = None


class ResponsesRequest(Sampled):
    """`POST /v1/responses`. Nothing is kept: every request brings its whole conversation."""

    stream_options: None = None
    input: (
        str
        | Annotated[
            list[InputMessage | InputCall | InputResult],
            Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True),
        ]
    )
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_choice: Literal["auto", "none", "required"] | FunctionChoice | AllowedChoice | None = None
    parallel_tool_calls: bool | None = True
    text: TextOptions | None = None
    metadata: dict[str, str] | None = Field(None, description="Given back as it is.")
    store: bool | None = Field(None, description="Nothing is kept, whatever this says.")
    previous_response_id: None = Field(None, description="Nothing is kept: send the conversation.")

    def as_chat(self) -> ChatRequest:
        """The chat request that asks for the same; Fault 400 where there can be none."""
        messages: list[dict[str, Any]] = []
        if self.instructions:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            messages.append({"role": "user", "content": self.input})
        else:
            for item in self.input:
                _add(messages, item)
        if messages and messages[0]["role"] == "system":
            messages = _one_system(messages)
        wanted = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_completion_tokens": self.max_output_tokens,
            "tools": [_tool(tool) for tool in self.tools or []],
            "tool_choice": _choice(self.tool_choice),
            "parallel_tool_calls": self.parallel_tool_calls,
            "response_format": _format(self.text),
        }
        try:
            return ChatRequest.model_validate(wanted)
        except ValidationError as error:
            raise invalid(error.errors()[0], ["input"]) from None


def _add(messages: list[dict[str, Any]], item: InputMessage | InputCall | InputResult) -> None:
    """An item as a message; calls that follow each other are of one turn."""
    if isinstance(item, InputMessage):
        if item.role != "user" and any(isinstance(part, InputImage) for part in item.content):
            raise Fault(400, f"A message of role {item.role} has no pictures.", param="input")
        messages.append({"role": item.role, "content": _content(item.content)})
    elif isinstance(item, InputResult):
        told = {"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)}
        messages.append(told)
    else:
        call = {
            "id": item.call_id,
            "type": "function",
            "function": {"name": item.name, "arguments": item.arguments},
        }
        if messages and messages[-1]["role"] == "assistant":
            messages[-1].setdefault("tool_calls", []).append(call)
        else:
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _one_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Instructions and the system messages at the beginning, as one: templates know one."""
    count = next(
        (i for i, each in enumerate(messages) if each["role"] not in ("system", "developer")),
        len(messages),
    )
    joined = "\n\n".join(each["content"] for each in messages[:count])
    return [{"role": "system", "content": joined}, *messages[count:]]


def _content(content: str | list[InputText | InputImage]) -> str | list[dict[str, Any]]:
    """Content as a chat request has it: one text, or parts where there are pictures."""
    if isinstance(content, str):
        return content
    texts = [part for part in content if isinstance(part, InputText)]
    if len(texts) == len(content):
        return _text(texts)
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, InputText)
        else {"type": "image_url", "image_url": {"url": part.image_url, "detail": part.detail}}
        for part in content
    ]


def _text(content: str | list[InputText]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _tool(tool: FunctionTool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _choice(choice: str | FunctionChoice | AllowedChoice | None) -> Any:
    if isinstance(choice, FunctionChoice):
        return {"type": "function", "function": {"name": choice.name}}
    if isinstance(choice, AllowedChoice):
        tools = [{"type": "function", "function": {"name": each.name}} for each in choice.tools]
        allowed = {"mode": choice.mode, "tools": tools}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    return choice


def _format(text: TextOptions | None) -> Any:
    wanted = text.format if text else None
    if isinstance(wanted, SchemaFormat):
        if not wanted.schema_:
            raise Fault(400, "text.format needs a schema.", param="text.format.schema")
        schema = {"name": wanted.name, "schema": wanted.schema_}
        return {"type": "json_schema", "json_schema": schema}
    return None if wanted is None else {"type": wanted.type}


__all__ = ["ResponsesRequest"]
