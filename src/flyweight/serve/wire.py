"""What programs may ask for, in OpenAI's words: every field that is not here is refused.

Options of OpenAI's that this service does not have are taken at the value that changes nothing,
which clients send by themselves, and refused at any other.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_ANSWERS = 16
MOST_TEXTS = 256  # of a request for vectors
MOST_MESSAGES = 2048
MOST_TOOLS = 128
MOST_STOPS = 16
MOST_PARTS = 256  # of one message
_UNCHANGED: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "modalities": (["text"],),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "truncation": ("disabled",),
    "background": (False,),
    "include": ([],),
}


class Request(BaseModel):
    """What every request has. Unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="Which model; may be left out where there is one.")
    user: str | None = Field(None, description="Who asks; changes nothing.")
    safety_identifier: str | None = Field(None, description="Changes nothing.")
    prompt_cache_key: str | None = Field(
        None, description="Changes nothing: prompts are compared by themselves."
    )

    @model_validator(mode="before")
    @classmethod
    def _without_what_changes_nothing(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        kept = {}
        for name, value in values.items():
            neutral = _UNCHANGED.get(name)
            if neutral is None or name in cls.model_fields:
                kept[name] = value
            elif value is not None and value not in neutral:
                raise ValueError(f"{name} is not supported: leave it out")
        return kept


# of a list the first wrong member is told, and the rest is not looked at
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, fail_fast=True)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Tokens = Annotated[int, Field(ge=1, le=2**31)]
Stop = (
    Annotated[str, Field(min_length=1)]
    | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MOST_STOPS)]
)
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Part(BaseModel):
    """Something within a request."""

    model_config = ConfigDict(extra="forbid")


class StreamOptions(Part):
    """`include_usage`: a last piece tells the tokens."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class Function(Part):
    """A function that a model may call; `parameters` is a JSON schema."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(None, description="Calls hold to the schema in any case.")


class Tool(Part):
    """A tool is a function."""

    type: Literal["function"]
    function: Function


class NamedFunction(Part):
    """A function by its name."""

    name: str


class NamedTool(Part):
    """The one tool that has to be called."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Part):
    """The tools that may, or of which one has to, be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MOST_TOOLS, fail_fast=True)]


class AllowedChoice(Part):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Literal["auto", "none", "required"] | NamedTool | AllowedChoice


class JsonSchema(Part):
    """The JSON that an answer has to be."""

    name: Name
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = Field(None, description="Answers hold to the schema in any case.")


class PlainText(Part):
    """Any text."""

    type: Literal["text"]


class AnyJson(Part):
    """A JSON object."""

    type: Literal["json_object"]


class SchemaJson(Part):
    """JSON that holds to a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class TextPart(Part):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class ImageUrl(Part):
    """Where a picture is: in a data: URL, or where the service lets it be taken from."""

    url: Annotated[str, Field(min_length=1)]
    detail: Literal["auto", "low", "high"] | None = Field(None, description="Changes nothing.")


class ImagePart(Part):
    """A picture in what a user says."""

    type: Literal["image_url"]
    image_url: ImageUrl


Piece = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Content = str | Annotated[list[Piece], Field(min_length=1, max_length=MOST_PARTS, fail_fast=True)]


class CalledFunction(Part):
    """What an assistant called; `arguments` is the text of a JSON object."""

    name: str
    arguments: str


class ToolCall(Part):
    """A call in an earlier answer; `index` is left from a stream."""

    index: int | None = Field(None, exclude=True)
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Part):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = (
        None
    )
    tool_call_id: str | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=MOST_PARTS)] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _whole(self) -> Message:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError(f"a message of role {self.role} needs content")
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a message of role tool needs tool_call_id")
        if self.role != "user" and self.images:
            raise ValueError(f"a message of role {self.role} has no pictures")
        return self

    @property
    def images(self) -> list[str]:
        """Where its pictures are."""
        parts = self.content if isinstance(self.content, list) else []
        return [part.image_url.url for part in parts if isinstance(part, ImagePart)]

    def plain(self) -> dict[str, Any]:
        """As chat templates take it: one text, or parts where there are pictures, and names."""
        content: Any = self.content
        if self.images:
            content = [
                {"type": "text", "text": part.text}
                if isinstance(part, TextPart)
                else {"type": "image"}
                for part in self.content or ()
                if not isinstance(part, str)
            ]
        elif isinstance(content, list):
            content = "".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        found: dict[str, Any] = {"role": role, "content": content or ""}
        if self.name:
            found["name"] = self.name
        if self.tool_calls:
            found["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        if self.tool_call_id:
            found["tool_call_id"] = self.tool_call_id
        return found


class Sampled(Request):
    """How an answer is drawn: greedy, as models are judged, unless a temperature is given."""

    temperature: Temperature | None = Field(None, description="0, greedy, if not given.")
    top_p: TopP | None = None
    stream: bool | None = False


def _check_stream(stream: bool | None, options: StreamOptions | None) -> None:
    if options is not None and not stream:
        raise ValueError("stream_options needs stream")


class ChatRequest(Sampled):
    """`POST /v1/chat/completions`."""

    messages: Annotated[
        list[Message], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
    ]
    stream_options: StreamOptions | None = None
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = 1
    stop: Stop | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: PlainText | AnyJson | SchemaJson | None = Field(None, discriminator="type")
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = True

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        _check_stream(self.stream, self.stream_options)
        return self


class CompletionRequest(Sampled):
    """`POST /v1/completions`: a text, or token ids, gone on with."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_ANSWERS, fail_fast=True)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_ANSWERS, fail_fast=True)]
    )
    stream_options: StreamOptions | None = None
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = 1
    stop: Stop | None = None
    max_tokens: Tokens | None = 16
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CompletionRequest:
        _check_stream(self.stream, self.stream_options)
        return self


class EmbeddingRequest(Request):
    """`POST /v1/embeddings`."""

    input: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)]
    )
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: None = Field(None, description="A vector has the model's own.")


__all__ = [
    "AllowedChoice",
    "AnyJson",
    "ChatRequest",
    "CompletionRequest",
    "EmbeddingRequest",
    "Function",
    "JsonSchema",
    "Message",
    "NamedTool",
    "Part",
    "Request",
    "Sampled",
    "SchemaJson",
    "StreamOptions",
    "Tool",
    "ToolChoice",
]
