"""A model with eyes in the service: its sizes, its tokenizer, and the pictures of requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from flyweight.errors import FlyweightError
from flyweight.folder import sha256_of
from flyweight.runtime.chat_format import ChatFormat
from flyweight.runtime.memory import Sizes
from flyweight.runtime.open_model import Found
from flyweight.runtime.tokenizer_gguf import tokenizer_metadata
from flyweight.serve.faults import Fault
from flyweight.serve.loaded import Loaded, Settings
from flyweight.vision.engine import WEIGHTS, VisionEngine
from flyweight.vision.images import image_from
from flyweight.vision.language import EXTRA
from flyweight.vision.vision_folder import config_of, weights_of

WHOLE = 32  # bits, where none are asked for that the engine has
FLOAT = 4  # bytes of a weight in memory


class LoadedEyes(Loaded):
    """A Mllama in its engine; one answer at a time."""

    engine: VisionEngine

    def __init__(self, name: str, engine: VisionEngine, found: Found, settings: Settings) -> None:
        super().__init__(name, engine, found, settings)
        self._settings = settings

    @cached_property
    def keys(self) -> dict[str, Any]:
        """What a GGUF file would say of its tokenizer."""
        config = config_of(self.engine.source)
        return tokenizer_metadata(self.engine.source, config.text_config.vocab_size + EXTRA)

    @cached_property
    def form(self) -> ChatFormat:
        """How its tokenizer writes conversations, pictures too."""
        return self.engine.form

    @cached_property
    def _encode(self) -> Callable[[str], list[int]]:
        return lambda text: self.engine.tokenize(text, add_special=False)

    def image(self, url: str) -> Any:
        """The picture that a request names. Fault 400 for one that is refused or cannot be read."""
        settings = self._settings
        try:
            return image_from(
                url,
                files=settings.image_folder is not None,
                hosts=settings.image_hosts,
                base=settings.image_folder,
            )
        except FlyweightError as error:
            raise Fault(400, f"{error}", code="invalid_image", param="messages") from error

    def show(self, image: Any) -> None:
        """What is asked next is about this picture, or about none."""
        self.engine.see(image)


def find_eyes(path: Path, bits: int | None) -> tuple[Found, Sizes]:
    """The weights of a Mllama folder, with the bits that they are held in, and its sizes."""
    files = weights_of(path)
    text = config_of(path).text_config
    width = text.hidden_size // text.num_attention_heads
    own = text.num_hidden_layers - len(text.cross_attention_layers)
    stored = sum(file.stat().st_size for file in files)
    sizes = Sizes(
        context=text.max_position_embeddings,
        hidden=text.hidden_size,
        mlp=text.intermediate_size,
        vocabulary=text.vocab_size,
        kv_width=2 * own * text.num_key_value_heads * width,
        key_length=width,
        bytes=FLOAT // 2 * stored,
        repacked_bytes=0,
    )
    held = bits if bits in WEIGHTS else WHOLE
    return Found(files[0], sha256_of(files[0]), path, held), sizes


def open_eyes(name: str, found: Found, context: int, settings: Settings) -> LoadedEyes:
    """A Mllama folder, loaded."""
    assert found.folder is not None
    engine = VisionEngine(
        found.folder, context=context, threads=settings.threads, bits=found.bits or WHOLE
    )
    return LoadedEyes(name, engine, found, settings)


__all__ = ["LoadedEyes", "find_eyes", "open_eyes"]
