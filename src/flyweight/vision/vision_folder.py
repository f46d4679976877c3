"""A Mllama folder: written from a text model and an encoder, and opened again."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flyweight.checkpoint import Checkpoint, silence_transformers
from flyweight.errors import TeacherError
from flyweight.folder import GGUF_NAMES, MODEL_CARD, sha256_of
from flyweight.runtime.chat_format import ChatFormat
from flyweight.vision.eyes import is_eyes, save_eyes
from flyweight.vision.language import (
    EXTRA,
    IMAGE,
    language_sha256,
    language_tensors,
    put_language,
    text_config,
    text_tensors,
)
from flyweight.vision.learned import Learned
from flyweight.vision.pixels import Cutter
from flyweight.vision.prompts import FLATTEN, format_of, template_of
from flyweight.vision.sizes import new_encoder

FACTS = "vision.json"  # what the folder is made of, and what runs it


@dataclass(frozen=True)
class Built:
    """How many parameters are the language model's and how many the eyes', and where these look."""

    language: int
    eyes: int
    crossing: list[int]


def write_vision(source: Checkpoint, eyes: Learned, count: int, folder: Path, seed: int) -> Built:
    """Write a Mllama with `source` as its language model, eyes and `count` layers to look through.

    What the eyes have not learned begins at random.
    """
    from transformers import MllamaConfig
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    from flyweight.vision.mllama import Mllama

    tokenizer = source.tokenizer()
    image_id = image_token(tokenizer, source)
    config: Any = MllamaConfig(
        text_config=text_config(source.config, count),
        vision_config=eyes.config,
        image_token_index=image_id,
    )
    text = source.model()
    torch.manual_seed(seed)
    model = Mllama(config).eval()
    _begin(model, eyes.weights)
    put_language(model, text)
    model.generation_config = text.generation_config  # it says what ends an answer
    before = language_sha256(text_tensors(text))
    save_model(model, folder, stored(source.path))
    pictures = MllamaImageProcessorPil(
        size={"height": eyes.config.image_size, "width": eyes.config.image_size},
        max_image_tiles=eyes.config.max_num_tiles,
        image_mean=eyes.mean,
        image_std=eyes.std,
    )
    write_processor(tokenizer, pictures, folder)
    kept = copy_texts(source.path, folder)
    parts = dict(language_tensors(model))
    language = sum(tensor.numel() for tensor in parts.values())
    built = Built(
        language, sum(p.numel() for p in model.parameters()) - language,
        config.text_config.cross_attention_layers,
    )  # fmt: skip
    write_facts(folder, source.name, before, kept)
    return built


@dataclass(frozen=True)
class Opened:
    """A Mllama folder in memory, with all that turns pictures and words into its inputs."""

    folder: Path
    model: Any
    tokenizer: Any
    cutter: Cutter

    @cached_property
    def form(self) -> ChatFormat:
        """How conversations are written; OptionError without a chat template."""
        return format_of(self.tokenizer, str(self.folder))

    @property
    def image_id(self) -> int:
        """The token that stands for a picture."""
        return int(self.model.config.image_token_index)

    @property
    def context(self) -> int:
        """The longest sequence that it was made for, in tokens."""
        return int(self.model.config.text_config.max_position_embeddings)


def open_vision(folder: Path) -> Opened:
    """Open a Mllama folder; TeacherError for one that is none."""
    from transformers import AutoTokenizer

    from flyweight.vision.mllama import load

    silence_transformers()
    folder = Path(folder)
    kind = model_type(folder)
    if kind != "mllama":
        raise TeacherError(
            f"{folder}: has no eyes (it is a {kind}). Give it some: flyweight add-vision."
        )
    if is_eyes(folder):
        raise TeacherError(
            f"{folder}: holds eyes alone. Put them together with their language model: flyweight "
            f"add-vision MODEL OUT --encoder {folder}."
        )
    try:
        model = load(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        cutter = Cutter.of(folder)
    except TeacherError:
        raise
    except Exception as error:  # transformers raises many kinds for a broken checkpoint
        reason = " ".join(str(error).split())[:200]
        raise TeacherError(f"{folder}: cannot be read ({reason}). Make it again.") from error
    return Opened(folder, model, tokenizer, cutter)


def has_eyes(place: Path) -> bool:
    """Whether a path is a Mllama folder."""
    try:
        return place.is_dir() and model_type(place) == "mllama"
    except (TeacherError, OSError):  # no model, or a name that no path can have
        return False


def config_of(folder: Path) -> Any:
    """The config of a Mllama folder; TeacherError for one that cannot be read."""
    from transformers import MllamaConfig

    try:
        return MllamaConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for an odd config
        reason = " ".join(str(error).split())[:200]
        raise TeacherError(f"{folder}: its config.json cannot be used ({reason}).") from error


def weights_of(folder: Path) -> list[Path]:
    """The files of a folder's weights; TeacherError where there are none."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise TeacherError(f"{folder}: no *.safetensors in the folder. Add the weights.")
    return files


def model_type(folder: Path) -> str:
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(told.get("model_type"))
    except (OSError, ValueError, AttributeError) as error:
        raise TeacherError(f"{folder}: no config.json to read. Give a model folder.") from error


def save_vision(opened: Opened, folder: Path, language: str, eyes_only: bool = False) -> None:
    """Write a folder like the one that was opened, with what its model has become."""
    facts = read_facts(opened.folder)
    name, kept = facts.get("language_model", str(opened.folder)), {}
    for file in ("processor_config.json", "preprocessor_config.json"):
        if (opened.folder / file).exists():
            shutil.copy2(opened.folder / file, folder / file)
    if eyes_only:
        save_eyes(opened.model, folder, stored(opened.folder))
    else:
        save_model(opened.model, folder, stored(opened.folder))
        opened.tokenizer.save_pretrained(folder)
        kept = copy_texts(opened.folder, folder)
    write_facts(folder, name, language, kept, eyes_only)


def read_facts(folder: Path) -> dict[str, Any]:
    """What `write_facts` wrote; nothing where it did not."""
    try:
        return json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def image_token(tokenizer: Any, source: Checkpoint) -> int:
    """The number of the token that stands for a picture, a new one where there is none."""
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]},
                                 replace_extra_special_tokens=False)  # fmt: skip
    number = tokenizer.convert_tokens_to_ids(IMAGE)
    if number >= source.config.vocab_size + EXTRA:
        raise TeacherError(
            f"{source.name}: its tokenizer has {number:,} tokens, its embedding "
            f"{source.config.vocab_size:,} rows. Use a model whose tokenizer fits."
        )
    return number


def _begin(model: Any, learned: Mapping[str, Tensor]) -> None:
    """The encoder as it begins: with what it has learned, else as `new_encoder` says."""
    vision = model.model.vision_model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            looks = "cross_attn." in name or name == "model.multi_modal_projector.weight"
            if looks and parameter.dim() == 2:
                torch.nn.init.xavier_uniform_(parameter)
        if not learned:
            new_encoder(vision)
        parameters = dict(vision.named_parameters())
        for name, tensor in learned.items():
            parameters[name].copy_(tensor)


def stored(folder: Path) -> torch.dtype:
    """The type that holds every weight of a folder exactly."""
    from safetensors import safe_open

    types = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            types |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    return (
        {"BF16": torch.bfloat16, "F16": torch.float16}.get(*types)
        if len(types) == 1
        # type: ignore[return-value]
        else (torch.float32)
    )


def save_model(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write a model's weights in this type, and its config."""
    copy.deepcopy(model).to(dtype).save_pretrained(folder)


def write_processor(tokenizer: Any, pictures: Any, folder: Path) -> None:
    """Write tokenizer, chat template and image processor for transformers' AutoProcessor."""
    from transformers import MllamaProcessor

    template = template_of(tokenizer)
    if template and FLATTEN not in template:
        tokenizer.chat_template = FLATTEN + template
    MllamaProcessor(pictures, tokenizer, tokenizer.chat_template).save_pretrained(folder)


def copy_texts(source: Path, folder: Path) -> dict[str, str]:
    """Copy the text model's GGUF files, which are valid still, and return their hashes."""
    kept = {}
    for name in GGUF_NAMES.values():
        if (source / name).exists():
            shutil.copy2(source / name, folder / name)
            kept[name] = sha256_of(folder / name)
    return kept


def write_facts(
    folder: Path, name: str, sha256: str, kept: dict[str, str], eyes_only: bool = False
) -> None:
    """Write what the folder is made of and what runs it, for programs and for people.

    `name` and `sha256` are the language model's, `kept` the hashes of its files by name.
    """
    facts = {
        "language_model": name,
        "language_sha256": sha256,
        "formats": ["safetensors", *(["gguf (texts alone)"] if kept else [])],
        "engines": [
            "flyweight (as Meta's code computes it)",
            "transformers (lets a picture into earlier tokens: docs/concepts/vision.md)",
            *(["llama.cpp (the GGUF files, texts alone)"] if kept else []),
        ],
        "text_files": kept,
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    told = _eyes_card(facts) if eyes_only else _model_card(facts)
    (folder / MODEL_CARD).write_text(told, encoding="utf-8")


def _eyes_card(facts: dict[str, Any]) -> str:
    """What a person reads in a folder of eyes alone."""
    return f"""# Eyes for {Path(facts["language_model"]).name}

An image encoder and gated cross-attention layers, without the language model that they were
trained for: `{facts["language_model"]}`, whose weights have the SHA-256
`{facts["language_sha256"]}` (named tensors at 32 bits). Put together, they are a Mllama, the
architecture of Llama 3.2 Vision:

```
flyweight add-vision LANGUAGE_MODEL OUT --encoder .
```
"""


def _model_card(facts: dict[str, Any]) -> str:
    """A Hugging Face model card."""
    files = ", ".join(f"`{name}`" for name in facts["text_files"])
    texts = (
        f"Requests without a picture may as well go to {files}: these files of the text model are "
        "valid still."
        if files
        else "A GGUF file of the text model stays valid for requests without a picture."
    )
    engines = "\n".join(f"- {engine}" for engine in facts["engines"])
    return f"""---
library_name: transformers
pipeline_tag: image-text-to-text
---

# {Path(facts["language_model"]).name} with eyes

`{facts["language_model"]}` with an image encoder and gated cross-attention layers (Mllama, the
architecture of Llama 3.2 Vision). The language model is the very one from before: its weights have
the SHA-256 `{facts["language_sha256"]}` (named tensors at 32 bits), and without a picture it says
the same, bit for bit. {texts}

What runs it:

{engines}

```
flyweight chat . "What does it show?" --image picture.png
```
"""
