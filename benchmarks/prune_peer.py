"""Torch-Pruning as in its examples/LLMs/prune_llm.py, for cut_quality.py; runs in an environment of
its own, told what to do by a line of JSON, and answers with one.

Against the example: importance may be Taylor's, hidden and MLP channels have ratios of their own,
and heads may stay whole. Grouped keys and values whose groups hold two query heads make it loop
without end (1.6.1); where heads are to go, each query head first gets keys and values of its own,
which changes nothing in what the model says.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

BATCH = 16


def ungroup(model: Any) -> None:
    """Keys and values for each query head."""
    config = model.config
    each = config.num_attention_heads // config.num_key_value_heads
    for block in model.model.layers:
        attention = block.self_attn
        for projection in (attention.k_proj, attention.v_proj):
            by_head = projection.weight.data.view(-1, attention.head_dim, projection.in_features)
            repeated = by_head.repeat_interleave(each, 0).flatten(0, 1)
            projection.weight.data, projection.out_features = repeated, len(repeated)
        attention.num_key_value_groups = 1
    config.num_key_value_heads = config.num_attention_heads


def backward(model: Any, rows: list[dict[str, list[Any]]]) -> None:
    """Gradients of the weighted loss over all rows."""
    rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    total = sum(sum(row["weights"][1:]) for row in rows)
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        longest = len(batch[-1]["input_ids"])
        ids, weights = (
            torch.tensor([row[name] + [0] * (longest - len(row[name])) for row in batch])
            for name in ("input_ids", "weights")
        )
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
        losses = F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
        ((losses * weights[:, 1:].flatten()).sum() / total).backward()


def prune(model: Any, told: dict[str, Any]) -> None:
    """Prune in place by the ratios that are told."""
    heads, ratios, ignored = {}, {}, [model.lm_head]
    for block in model.model.layers:
        attention, mlp = block.self_attn, block.mlp
        heads[attention.q_proj] = model.config.num_attention_heads
        heads[attention.k_proj] = heads[attention.v_proj] = model.config.num_key_value_heads
        ratios[mlp.gate_proj] = ratios[mlp.up_proj] = told["mlp"]
        ratios[mlp.down_proj] = ratios[attention.o_proj] = told["hidden"]
        if not told["heads"]:
            ignored += [attention.q_proj, attention.k_proj, attention.v_proj]
    kinds = torch_pruning.importance
    taylor = told["importance"] == "taylor"
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example_inputs={"input_ids": torch.tensor([[1, 2, 3]]), "use_cache": False},
        importance=kinds.GroupTaylorImportance() if taylor else kinds.GroupMagnitudeImportance(p=2),
        global_pruning=False,
        output_transform=lambda output: output.logits,
        pruning_ratio=told["hidden"],
        pruning_ratio_dict=ratios,
        ignored_layers=ignored,
        num_heads=heads if told["heads"] else {},
        prune_num_heads=bool(told["heads"]),
        prune_head_dims=False,
        head_pruning_ratio=told["heads"],
        round_to=4,
    )
    for group in pruner.step(interactive=True):
        group.prune()


def main() -> None:
    told = json.loads(sys.stdin.readline())
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(told["folder"], dtype=torch.float32).eval()
    if told["heads"]:
        ungroup(model)
    if told["importance"] == "taylor":
        backward(model, told["rows"])
    prune(model, told)
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    state = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    state.pop("lm_head.weight", None)  # it has long been tied again
    save_file(state, told["out"])
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    sizes = {
        "hidden": model.lm_head.in_features,
        "mlp": mlp.gate_proj.out_features,
        "heads": attention.q_proj.out_features // attention.head_dim,
        "kv_groups": attention.k_proj.out_features // attention.head_dim,
    }
    sys.stdout.write("\n" + json.dumps(sizes) + "\n")


if __name__ == "__main__":
    main()
