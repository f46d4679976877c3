"""One arm of gpu_step.py, which starts it: builds the models, takes steps, prints JSON lines."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from gpu_step import ARMS, CASES, Case, Sizes

RATE, DECAY, BETAS, CLIP = 1e-4, 0.01, (0.9, 0.95), 1.0
WARM, LEAST = 3, 3  # steps that are left out; that are timed at the least
POOL = 8  # batches of rows, which come again
SCHEDULE = 1000  # steps over which the rate decays; none takes so many
SPREAD = 2.0  # deviation of the logits


# ---------------------------------------------------------------- what all arms share


def build(sizes: Sizes, vocabulary: int, device: str, dtype: Any, seed: int) -> Any:
    """A Llama drawn at random, whose logits have a deviation of about SPREAD."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=sizes.hidden, intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.groups, head_dim=sizes.head_dim, max_position_embeddings=131_072,
        tie_word_embeddings=sizes.tied, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(usual)
    lot = torch.Generator(device).manual_seed(seed)
    ends = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:  # the others are norms, and 1
                spread = SPREAD if weight in ends else 1.0
                weight.normal_(0, spread / math.sqrt(weight.shape[1]), generator=lot)
    return model


def pool(case: Case, rows: int, length: int) -> tuple[Any, list[int]]:
    """Rows of random tokens int64 [POOL x rows, length], and the order in which they are taken."""
    import torch

    from flyweight.distill.order import batch_order

    lot = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, case.vocabulary, (POOL * rows, length), generator=lot)
    return tokens, batch_order([length] * len(tokens), SCHEDULE, rows, 0)


def say(**what: Any) -> None:
    """A line of JSON for the parent."""
    print(json.dumps(what), flush=True)


class Clock:
    """Times steps, keeps losses, and ends the process when there are enough."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.cuda = options, options.device == "cuda"
        self.losses: list[Any] = []
        self.times: list[float] = []
        self.marks: list[dict[str, Any]] = []  # of each step: when a part of it began

    def tick(self) -> None:
        """At the start of each step."""
        import torch

        if self.cuda:
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        done = len(self.times) - 1 - WARM
        if done == 0:
            if self.cuda:
                torch.cuda.reset_peak_memory_stats()
            say(kind="first", losses=[float(each) for each in self.losses])
        spent = self.times[-1] - self.times[min(WARM, len(self.times) - 1)]
        if done >= LEAST and (spent >= self.options.seconds or done >= self.options.steps):
            self.finish()
        self.marks.append({})
        self.mark("teacher")

    def mark(self, part: str) -> None:
        """A part of the step begins here, in the device's own time."""
        import torch

        if self.options.split:
            now: Any = time.perf_counter()
            if self.cuda:
                now = torch.cuda.Event(enable_timing=True)
                now.record()
            self.marks[-1][part] = now, torch.cuda.memory_allocated() if self.cuda else 0

    def parts(self) -> dict[str, Any]:
        """Median milliseconds of each part of a step, and bytes that were held where it began."""
        found: dict[str, list[float]] = {}
        held: dict[str, float] = {}
        steps = self.marks[WARM:]
        for step, after in itertools.pairwise(steps):
            ends = [*step.values(), after["teacher"]]
            for name, (start, bytes_), (end, _) in zip(step, ends, ends[1:], strict=False):
                took = start.elapsed_time(end) if self.cuda else 1e3 * (end - start)
                found.setdefault(name, []).append(took)
                held[name] = bytes_
        return {"ms": {name: statistics.median(each) for name, each in found.items()}, "held": held}

    def finish(self) -> None:
        import torch

        ends = self.times[WARM:]
        steps = [after - before for before, after in itertools.pairwise(ends)]
        peak = torch.cuda.max_memory_allocated() if self.cuda else None
        more = {"split": self.parts()} if len(self.marks[-1]) > 1 else {}
        say(kind="result", steps=steps, bytes=peak, losses=[float(x) for x in self.losses], **more)
        os._exit(0)  # a trainer would first carry the models to the CPU: half a minute


# ---------------------------------------------------------------- the arms, each in a process

Arm = Callable[[Case, Any, Any, Any, list[int], Clock], None]


def ours(case: Case, student: Any, teacher: Any, tokens: Any, order: list[int], clock: Clock):
    """Flyweight's trainer, which finds the same order by itself."""
    import numpy as np
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    from flyweight.distill.divergences import Blend
    from flyweight.distill.live import LiveDistillation
    from flyweight.distill.losses import MULTIPLE, wanted_hidden
    from flyweight.distill.trainer import Schedule, train

    count, length = len(tokens) // POOL, tokens.shape[1]
    if length % MULTIPLE:  # rows are filled up to one, and steps are told apart by their tokens
        return say(kind="failed", why=f"rows of {length} tokens: give a multiple of {MULTIPLE}")
    weights = np.ones(length, dtype=np.float32)
    rows = [{"input_ids": each, "weights": weights} for each in tokens.int().numpy()]

    def hidden(model: Any, batch: Any) -> Any:
        if model is not teacher:
            clock.mark("student")
        said = wanted_hidden(model, batch)
        if model is not teacher:
            clock.mark("loss")
        return said

    judge = LiveDistillation(teacher, Blend(), hidden=hidden)
    seen = 0

    class Timed:
        teacher = judge.teacher

        def __call__(self, model: Any, batch: Any) -> Any:
            nonlocal seen  # a step may be taken in parts
            if seen % (count * length) == 0:
                clock.tick()
                clock.losses.append(0.0)
            seen += batch["input_ids"].numel()
            clock.options.split &= "share" not in batch
            loss = judge(model, batch)
            clock.losses[-1] = clock.losses[-1] + loss.detach()
            clock.mark("backward")
            return loss

    register_optimizer_step_pre_hook(lambda *_: clock.mark("optimizer"))
    schedule = Schedule(SCHEDULE, count, RATE, warmup=0, weight_decay=DECAY, seed=0)
    train(student, rows, Timed(), schedule, "")
    return None


def plain(case: Case, student: Any, teacher: Any, tokens: Any, order: list[int], clock: Clock):
    """Full logits and torch's own operations."""
    import torch
    import torch.nn.functional as F

    student.train()
    teacher.eval()
    optimizer = torch.optim.AdamW(
        student.parameters(), RATE, betas=BETAS, weight_decay=DECAY, fused=True
    )
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / SCHEDULE)
    device, count = clock.options.device, len(tokens) // POOL
    for start in range(0, len(order), count):
        clock.tick()
        ids = tokens[order[start : start + count]].to(device, non_blocking=True)
        with torch.autocast(device, torch.bfloat16):
            with torch.no_grad():
                theirs = teacher(ids, use_cache=False).logits[:, :-1]
            said = student(ids, use_cache=False).logits[:, :-1]
        log_p = theirs.flatten(0, 1).float().log_softmax(-1)
        log_q = said.flatten(0, 1).float().log_softmax(-1)
        loss = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        clock.losses.append(loss.detach())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP)
        optimizer.step()
        decay.step()
        optimizer.zero_grad()


def trl(case: Case, student: Any, teacher: Any, tokens: Any, order: list[int], clock: Clock):
    """TRL's trainer on the same batches."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    class Timed(GKDTrainer):
        def training_step(self, *given: Any, **named: Any) -> Any:
            clock.tick()
            loss = super().training_step(*given, **named)
            clock.losses.append(loss.detach())
            return loss

    def collate(places: list[dict[str, int]]) -> dict[str, Any]:
        ids = tokens[[each["place"] for each in places]]
        labels = ids.clone()
        labels[:, 0] = -100  # nothing foretells it: it is not to be counted
        mask = torch.ones_like(ids)
        prompts = {"prompts": ids[:, :1], "prompt_attention_mask": mask[:, :1]}  # not looked at
        return {"input_ids": ids, "attention_mask": mask, "labels": labels} | prompts

    cuda = clock.options.device == "cuda"
    arguments = GKDConfig(
        output_dir=os.environ["TMPDIR"], max_steps=SCHEDULE, learning_rate=RATE, warmup_steps=0,
        per_device_train_batch_size=len(tokens) // POOL, adam_beta1=BETAS[0], adam_beta2=BETAS[1],
        weight_decay=DECAY, max_grad_norm=CLIP, lmbda=0.0, beta=0.0, temperature=1.0, bf16=True,
        use_cpu=not cuda, gradient_checkpointing=False, optim="adamw_torch_fused",
        lr_scheduler_type="linear", save_strategy="no", report_to="none", logging_steps=10_000,
        disable_tqdm=True, train_sampling_strategy="sequential", dataloader_pin_memory=cuda,
    )  # fmt: skip
    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<pad>": 2}, unk_token="<pad>"))
    trainer = Timed(
        model=student,
        teacher_model=teacher,
        args=arguments,
        data_collator=collate,
        train_dataset=Dataset.from_dict({"place": order}),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
        ),
    )
    trainer.train()


def product_speed(size: int, device: str, dtype: Any) -> float:
    """Operations a second of a product of two random square matrices, the median of ten."""
    import torch

    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    took = []
    for _ in range(15):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(took[5:])


def child(options: argparse.Namespace) -> None:
    """One arm's run; prints lines of JSON, the last of them the result or why there is none."""
    import torch
    import transformers

    arm, case = options.child, CASES[options.shape]
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if arm == "trl" and (find_spec("trl") is None or find_spec("datasets") is None):
        return say(kind="failed", why="TRL or datasets cannot be imported here")
    cuda = options.device == "cuda"
    if not cuda and options.shape == "llama":
        return say(kind="failed", why="no GPU here: --shape tiny runs without")
    if not cuda:
        torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if cuda else "CPU"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    peak = product_speed(case.product, options.device, torch.bfloat16)
    say(kind="device", name=name, versions=versions, product=case.product, peak=peak)
    rows, length = map(int, options.layout.split("x"))
    tokens, order = pool(case, rows, length)
    teacher = build(case.teacher, case.vocabulary, options.device, torch.bfloat16, 1)
    student = build(case.student, case.vocabulary, options.device, torch.float32, 2)
    arms: dict[str, Arm] = {"ours": ours, "plain": plain, "trl": trl}
    try:
        arms[arm](case, student, teacher.eval(), tokens, order, Clock(options))
    except torch.OutOfMemoryError as error:
        say(kind="failed", why=f"out of memory: {str(error).splitlines()[0]}")
    return None


def main() -> None:
    """Run the arm that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("child", choices=ARMS)
    parser.add_argument("--layout", required=True)
    parser.add_argument("--shape", choices=CASES, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--split", action="store_true")
    child(parser.parse_args())


if __name__ == "__main__":
    main()
