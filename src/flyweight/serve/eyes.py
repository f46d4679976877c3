"""A model with eyes in the service: its sizes, its tokenizer, and the pictures of requests."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from flyweight.errors import EngineError, FlyweightError, TeacherError
from flyweight.folder import CARD, read_card, sha256_of
from flyweight.runtime.chat_format import ChatFormat
from flyweight.runtime.memory import Sizes
from flyweight.runtime.open_model import Found
from flyweight.runtime.tokenizer_gguf import tokenizer_metadata
from flyweight.serve.faults import Fault
from flyweight.serve.loaded import Loaded, Settings
from flyweight.vision.engine import KEPT, WEIGHTS, VisionEngine
from flyweight.vision.eyes import config_of
from flyweight.vision.images import open_image, source_from
from flyweight.vision.language import EXTRA
from flyweight.vision.vision_folder import bits_of, weights_of

NORMAL, CONTROL = 1, 3  # ggml's numbers of types of tokens
FLOAT = 4  # bytes of a weight in memory
# A picture of a few hundred kilobytes may take more than a gigabyte while it is decoded.
ONE_AT_A_TIME = threading.Lock()


class LoadedEyes(Loaded):
    """A Mllama in its engine; one answer at a time."""

    engine: VisionEngine

    def __init__(self, name: str, engine: VisionEngine, found: Found, settings: Settings) -> None:
        super().__init__(name, engine, found, settings)
        self._settings = settings

    @cached_property
    def keys(self) -> dict[str, Any]:
        """What a GGUF file would say of its tokenizer."""
        size = config_of(self.engine.source).text_config.vocab_size + EXTRA
        try:
            return tokenizer_metadata(self.engine.source, size)
        except EngineError:  # a kind that llama.cpp does not know
            return plain_keys(self.engine.tokenizer)

    @cached_property
    def form(self) -> ChatFormat:
        """How its tokenizer writes conversations, pictures too."""
        return self.engine.form

    @cached_property
    def _encode(self) -> Callable[[str], list[int]]:
        return partial(self.engine.tokenize, add_special=False)

    def image(self, url: str) -> Any:
        """The picture that a request names. Fault 400 for one that is refused or cannot be read."""
        settings = self._settings
        try:
            source = source_from(
                url,
                files=settings.image_folder is not None,
                hosts=settings.image_hosts,
                base=settings.image_folder,
            )
            with ONE_AT_A_TIME:
                image = open_image(*source)
                return self.engine.cutter.cut(image)  # what waits in the line is small
        except FlyweightError as error:
            raise Fault(400, f"{error}", code="invalid_image", param="messages") from error

    def show(self, image: Any) -> None:
        """What is asked next is about this picture, or about none."""
        self.engine.see(image)


def plain_keys(tokenizer: Any) -> dict[str, Any]:
    """What a GGUF file would say of any tokenizer's tokens: their texts, and which are special."""
    size = len(tokenizer)
    special = set(tokenizer.all_special_ids)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [
            str(each) for each in tokenizer.convert_ids_to_tokens(range(size))
        ],
        "tokenizer.ggml.token_type": [CONTROL if i in special else NORMAL for i in range(size)],
        "tokenizer.ggml.add_bos_token": tokenizer.bos_token_id is not None,
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
    }


def find_eyes(path: Path, bits: int | None) -> tuple[Found, Sizes]:
    """The weights of a Mllama folder, with the bits that they are held in, and its sizes."""
    held = bits_of(path, bits if bits in (*WEIGHTS, 16) else None)
    files = weights_of(path, held)
    config = config_of(path)
    text = config.text_config
    width = text.hidden_size // text.num_attention_heads
    own = text.num_hidden_layers - len(text.cross_attention_layers)
    kept = 2 * len(text.cross_attention_layers) * text.num_key_value_heads * width
    eyes = config.vision_config
    patches = eyes.max_num_tiles * ((eyes.image_size // eyes.patch_size) ** 2 + 1)
    sizes = Sizes(
        context=text.max_position_embeddings,
        hidden=text.hidden_size,
        mlp=text.intermediate_size,
        vocabulary=text.vocab_size,
        kv_width=2 * own * text.num_key_value_heads * width,
        key_length=width,
        bytes=FLOAT * (sum(map(_numbers, files)) + KEPT * kept * patches),
        repacked_bytes=0,
    )
    card = read_card(path) if (path / CARD).exists() else None
    sha256 = sha256_of(files[0])
    entry = card.files.get(files[0].name) if card is not None else None
    if entry is not None and entry.sha256 != sha256:
        raise EngineError(
            f"{files[0]}: is not the file that {CARD} names; make or download it again"
        )
    return Found(files[0], sha256, path, held, card), sizes


def _numbers(file: Path) -> int:
    """How many numbers a file of weights holds."""
    try:
        with safe_open(file, framework="np") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise TeacherError(f"{file} cannot be read ({error}). Get it again.") from error


def chats(path: Path) -> bool:
    """Whether a folder has a chat template."""
    if (path / "chat_template.jinja").exists():
        return True
    try:
        told = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
        return bool(told.get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return False


def open_eyes(name: str, found: Found, context: int, settings: Settings) -> LoadedEyes:
    """A Mllama folder, loaded."""
    assert found.folder is not None
    assert found.bits is not None
    engine = VisionEngine(found.folder, context=context, threads=settings.threads, bits=found.bits)
    return LoadedEyes(name, engine, found, settings)


__all__ = ["LoadedEyes", "chats", "find_eyes", "open_eyes"]
