"""Opening a teacher: a Hugging Face folder or hub name, safetensors only, of a known family."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.anatomy import Family, Shape, family_of
from flyweight.anatomy.gguf import GgufMap
from flyweight.errors import TeacherError, UnsupportedFamily
from flyweight.folder import sha256_of
from flyweight.progress import say
from flyweight.weight_files import types_in, weight_files

WEIGHT_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")  # of pictures
BYTES_AT_16_BITS = 2
MAPPED = 500e6  # parameters from which a teacher that is only read stays in its files


@dataclass(frozen=True)
class Checkpoint:
    """A folder of weights that can be loaded: `commit` is the hub's, None for a plain folder."""

    name: str
    path: Path
    commit: str | None
    config: Any
    family: Family

    @property
    def shape(self) -> Shape:
        return self.family.shape_of(self.config)

    @property
    def parameters(self) -> int:
        return self.family.count(self.shape, self.config)

    @property
    def bytes(self) -> int:
        """What its parameters take at 16 bits: all byte ratios are against this."""
        return self.parameters * BYTES_AT_16_BITS

    @property
    def context(self) -> int:
        """The longest sequence that it was made for, in tokens."""
        return int(self.config.get_text_config().max_position_embeddings)

    @property
    def gguf_map(self) -> GgufMap:
        """How its family goes into a GGUF file; UnsupportedFamily where llama.cpp knows none."""
        if self.family.gguf is None:
            raise UnsupportedFamily(
                f"{self.name}: Flyweight does not write {self.family.name} to GGUF yet, which this "
                "needs. `flyweight families` lists what it writes; prune and distill work without."
            )
        return self.family.gguf

    @property
    def labels(self) -> dict[str, int]:
        """Numbers of its labels by name; TeacherError unless it gives a text one of several."""
        config = self.config
        kind = getattr(config, "problem_type", None)
        if config.num_labels < 2 or kind not in (None, "single_label_classification"):
            raise TeacherError(
                f"{self.name} chooses no label of several ({config.num_labels} outputs, "
                f"problem_type {kind}). Use a model that does."
            )
        numbers = {str(label): int(number) for number, label in config.id2label.items()}
        given = getattr(config, "label2id", None) or numbers
        wrong = {label: number for label, number in given.items() if numbers.get(label) != number}
        if wrong or sorted(numbers.values()) != list(range(config.num_labels)):
            raise TeacherError(
                f"{self.name}: id2label and label2id in its config.json do not number the "
                f"{config.num_labels} labels alike, each once. Correct them."
            )
        return numbers

    def sha256(self) -> str:
        """One hash over all weight files."""
        files = sorted(self.path.glob("*.safetensors"))
        return _combined(files)

    def tokenizer_sha256(self) -> str:
        """One hash over what decides the tokens."""
        files = [self.path / name for name in TOKENIZER_FILES]
        return _combined([file for file in files if file.exists()])

    def identity(self) -> dict[str, str]:
        """The hashes of all that decides what it says, for the names of what is made with it."""
        cut_with = [self.path / name for name in PROCESSOR_FILES]
        return {
            "teacher": self.sha256(),
            "tokenizer": self.tokenizer_sha256(),
            "config": sha256_of(self.path / "config.json"),
            **{file.name: sha256_of(file) for file in cut_with if file.exists()},
        }

    @property
    def mapped(self) -> bool:
        """Whether it is big and all of bf16, so that what only reads it need not hold it."""
        return self.parameters >= MAPPED and types_in(weight_files(self.path)) == {"BF16"}

    def model(self, dtype: str = "float32") -> Any:
        """The transformers model, ready to run, and in fp32 to be trained."""
        return self._load(dtype)

    def frozen(self) -> Any:
        """The same model to be read alone: a big one of bf16 stays in its files (mapped.py).

        One of other types is held in fp32, which is said.
        """
        if not self.mapped:
            if self.parameters >= MAPPED:
                say(f"{self.name}: not all of it is bfloat16, so it is held in 32 bits.")
            return self.model()
        from flyweight.mapped import map_weights

        model = self._load("bfloat16")
        map_weights(model, self._drawn)
        return model

    def _drawn(self) -> Any:
        """The network in fp32 without weights, but with its buffers."""
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=False):
            return self._built()

    def _load(self, dtype: str) -> Any:
        try:
            loaded: Any = self.family.loader.from_pretrained(
                self.path,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # transformers raises many kinds for a broken checkpoint
            raise TeacherError(
                f"{self.name}: its weights cannot be read ({_first_line(error)}). "
                "Download or save the model again."
            ) from error
        model, report = loaded
        self._check_parameters(model, report["missing_keys"])
        return model.eval()

    def _check_parameters(self, model: Any, missing: Collection[str]) -> None:
        """Transformers draws missing tensors at random, and knows some that the family does not."""
        if missing:
            raise TeacherError(
                f"{self.name}: {len(missing)} of its tensors missing, such as {min(missing)}. "
                "Download or save the model again."
            )
        self._check_declared(model)

    def check_declared(self) -> None:
        """UnsupportedFamily if its config asks for what the family does not have; loads nothing."""
        import torch

        with torch.device("meta"):
            self._check_declared(self._built())

    def _built(self) -> Any:
        loader = self.family.loader
        build = getattr(loader, "from_config", None) or loader._from_config
        return build(copy.deepcopy(self.config), dtype="float32")  # it is written to

    def _check_declared(self, model: Any) -> None:
        for name, _ in model.named_parameters():
            try:
                self.family.spell(name)
            except KeyError:
                raise UnsupportedFamily(
                    f"{self.name}: the family {self.family.name!r} has no parameter {name}. "
                    "Use a model without such additions."
                ) from None

    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        from transformers import AutoTokenizer

        if not any((self.path / name).exists() for name in TOKENIZER_FILES):
            raise TeacherError(  # transformers would make one up
                f"{self.name}: no tokenizer in the folder. Add tokenizer.json and "
                "tokenizer_config.json."
            )
        try:
            return AutoTokenizer.from_pretrained(self.path, local_files_only=True)
        except Exception as error:  # as above
            raise TeacherError(
                f"{self.name}: its tokenizer cannot be read ({_first_line(error)}). "
                "Add tokenizer.json and tokenizer_config.json to the folder."
            ) from error


def round_weights(model: Any) -> None:
    """Round a model's weights to bf16 in place; its buffers (RoPE's frequencies) stay exact."""
    import torch

    from flyweight.mapped import is_mapped

    if is_mapped(model):
        return  # it is of bf16
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())


def save_checkpoint(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a Hugging Face folder in bf16. The model stays in fp32, rounded as the file is."""
    import torch

    from flyweight.mapped import as_stored, is_mapped

    if is_mapped(model):
        with as_stored(model):
            model.save_pretrained(folder)
    else:
        round_weights(model)
        copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def open_checkpoint(name: str | Path, *, pictures: bool = False) -> Checkpoint:
    """The checkpoint in a folder, or of a hub name (downloaded, pinned to its commit).

    Raises TeacherError when it is missing, unreadable or pickled, or has eyes where no `pictures`
    are meant, UnsupportedFamily when its architecture is not known.
    """
    silence_transformers()
    path = Path(name)
    commit = None
    if not path.exists():
        if not _looks_like_hub_name(str(name)):
            raise TeacherError(
                f"{name}: no such folder. Give a Hugging Face model folder or a hub name "
                "such as meta-llama/Llama-3.2-1B-Instruct."
            )
        path, commit = _download(str(name))
    if not path.is_dir():
        raise TeacherError(f"{name} is a file. Give the model's folder.")
    config = _read_config(path, str(name))
    _check_weights(path, str(name))
    family = family_of(config)
    if family.pictures and not pictures:
        raise TeacherError(
            f"{name}: has eyes, and this is for models of texts alone. Give its language model, or "
            "use prune, make, eval, sticker, train-vision, chat or serve, which take pictures."
        )
    return Checkpoint(str(name), path, commit, config, family)


def silence_transformers() -> None:
    """From here on transformers' own bars and reports are silent: ours stand in their place."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _looks_like_hub_name(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "/", "~"))


def _download(name: str) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(WEIGHT_FILES)))
    except Exception as error:  # the hub's client raises a dozen kinds, offline and on
        raise TeacherError(
            f"{name}: not a folder here, and the hub did not answer ({_first_line(error)}). With "
            f"internet: hf download {name} --local-dir {name.split('/')[1]}; then give that folder."
        ) from error
    return folder, folder.name  # a snapshot's folder is named by its commit


def _read_config(path: Path, name: str) -> Any:
    from transformers import AutoConfig

    file = path / "config.json"
    if not file.is_file():
        raise TeacherError(f"{name}: no config.json. Give a Hugging Face model folder.")
    try:
        model_type = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, OSError, AttributeError) as error:
        raise TeacherError(
            f"{file} cannot be read ({_first_line(error)}). Save it again."
        ) from error
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for an odd config
        family_of(_Named(model_type))  # says which architectures are known, if this is not one
        raise TeacherError(f"{file} cannot be used ({_first_line(error)}).") from error


@dataclass(frozen=True)
class _Named:
    model_type: str | None


def _check_weights(path: Path, name: str) -> None:
    from safetensors import SafetensorError, safe_open

    files = sorted(path.glob("*.safetensors"))
    if not files:
        if any(next(path.glob(pattern), None) for pattern in PICKLES):
            raise TeacherError(
                f"{name}: its weights are pickled, and a pickle can run any code when it is "
                "opened. Convert them to safetensors."
            )
        raise TeacherError(f"{name}: no *.safetensors in the folder. Add the weights.")
    for file in files:
        try:
            with safe_open(file, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise TeacherError(
                f"{file} cannot be read ({_first_line(error)}). Download or save it again."
            ) from error


def _combined(files: list[Path]) -> str:
    if len(files) == 1:
        return sha256_of(files[0])
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
