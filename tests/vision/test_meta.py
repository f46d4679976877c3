"""Mllama against Meta's reference code, on tiny random weights in fp32.

Differences are the largest absolute ones, in units of the spread of what Meta's code gives. The
one shim is torchvision, as `meta_mllama.py` says. Where plain transformers differs from Meta's code
a test says so too: when it fails, transformers has mended it, and the correction can go.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import MllamaForConditionalGeneration
from transformers.models.mllama import image_processing_pil_mllama as theirs
from transformers.models.mllama.configuration_mllama import MllamaTextConfig
from transformers.models.mllama.modeling_mllama import (
    MllamaRotaryEmbedding,
    _prepare_cross_attention_mask,
)

from flyweight.errors import OptionError
from flyweight.vision.mllama import Mllama
from flyweight.vision.placing import cross_layers, language_layers, usual_count

pytest.importorskip("llama_models", reason="needs `pip install llama-models fairscale`")
pytest.importorskip("fairscale", reason="needs `pip install llama-models fairscale`")

from meta_mllama import (
    HEADS,
    LLAMA3_ROPE,
    RATIOS,
    SIDE,
    TILES,
    Batch,
    alone,
    build_meta,
    config_of,
    crossing,
    difference,
    for_transformers,
    make_batch,
    meta_logits,
    read,
    reference,
    see,
    translated,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*all_gather_tensor:FutureWarning")

SAME, OTHER = 1e-4, 1e-3
NEW = 5  # tokens to generate
PICTURES = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
MENDED = "transformers is now as Meta's code here: {} in flyweight.vision.mllama can go"

# name -> where each row's image tokens stand, and how its pictures are cut into (rows, columns)
BATCHES: dict[str, tuple[list[list[int]], list[list[tuple[int, int]]]]] = {
    "image first": ([[0], [0]], [[(1, 1)], [(2, 2)]]),
    "tokens before": ([[at] for at in range(8)], [[ratio] for ratio in RATIOS]),
    "several images": ([[1, 6], [3, 8]], [[(1, 2), (3, 1)], [(2, 2), (1, 4)]]),
    "images side by side": ([[1, 2], [3, 4]], [[(1, 2), (3, 1)], [(2, 2), (1, 4)]]),
    "mixed": ([[3, 5], [4], []], [[(1, 3), (2, 1)], [(1, 1)], []]),
    "one and none": ([[3], [], [0]], [[(2, 2)], [], [(1, 1)]]),
    "text only": ([[], []], [[], []]),
}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def group() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture(scope="module")
def meta(group: None) -> Any:
    return build_meta()


def as_transformers(kind: Any, meta: Any, attention: str = "sdpa") -> Any:
    """The model of that class with Meta's weights."""
    model = kind._from_config(config_of(meta), attn_implementation=attention).eval()
    model.load_state_dict(translated(meta), strict=True)
    return model


@pytest.fixture(scope="module")
def ours(meta: Any) -> Any:
    return as_transformers(Mllama, meta)


@pytest.fixture(scope="module")
def plain(meta: Any) -> Any:
    return as_transformers(MllamaForConditionalGeneration, meta)


@pytest.fixture(scope="module")
def plain_but_taps(meta: Any) -> Any:
    """Plain transformers told of layers one earlier, which is where Meta's code takes features."""
    model = as_transformers(MllamaForConditionalGeneration, meta)
    model.model.vision_model.intermediate_layers_indices = [
        layer - 1 for layer in meta.vision_model.vision_encoder.return_intermediate
    ]
    return model


def logits(model: Any, batch: Batch) -> Tensor:
    """What transformers' model says [B, T, VOCABULARY]."""
    return model(**for_transformers(batch), use_cache=False).logits


def encoded(model: Any, batch: Batch) -> Tensor:
    """What its encoder makes of the pictures [B, images, TILES, patches + 1, features]."""
    given = for_transformers(batch)
    return model.model.vision_model(**{name: given[name] for name in PICTURES}).last_hidden_state


def shown(batch: Batch) -> tuple[Tensor, Tensor]:
    """Meta's stacked images and ratios of a batch that has one picture a row."""
    images = torch.zeros(len(batch.pictures), 1, TILES, 3, SIDE, SIDE)
    for image, [picture] in zip(images, batch.pictures, strict=True):
        image[0, : len(picture.tiles)] = picture.tiles
    return images, torch.tensor([[picture.ratio] for [picture] in batch.pictures])


def test_every_weight_of_either_side_has_its_name_on_the_other(meta: Any, plain: Any) -> None:
    names = translated(meta)  # loaded strictly already
    assert names.keys() == plain.state_dict().keys() == dict(plain.named_parameters()).keys()
    assert meta.state_dict().keys() == dict(meta.named_parameters()).keys()
    assert len(names) == len(meta.state_dict()) - 1  # two embeddings became one
    assert config_of(meta).vision_config.norm_eps == meta.vision_model.vision_encoder.ln_pre.eps


def test_every_weight_reaches_the_logits(ours: Any) -> None:
    with torch.enable_grad():
        logits(ours, make_batch(*BATCHES["tokens before"])).square().sum().backward()
    idle = [
        name
        for name, weight in ours.named_parameters()
        if weight.grad is None or not weight.grad.abs().max() > 1e-6
    ]
    ours.zero_grad()
    assert idle == []


def test_the_encoder_and_its_projection(meta: Any, ours: Any) -> None:
    batch = make_batch(*BATCHES["tokens before"])  # all aspect ratios
    eyes = meta.vision_model
    assert difference(encoded(ours, batch), eyes.vision_encoder(*shown(batch))) < SAME
    states = ours.model.multi_modal_projector(encoded(ours, batch))
    assert difference(states, eyes(*shown(batch))) < SAME


def test_keys_and_values_of_the_image(meta: Any, ours: Any) -> None:
    batch = make_batch(*BATCHES["tokens before"])
    cached = ours(**for_transformers(batch), use_cache=True).past_key_values
    for layer, cache in zip(crossing(meta), see(meta, batch).caches, strict=True):
        kept = cached.layers[layer]
        both = torch.stack([kept.keys, kept.values]).repeat_interleave(2, dim=2)  # heads of a group
        assert both.shape[2] == HEADS
        assert difference(both, cache) < SAME


@pytest.mark.parametrize("name", ["tokens before", "mixed"])
def test_a_cross_attention_block(meta: Any, ours: Any, name: str) -> None:
    batch = make_batch(*BATCHES[name])
    given, seen = for_transformers(batch), see(meta, batch)
    masks, rows = _prepare_cross_attention_mask(
        given["cross_attention_mask"],
        seen.caches.shape[-2] // (TILES * max_images(batch)),
        torch.float,
    )
    assert torch.equal(masks, seen.masks)
    assert torch.equal(rows, seen.rows)
    states = ours.model.multi_modal_projector(encoded(ours, batch)).flatten(1, 3)
    chance = torch.Generator().manual_seed(0)
    hidden = torch.randn(*batch.tokens.shape, states.shape[-1], generator=chance)
    for layer, block, cache in zip(
        crossing(meta), meta.text_model.cross_attention_layers, seen.caches, strict=True
    ):
        out = ours.model.language_model.layers[layer](
            hidden,
            cross_attention_states=states,
            cross_attention_mask=masks,
            attention_mask=None,
            full_text_row_masked_out_mask=rows,
        )
        expected = block(hidden, seen.masks, seen.rows, cache)
        assert difference(out, expected) < SAME
        unseen = ~rows.bool()[:, 0, :, 0]
        assert unseen.any()
        assert torch.equal(out[unseen], hidden[unseen])


def max_images(batch: Batch) -> int:
    return max(len(row) for row in batch.pictures)


@pytest.mark.parametrize("name", BATCHES)
def test_logits(meta: Any, ours: Any, name: str) -> None:
    batch = make_batch(*BATCHES[name])
    assert difference(logits(ours, batch), meta_logits(meta, batch)) < SAME


def test_logits_by_the_other_attention(meta: Any) -> None:
    eager = as_transformers(Mllama, meta, "eager")
    for name in ("tokens before", "mixed", "text only"):
        batch = make_batch(*BATCHES[name])
        assert difference(logits(eager, batch), meta_logits(meta, batch)) < SAME


@pytest.mark.parametrize("name", BATCHES)
def test_token_by_token_with_the_cache(meta: Any, ours: Any, name: str) -> None:
    batch, first = make_batch(*BATCHES[name]), 9
    seen, length = see(meta, batch), batch.tokens.shape[1]
    steps = [torch.arange(first), *torch.arange(first, length)[:, None]]
    expected = torch.cat([read(meta, batch, seen, step) for step in steps], dim=1)
    assert difference(expected, meta_logits(meta, batch)) < SAME  # or the reference is misused
    assert difference(cached(ours, batch, first), expected) < SAME


def cached(model: Any, batch: Batch, first: int, counted: bool = False) -> Tensor:
    """Logits as when generating: the first tokens at once, then one by one, with the cache.

    Positions are given where `counted`, otherwise the model counts them itself.
    """
    given, length = for_transformers(batch), batch.tokens.shape[1]
    once = {name: given.pop(name) for name in PICTURES if name in given}
    said, past = [], None
    for at in [slice(0, first), *(slice(place, place + 1) for place in range(first, length))]:
        part = {name: values[:, at] for name, values in given.items()}
        if counted:
            part["position_ids"] = torch.arange(length)[None, at]
        out = model(**part, **once, past_key_values=past, use_cache=True)
        said, past, once = [*said, out.logits], out.past_key_values, {}
    return torch.cat(said, dim=1)


@pytest.mark.parametrize("name", ["image first", "tokens before", "one and none", "text only"])
def test_generating(meta: Any, ours: Any, name: str) -> None:
    batch = make_batch(*BATCHES[name])
    tokens, expected = generated(meta, batch)
    made = generate(ours, batch)
    assert torch.equal(made.sequences, tokens)
    assert difference(torch.stack(made.logits, dim=1), expected) < SAME


def generate(model: Any, batch: Batch) -> Any:
    """transformers' greedy answer of NEW tokens, with its logits."""
    return model.generate(
        **for_transformers(batch),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )


def generated(meta: Any, batch: Batch, seen_to_the_end: bool = False) -> tuple[Tensor, Tensor]:
    """Meta's loop: prompts with NEW greedy tokens after them, and their logits.

    Its mask is made of the prompt; `seen_to_the_end` makes it of what is generated, too.
    """
    start, rows = batch.tokens.shape[1], len(batch.tokens)
    whole = batch._replace(tokens=torch.cat([batch.tokens, torch.zeros(rows, NEW).long()], dim=1))
    seen = see(meta, whole if seen_to_the_end else batch, start + NEW)
    said = [read(meta, whole, seen, torch.arange(start))[:, -1]]
    for at in range(start, start + NEW):
        whole.tokens[:, at] = said[-1].argmax(-1)
        said.append(read(meta, whole, seen, torch.tensor([at]))[:, -1])
    return whole.tokens, torch.stack(said[:NEW], dim=1)


@pytest.mark.parametrize("name", ["several images", "images side by side"])
def test_generating_after_several_images(meta: Any, ours: Any, name: str) -> None:
    """What is generated goes on seeing the last image, as Meta's comment has it.

    Meta's own loop ends the last image's mask with the prompt, so that it shows them none.
    """
    batch = make_batch(*BATCHES[name])
    made = torch.stack(generate(ours, batch).logits, dim=1)
    assert difference(made, generated(meta, batch, seen_to_the_end=True)[1]) < SAME
    assert difference(made, generated(meta, batch)[1]) > OTHER


def test_prompts_of_different_lengths(meta: Any, ours: Any) -> None:
    """Padded on the left for transformers, each alone for Meta, whose code has no padding there."""
    long = make_batch([[4]], [[(2, 1)]])
    short = make_batch([[2]], [[(1, 3)]], length=9, seed=1)
    missing = long.tokens.shape[1] - short.tokens.shape[1]
    padded = torch.nn.functional.pad(short.tokens, (missing, 0), value=2)
    both = Batch(torch.cat([long.tokens, padded]), long.pictures + short.pictures)
    mask = torch.ones_like(both.tokens)
    mask[1, :missing] = 0
    said = ours(**for_transformers(both), attention_mask=mask, use_cache=False).logits
    assert difference(said[:1], meta_logits(meta, long)) < SAME
    assert difference(said[1:, missing:], meta_logits(meta, short)) < SAME


def test_plain_transformers_takes_features_after_the_layers(
    meta: Any, plain: Any, plain_but_taps: Any
) -> None:
    batch = make_batch(*BATCHES["tokens before"])
    expected = meta.vision_model.vision_encoder(*shown(batch))
    assert difference(encoded(plain, batch), expected) > OTHER, MENDED.format("_Encoder")
    assert difference(encoded(plain_but_taps, batch), expected) < SAME  # and that is all of it


@pytest.mark.parametrize("name", ["tokens before", "mixed", "one and none"])
def test_plain_transformers_shows_tokens_an_image_that_is_not_theirs(
    meta: Any, plain_but_taps: Any, name: str
) -> None:
    batch = make_batch(*BATCHES[name])
    ours, expected = logits(plain_but_taps, batch), meta_logits(meta, batch)
    blind = ~see(meta, batch).rows.bool()[:, 0, :, 0]  # before the first image, or without one
    assert difference(ours[blind], expected[blind]) > OTHER, MENDED.format("_CrossAttention")


def test_plain_transformers_agrees_where_neither_matters(meta: Any, plain_but_taps: Any) -> None:
    for name in ("image first", "text only"):
        batch = make_batch(*BATCHES[name])
        assert difference(logits(plain_but_taps, batch), meta_logits(meta, batch)) < SAME


def test_plain_transformers_needs_the_mask(plain: Any, ours: Any) -> None:
    """Without a cross-attention mask, sdpa lets token t see the first t + 1 patches only."""
    given = for_transformers(make_batch(*BATCHES["image first"]))
    whole = given | {"cross_attention_mask": torch.ones_like(given["cross_attention_mask"])}
    del given["cross_attention_mask"]
    apart = difference(plain(**given).logits, plain(**whole).logits)
    assert apart > OTHER, "transformers now takes no mask for one that shows all"
    assert torch.equal(ours(**given).logits, ours(**whole).logits)


def test_plain_transformers_needs_positions_where_the_first_layer_sees(group: None) -> None:
    """It counts the tokens before by the cache of layer 0, which there holds the image's."""
    meta = build_meta(layers=3, cross=2)
    assert crossing(meta) == [0, 3]
    model = as_transformers(Mllama, meta)
    batch = make_batch(*BATCHES["tokens before"])
    expected = meta_logits(meta, batch)
    assert difference(logits(model, batch), expected) < SAME
    assert difference(cached(model, batch, 9, counted=True), expected) < SAME
    plain = as_transformers(MllamaForConditionalGeneration, meta)
    apart = difference(cached(plain, batch, 9), cached(plain, batch, 9, counted=True))
    assert apart > OTHER, "transformers now counts positions itself, whatever layer 0 is"


def test_where_cross_attention_stands() -> None:
    schedule = reference().CrossAttentionTransformerText._init_fusion_schedule
    for layers in range(1, 81):
        for count in range(1, layers + 1):
            metas = schedule(SimpleNamespace(n_llama_layers=layers), count)
            if len(metas) < count:  # Meta's rule then gives fewer
                with pytest.raises(OptionError, match=f"give {len(metas)}, or {layers}"):
                    cross_layers(layers, count)
                continue
            placed = cross_layers(layers, count)
            assert placed == [layer + earlier for earlier, layer in enumerate(metas)]
            own = language_layers(layers + count, placed)
            assert [own.index(place + 1) for place in placed] == metas  # each right before its own
    assert cross_layers(32, 8) == [3, 8, 13, 18, 23, 28, 33, 38]
    assert cross_layers(16, 4) == [3, 8, 13, 18]
    for count in (0, 9):
        with pytest.raises(OptionError, match="give 1 to 8"):
            cross_layers(8, count)


def test_the_usual_number_of_cross_attention_layers() -> None:
    assert [usual_count(layers) for layers in (32, 80, 16, 28, 2)] == [8, 20, 4, 7, 1]
    for layers in range(1, 200):
        places = cross_layers(layers, usual_count(layers))
        assert len(places) == usual_count(layers)
        assert places[0] > 0 or layers == 1  # transformers counts a cache's tokens by layer 0


def test_the_turns_of_the_official_models() -> None:
    """Frequencies of Llama 3.2 Vision's positions: heads of 128, theta 500,000, scaled by 8."""
    config = MllamaTextConfig(rope_parameters=LLAMA3_ROPE | {"rope_theta": 500_000.0})
    turns = MllamaRotaryEmbedding(config).inv_freq
    expected = reference().precompute_freqs_cis(128, 2, 500_000, use_scaled=True)[1].angle()
    torch.testing.assert_close(turns, expected, rtol=1e-6, atol=0)


@pytest.fixture(scope="module")
def transform() -> Any:
    """Meta's, for tiles of SIDE."""
    reference()
    from llama_models.llama3.multimodal import image_transform

    return image_transform.VariableSizeImageTransform(size=SIDE)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def prepared(transform: Any, *images: Image.Image) -> dict[str, Tensor]:
    """What transformers' processor makes of pictures, one a row, with Meta's mean and spread."""
    processor = theirs.MllamaImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        max_image_tiles=TILES,
        image_mean=transform._mean,
        image_std=transform._std,
    )
    return processor([[image] for image in images], return_tensors="pt")


SIZES = [
    *[(28, 56), (28, 80), (28, 28), (1, 1), (20, 15), (29, 28), (56, 56), (57, 57), (150, 100)],
    *[(28, 250), (500, 10), (10, 500), (3, 300), (84, 28), (100, 27), (56, 85), (112, 28)],
    (300, 310),
]


def test_pictures_are_cut_as_by_metas_code(transform: Any) -> None:
    images = [noise(*size) for size in SIZES]
    given = prepared(transform, *images)
    ratios = set()
    for row, image in enumerate(images):
        tiles, ratio = transform(image, TILES)
        ratios.add(ratio)
        assert RATIOS[given["aspect_ratio_ids"][row, 0] - 1] == ratio
        assert given["aspect_ratio_mask"][row, 0].tolist() == [
            int(tile < len(tiles)) for tile in range(TILES)
        ]
        torch.testing.assert_close(given["pixel_values"][row, 0, : len(tiles)], tiles)
        assert given["pixel_values"][row, 0, len(tiles) :].eq(0).all()
    assert ratios == set(RATIOS)


def test_the_canvas_and_the_size_on_it(transform: Any) -> None:
    canvases = torch.tensor(transform.find_supported_resolutions(TILES, SIDE))
    sizes = np.random.default_rng(0).integers(1, 300, (2000, 2)).tolist()
    for width, height in [*sizes, *SIZES]:
        wide, high = transform.get_best_fit((width, height), canvases)
        canvas = theirs.get_optimal_tiled_canvas(height, width, TILES, SIDE)
        assert canvas == (high, wide)
        most = (
            min(max(width, SIDE), wide),
            min(max(height, SIDE), high),
        )  # resize_without_distortion
        fitted = transform.get_max_res_without_distortion((width, height), most)
        ours = theirs.get_image_size_fit_to_canvas(height, width, *canvas, SIDE)
        assert ours == tuple(max(side, 1) for side in fitted[::-1])  # Meta's fails on a side of 0


def test_from_pictures_to_logits(
    meta: Any, ours: Any, transform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta, "image_transform", partial(transform, max_num_chunks=TILES))
    images = [noise(*size) for size in ((150, 100), (28, 250), (20, 15))]
    batch = make_batch([[0], [3], [5]], [[RATIOS[-3]], [RATIOS[3]], [RATIOS[0]]])
    given = for_transformers(batch) | dict(prepared(transform, *images))
    expected = meta_logits(meta, batch._replace(pictures=[[image] for image in images]))
    given["cross_attention_mask"] = (
        given["cross_attention_mask"].amax(-1, keepdim=True) * given["aspect_ratio_mask"][:, None]
    )
    assert difference(ours(**given, use_cache=False).logits, expected) < SAME
