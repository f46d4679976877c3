"""What a folder with eyes says of itself: `vision.json` for programs, a model card for people."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from flyweight.folder import GGUF_NAMES, MODEL_CARD, sha256_of

FACTS = "vision.json"  # what the folder is made of, and what runs it


def read_facts(folder: Path) -> dict[str, Any]:
    """What `write_facts` wrote; nothing where it did not."""
    try:
        return json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_facts(
    folder: Path, name: str, sha256: str, kept: dict[str, str], eyes_only: bool = False
) -> None:
    """Write what the folder is made of and what runs it, for programs and for people.

    `name` and `sha256` are the language model's, `kept` the hashes of its files by name. Of a
    folder its last part is told: where it lies is nobody else's business.
    """
    facts = {
        "language_model": Path(name).resolve().name if Path(name).exists() else name,
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


def copy_texts(source: Path, folder: Path) -> dict[str, str]:
    """Copy the text model's GGUF files, which are valid still, and return their hashes."""
    kept = {}
    for name in GGUF_NAMES.values():
        if (source / name).exists():
            shutil.copy2(source / name, folder / name)
            kept[name] = sha256_of(folder / name)
    return kept


__all__ = ["copy_texts", "read_facts", "write_facts"]
