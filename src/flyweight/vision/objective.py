"""What a model with eyes is trained towards: the right answers about pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flyweight.distill.chunked import chunked_loss
from flyweight.distill.head import Head
from flyweight.distill.judges import Answers
from flyweight.distill.losses import Batch, before_wanted, wanted_tokens
from flyweight.vision.encoded import Encoded, projected
from flyweight.vision.language import is_language
from flyweight.vision.pixels import Shelf

OPEN = 1.0  # of a gate, before its tanh


class AboutPictures:
    """Cross-entropy in nats a token on answers about pictures, of a shelf or seen already.

    A batch has, besides what losses.py says, `picture` int64 [B]: one for each row, whose documents
    all ask of it. The rows of the embedding beyond the vocabulary are learned as well, in `learned`
    while the training goes on.
    """

    def __init__(self, model: Any, shelf: Shelf | Encoded) -> None:
        self.shelf, self.image_id = shelf, model.config.image_token_index
        self.vocabulary = model.config.text_config.vocab_size
        embedding = model.get_input_embeddings().weight
        self.learned: nn.Module | None = None
        if self.image_id >= self.vocabulary:  # else the image token's row is the language model's
            self.learned = nn.Embedding.from_pretrained(
                embedding[self.vocabulary :].detach().clone(), freeze=False
            )
        self.tokens_besides = tokens_of_picture(model) if isinstance(shelf, Shelf) else 0

    def __call__(self, model: Any, batch: Batch) -> Tensor:
        targets, weights = wanted_tokens(batch)
        hidden = before_wanted(self._hidden(model, batch), batch)
        head = Head(model.get_output_embeddings().weight)
        return chunked_loss(hidden, head, weights, Answers(targets))

    def _hidden(self, model: Any, batch: Batch) -> Tensor:
        """Final hidden states [B, T, D]."""
        ids, places = batch["input_ids"], batch["position_ids"]
        given = looking(self.shelf.inputs(batch["picture"]), ids, places, self.image_id)
        if "cross_attention_states" in given:
            states = projected(model, given["cross_attention_states"])
            given = given | {"cross_attention_states": states}
        return model.model(inputs_embeds=self._embedded(model, ids), **given).last_hidden_state

    def _embedded(self, model: Any, ids: Tensor) -> Tensor:
        embedded = model.get_input_embeddings()(ids)
        if self.learned is None:
            return embedded
        new = (ids - self.vocabulary).clamp(min=0)
        return torch.where((ids >= self.vocabulary)[..., None], self.learned(new), embedded)

    def keep_learned(self, model: Any) -> None:
        """Put the learned rows where the model has them."""
        if self.learned is not None:
            with torch.no_grad():
                rows = model.get_input_embeddings().weight[self.vocabulary :]
                rows.copy_(self.learned.weight)  # type: ignore[arg-type]


def looking(
    given: dict[str, Tensor], ids: Tensor, positions: Tensor, image_id: int
) -> dict[str, Any]:
    """What a model is given besides tokens [B, T]: a picture for each row, and who sees it.

    `given` are the pictures, such as `Shelf.inputs` gives them.
    """
    tiles = given["aspect_ratio_mask"]  # [B, 1, tiles]
    sees = seeing(ids, positions, image_id)[:, :, None, None]
    mask = sees.to(tiles.dtype) * tiles[:, None]  # [B, T, 1, tiles]
    return given | {"position_ids": positions, "cross_attention_mask": mask, "use_cache": False}


def tokens_of_picture(model: Any) -> int:
    """What an encoder works on for each picture."""
    return model.config.vision_config.max_num_tiles * model.model.vision_model.num_patches


def seeing(ids: Tensor, positions: Tensor, image_id: int) -> Tensor:
    """bool [B, T]: the tokens that see the picture, from its own on to the document's end.

    Documents begin where `positions` [B, T] are 0.
    """
    images = (ids == image_id).long().cumsum(1)
    begins = positions == 0
    before = torch.where(begins, images - (ids == image_id).long(), 0)  # of earlier documents
    return images > before.cummax(1).values


def open_gates(model: Any) -> None:
    """Open gates that are still shut, with nothing behind them yet: what is said stays the same.

    A gate moves by a learning rate a step, as every weight does, and alone holds back all that
    stands behind it; the last products, which begin at zero instead, have a thousand weights to
    let a picture through.
    """
    for place in model.config.text_config.cross_attention_layers:
        layer = model.model.language_model.layers[place]
        for gate, last in (
            (layer.cross_attn_attn_gate, layer.cross_attn.o_proj.weight),
            (layer.cross_attn_mlp_gate, layer.mlp.down_proj.weight),
        ):
            if not gate.any():
                with torch.no_grad():
                    gate.fill_(OPEN)
                    last.zero_()


def only_eyes(model: Any, *, freeze_encoder: bool = False) -> None:
    """Let the eyes be trained, or the adapter alone, and nothing of the language model."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not is_language(name, model.config))
    if freeze_encoder:
        model.model.vision_model.requires_grad_(False)


__all__ = ["AboutPictures", "looking", "only_eyes", "open_gates", "seeing", "tokens_of_picture"]
