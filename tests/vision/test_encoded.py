"""Pictures that an encoder has seen once stand for their pixels, and leave it as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from flyweight.distill.trainer import collate
from flyweight.tasks.read import read_task
from flyweight.vision.encoded import Encoded
from flyweight.vision.mllama import load
from flyweight.vision.objective import AboutPictures, only_eyes, open_gates
from flyweight.vision.rows import pictures_of, rows_of, shelve
from flyweight.vision.train import train_vision
from flyweight.vision.vision_folder import open_vision


def test_what_was_seen_gives_the_losses_and_gradients_of_the_pixels(
    blind: Path, lessons: Path, tmp_path: Path
) -> None:
    opened = open_vision(blind)
    model = opened.model
    items = read_task(lessons, pictures=True).train
    names = pictures_of(items, lessons)
    shelf = shelve(tmp_path / "pictures.u8", opened.cutter, names, lessons)
    seen = Encoded.fill(tmp_path / "pictures.bf16", model, shelf)
    batch = collate(rows_of(items, names, opened, lessons)[:6])
    open_gates(model)
    generator = torch.Generator().manual_seed(0)
    for place in model.config.text_config.cross_attention_layers:
        layer = model.model.language_model.layers[place]
        for weight in (layer.cross_attn.o_proj.weight, layer.mlp.down_proj.weight):
            torch.nn.init.normal_(weight, std=0.05, generator=generator)
    only_eyes(model, freeze_encoder=True)
    told = []
    for pictures in (shelf, seen):
        model.zero_grad()
        loss = AboutPictures(model, pictures)(model, batch)
        loss.backward()
        told.append((loss.detach(), model.model.multi_modal_projector.weight.grad.clone()))
    (loss, gradient), (same, alike) = told
    assert float(same) == pytest.approx(float(loss), rel=2e-3)  # kept in bfloat16
    assert float((gradient - alike).norm() / gradient.norm()) < 0.03
    assert float(gradient.norm()) > 0


def test_a_frozen_encoder_stays_while_the_adapter_learns(
    blind: Path, lessons: Path, tmp_path: Path
) -> None:
    out = train_vision(
        blind, tmp_path / "out", data=lessons, steps=3, batch_size=6, freeze_encoder=True
    )
    before, after = (dict(load(folder).named_parameters()) for folder in (blind, out))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if "vision_model" in name]
    assert "model.multi_modal_projector.weight" in changed
    assert json.loads((out / "vision.json").read_text())
