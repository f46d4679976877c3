"""The verb `prune`: cut a model down, without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.anatomy import Shape
    from flyweight.checkpoint import Checkpoint
    from flyweight.shrink.importance import Importance
    from flyweight.tasks.items import Task


def prune(
    teacher: str,
    out: Path,
    *,
    task: Path,
    keep: float = 0.25,
    layers: int | None = None,
    hidden: int | None = None,
    mlp: int | None = None,
    heads: int | None = None,
    kv_groups: int | None = None,
) -> Path:
    """Cut a model down to what matters for your prompts, without training it.

    With any size given, exactly that shape is cut; otherwise the shape of the grid with about
    `keep` of the parameters that stays nearest to the teacher. Writes a Hugging Face folder.

    Args:
        teacher: A Hugging Face model folder, or a hub name.
        out: The folder to write.
        task: JSONL or Parquet whose prompts and answers tell what matters.
        keep: The share of the parameters that stays.
        layers: Transformer blocks.
        hidden: Channels of the residual stream.
        mlp: Intermediate channels of a feed-forward block.
        heads: Query heads, over all KV groups.
        kv_groups: Key/value heads.

    Raises:
        FlyweightError: Bad input, or a shape that cannot be cut out of the teacher.
    """
    from flyweight.checkpoint import open_checkpoint, save_checkpoint
    from flyweight.folder import check_place, new_folder
    from flyweight.progress import say
    from flyweight.shrink.cut import cut_model
    from flyweight.shrink.shapes import check_shape
    from flyweight.tasks.read import read_task

    source = open_checkpoint(teacher)
    wanted = _wanted(
        source.shape, layers=layers, hidden=hidden, mlp=mlp, heads=heads, kv_groups=kv_groups
    )
    check_shape(source.shape, wanted or source.shape, keep)
    check_place(out)
    items = read_task(task)
    tokenizer, model = source.tokenizer(), source.model()
    importance = _importance(source, model, tokenizer, items)
    shape = wanted or _nearest(source, model, tokenizer, items, importance, keep)
    student = cut_model(model, source.family, importance.keep(source.shape, shape))
    with new_folder(out) as folder:
        save_checkpoint(student, tokenizer, folder)
    count = source.family.count(shape, source.config)
    say(f"{out}: {shape}, {count:,} of {source.parameters:,} parameters")
    return out


def _wanted(old: Shape, **sizes: int | None) -> Shape | None:
    """The shape that was asked for; None where no size was given, OptionError if it is the old."""
    from flyweight.errors import OptionError

    given = {name: size for name, size in sizes.items() if size is not None}
    wanted = old.with_sizes(**given)
    if given and wanted == old:
        named = ", ".join(f"--{name.replace('_', '-')} {size}" for name, size in given.items())
        raise OptionError(
            f"{named}: the teacher has exactly that, so there is nothing to cut. "
            "Give a smaller size, or --keep alone."
        )
    return wanted if given else None


def _importance(source: Checkpoint, model: Any, tokenizer: Any, task: Task) -> Importance:
    """What matters in the teacher for the first train items."""
    from flyweight.make.quote import CALIBRATION
    from flyweight.shrink.calibrate import measure_importance
    from flyweight.tasks.encode import encode_items

    examples = encode_items(tokenizer, task.train[:CALIBRATION], task.name, source.context)
    return measure_importance(model, source.family, [each.ids.tolist() for each in examples])


def _nearest(
    source: Checkpoint, model: Any, tokenizer: Any, task: Task, importance: Importance, keep: float
) -> Shape:
    """The shape of the grid with about `keep` of the parameters that stays nearest on dev."""
    from flyweight.distill.teacher import answer_rows, record_teacher
    from flyweight.errors import OptionError
    from flyweight.make.quote import RANKING
    from flyweight.make.rank import rank_shapes
    from flyweight.tasks.encode import encode_items

    examples = encode_items(tokenizer, task.dev[:RANKING], task.name, source.context)
    rows = record_teacher(model, answer_rows(examples, 0.0))
    ranked = rank_shapes(model, source.family, importance, rows, keep)
    if not ranked:
        raise OptionError(
            f"no shape of the grid keeps about {keep:.0%}. Give another --keep, or the sizes."
        )
    return ranked[0].shape
