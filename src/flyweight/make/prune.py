"""The verb `prune`: cut a model down, without training."""

from __future__ import annotations

from pathlib import Path


def prune(
    teacher: str,
    out: Path,
    *,
    task: Path,
    keep: float | None = None,
    layers: int | None = None,
    hidden: int | None = None,
    mlp: int | None = None,
    heads: int | None = None,
    kv_groups: int | None = None,
    head_dim: int | None = None,
    experts: int | None = None,
    encoder_layers: int | None = None,
    encoder_mlp: int | None = None,
    tied: bool = False,
    used_tokens: bool = False,
    mend: bool = True,
) -> Path:
    """Cut a model down to what matters for your prompts, without training it.

    With any size given, so many stay of what it names and all of the rest; otherwise the shape of
    the grid with about `keep` of the parameters that stays nearest to the teacher. With --tied or
    --used-tokens alone nothing else is cut. The weights that stay are mended: fitted anew, block by
    block and by least squares, to say what the teacher's say on the train items. Writes a Hugging
    Face folder.

    Args:
        teacher: A Hugging Face model folder, or a hub name.
        out: The folder to write.
        task: JSONL or Parquet whose prompts and answers tell what matters, of a model with eyes
            their pictures too (image: a path from this file on).
        keep: The share of the parameters that stays; 0.25 where nothing else is given.
        layers: Transformer blocks.
        hidden: Channels of the residual stream.
        mlp: Intermediate channels of a feed-forward block.
        heads: Query heads, over all KV groups.
        kv_groups: Key/value heads.
        head_dim: Dimensions of a head: half of them, a third, and so on.
        experts: Experts of a mixture, in each block.
        encoder_layers: Blocks of an image encoder, without those over all tiles, which stay.
        encoder_mlp: Intermediate channels of an image encoder's blocks.
        tied: Use the input embedding as the output embedding too.
        used_tokens: Keep only the tokens that the train items use, and what those are made from.
        mend: Mend the weights that stay; without it they are sliced as they are.

    Raises:
        FlyweightError: Bad input, or a shape that cannot be cut out of the teacher.
    """
    from flyweight.make.cutting import Wish, cut_for_task

    sizes = {
        "layers": layers,
        "hidden": hidden,
        "mlp": mlp,
        "heads": heads,
        "kv_groups": kv_groups,
        "head_dim": head_dim,
        "experts": experts,
        "encoder_layers": encoder_layers,
        "encoder_mlp": encoder_mlp,
    }
    given = {name: size for name, size in sizes.items() if size is not None}
    return cut_for_task(teacher, out, task, Wish(keep, given, tied, used_tokens, mend))
