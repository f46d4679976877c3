"""The verb `add-vision`: eyes for a language model that does not change, not yet trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyweight.vision.learned import Learned

TILES = 4  # of a picture, where nothing else is asked for


def add_vision(
    model: str,
    out: Path,
    *,
    encoder: str = "small",
    tiles: int | None = None,
    image_size: int | None = None,
    patch_size: int | None = None,
    cross_layers: int | None = None,
    seed: int = 0,
) -> Path:
    """Give a text model an image encoder and gated cross-attention layers: a Mllama folder.

    The language model is copied as it is, its layers renumbered; the gates are at zero, so that an
    image changes nothing until `flyweight train-vision` has taught the new parts. GGUF files in the
    model's folder come along: they answer texts as before.

    Args:
        model: A Llama model folder, or a hub name.
        out: The folder to write.
        encoder: A size of an encoder that has learned nothing: tiny, small, base or meta (that of
            Llama 3.2 Vision); or a ViT, CLIP or SigLIP model, as a folder or hub name, to begin
            with what it knows; or a folder of eyes that were trained for this very model.
        tiles: How many squares a picture is cut into at the most, for detail; 4 if not given.
        image_size: Pixels of a side of such a square; the encoder's own if not given.
        patch_size: Pixels of a side of the patches that are its tokens; likewise.
        cross_layers: How many cross-attention layers; one for four language layers if not given.
        seed: Makes the new parts the same again.

    Raises:
        FlyweightError: A model that Mllama's layers cannot compute, or an encoder of another kind.
    """
    from flyweight.checkpoint import open_checkpoint
    from flyweight.errors import OptionError
    from flyweight.folder import check_place, new_folder
    from flyweight.progress import say
    from flyweight.vision.build import write_vision
    from flyweight.vision.eyes import is_eyes, join_eyes
    from flyweight.vision.language import check_language
    from flyweight.vision.placing import usual_count
    from flyweight.vision.sizes import SIZES

    if not 0 <= seed < 2**32:
        raise OptionError(f"--seed is {seed}: give a whole number from 0 on, below 2**32.")
    source = open_checkpoint(model)
    check_language(source.config, model)
    trained = is_eyes(Path(encoder))
    named = encoder in SIZES and not trained  # else a folder of that name is not read
    check_place(out, model, *([] if named else [encoder]))
    if trained:
        _refuse_sizes(
            encoder,
            {
                "--tiles": tiles is not None,
                "--image-size": image_size is not None,
                "--patch-size": patch_size is not None,
                "--cross-layers": cross_layers is not None,
                "--seed": seed != 0,
            },
        )
        with new_folder(out) as folder:
            join_eyes(source, Path(encoder), folder)
        return Path(out)
    layers = source.config.num_hidden_layers
    count = usual_count(layers) if cross_layers is None else cross_layers
    if not 1 <= count <= layers:
        raise OptionError(f"--cross-layers is {count}: give 1 to {layers}, the language layers.")
    eyes = _encoder(encoder, TILES if tiles is None else tiles, image_size, patch_size)
    with new_folder(out) as folder:
        built = write_vision(source, eyes, count, folder, seed)
    say(
        f"{out}: {built.language:,} parameters of the language model as before, {built.eyes:,} new "
        f"ones, {count} cross-attention layers at {built.crossing}"
    )
    return Path(out)


def _refuse_sizes(eyes: str, given: dict[str, bool]) -> None:
    """OptionError for options that eyes which were trained leave nothing to say."""
    from flyweight.errors import OptionError

    told = [option for option, is_given in given.items() if is_given]
    if told:
        raise OptionError(
            f"{' and '.join(told)}: for new eyes, and those in {eyes} are trained. Leave out such "
            "options."
        )


def _encoder(name: str, tiles: int, image: int | None, patch: int | None) -> Learned:
    """The encoder that an option names."""
    from flyweight.errors import OptionError
    from flyweight.vision.learned import HALF, Learned, read_encoder
    from flyweight.vision.sizes import SIZES

    if name in SIZES:
        return Learned(SIZES[name].config(tiles, image, patch), {}, HALF, HALF)
    if image is not None or patch is not None:
        raise OptionError(
            f"--image-size and --patch-size are for encoders that have learned nothing: {name} has "
            "its own. Leave them out."
        )
    return read_encoder(name, tiles)


__all__ = ["add_vision"]
