"""The tokens that a task uses: the teacher without the others, which students are cut from.

A small model is mostly embeddings: a row of them for each token, and a task uses few. What is left
can still be given any text, in smaller pieces where a token is gone, and says of texts whose tokens
all stay what the teacher says (of one that writes: among the tokens that stay).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyweight.checkpoint import Checkpoint, open_checkpoint
from flyweight.errors import OptionError, TaskError, TeacherError
from flyweight.make.data import prepare_split
from flyweight.make.form import Form, form_of
from flyweight.make.workload import trim_work
from flyweight.progress import say
from flyweight.shrink.cut import cut_config
from flyweight.shrink.keep import keep_all
from flyweight.shrink.retoken import rebuild_tokenizer
from flyweight.shrink.stream import cut_folder
from flyweight.shrink.token_ids import named_ids
from flyweight.shrink.vocabulary import Vocabulary, plan_vocabulary
from flyweight.tasks.items import Item
from flyweight.tasks.score import Scorer

if TYPE_CHECKING:
    from flyweight.make.job import Job

TRIMMED = "teacher"  # in its stage
WORTH = 0.2  # of the rows: to save fewer, no tokenizer is changed


def used_vocabulary(
    source: Checkpoint, tokenizer: Any, used: Sequence[Sequence[int]]
) -> Vocabulary:
    """The tokens that these sequences of ids use, and those that they are made from.

    Raises TeacherError for a tokenizer that cannot be cut.
    """
    from transformers import GenerationConfig

    configs = [source.config]
    if (source.path / "generation_config.json").exists():
        configs.append(GenerationConfig.from_pretrained(source.path))
    rows = source.shape.vocabulary
    named = {i for i in named_ids(*configs) if i < rows}  # a picture's token may have no row there
    inside = [[i for i in ids if i < rows] for ids in used]
    return plan_vocabulary(tokenizer, inside, rows=rows, named=named)


def vocabulary_of(
    form: Form, items: Sequence[Item], name: str, scorer: Scorer
) -> Vocabulary | None:
    """The tokens that a task's train items use, `name` being the task's.

    None where the others are not worth leaving out, or cannot be left out.
    """
    if not scorer.needs_generation:  # plain text may use any token
        return None
    used = [each.ids.tolist() for each in prepare_split(items, name, form, scorer).examples]
    try:
        found = used_vocabulary(form.source, form.tokenizer, used)
    except (TeacherError, OptionError) as error:
        say(f"All tokens stay: {error}")
        return None
    return found if len(found) <= (1 - WORTH) * found.rows else None


def trimmed(job: Job) -> Form | None:
    """The teacher with the task's tokens, as a stage; None where it stays as it is."""
    big = job.big
    vocabulary = vocabulary_of(big, job.items["train"], job.task.name, job.scorer)
    if vocabulary is None:
        return None
    _ = job.data_of(big)  # items that the teacher itself cannot take are refused here

    def make(folder: Path) -> None:
        say(f"Of the task's vocabulary {vocabulary}")
        trim(big.source, big.tokenizer, vocabulary, folder / TRIMMED)

    inputs = job.source_of(big) | {
        "tokens": vocabulary.keep.tolist(), "prompts": job.prompting(),
    }  # fmt: skip
    try:
        folder = job.store.stage("vocabulary", inputs, make, work=trim_work(job.sizes))
        form = form_of(open_checkpoint(folder / TRIMMED, pictures=big.source.family.pictures))
        _ = job.data_of(form)  # texts in smaller pieces may not fit its context
    except (TeacherError, OptionError, TaskError) as error:
        say(f"All tokens stay: {error}")
        return None
    return form


def foreseen(source: Checkpoint, vocabulary: Vocabulary) -> Checkpoint:
    """What `trim` will write, by its config: enough to count parameters and shapes."""
    keep = replace(keep_all(source.shape), vocabulary=vocabulary.keep)
    return replace(source, config=cut_config(source.family, source.config, keep))


def trim(source: Checkpoint, tokenizer: Any, vocabulary: Vocabulary, out: Path) -> None:
    """Write the teacher with these tokens alone to `out`, nothing else of it changed."""
    keep = replace(keep_all(source.shape), vocabulary=vocabulary.keep)
    smaller = rebuild_tokenizer(tokenizer, vocabulary.keep, rows=vocabulary.rows)
    cut_folder(source.path, out, source.family, keep, tokenizer=smaller)


__all__ = ["foreseen", "trim", "trimmed", "used_vocabulary", "vocabulary_of"]
