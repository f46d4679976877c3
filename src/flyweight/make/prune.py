"""The verb `prune`: cut a model down, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any


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
    from flyweight.distill.teacher import answer_rows, record_teacher
    from flyweight.errors import OptionError
    from flyweight.folder import check_place, new_folder
    from flyweight.make.job import CALIBRATION, RANKING
    from flyweight.make.rank import rank_shapes
    from flyweight.progress import say
    from flyweight.shrink.cut import cut_model
    from flyweight.shrink.importance import measure_importance
    from flyweight.shrink.shapes import check_shape
    from flyweight.tasks.encode import encode
    from flyweight.tasks.read import read_task

    source = open_checkpoint(teacher)
    sizes = {
        "layers": layers, "hidden": hidden, "mlp": mlp, "heads": heads, "kv_groups": kv_groups,
    }  # fmt: skip
    wanted = source.shape.with_sizes(**sizes)
    check_shape(source.shape, wanted, keep)
    check_place(out)
    items = read_task(task)
    tokenizer, model = source.tokenizer(), source.model()

    def encoded(part: Any) -> list[Any]:
        return [encode(tokenizer, item.messages, item.answer or "") for item in part]

    sequences = [example.ids.tolist() for example in encoded(items.train[:CALIBRATION])]
    importance = measure_importance(model, source.family, sequences)
    if wanted == source.shape:
        rows = record_teacher(model, answer_rows(encoded(items.dev[:RANKING]), 0.0))
        ranked = rank_shapes(model, source.family, importance, rows, keep)
        if not ranked:
            raise OptionError(
                f"no shape of the grid keeps about {keep:.0%}. Give another --keep, or the sizes."
            )
        wanted = ranked[0].shape
    student = cut_model(model, source.family, importance.keep(source.shape, wanted))
    with new_folder(out) as folder:
        save_checkpoint(student, tokenizer, folder)
    count = source.family.count(wanted, source.config.tie_word_embeddings)
    say(f"{out}: {wanted}, {count:,} of {source.parameters:,} parameters")
    return out
