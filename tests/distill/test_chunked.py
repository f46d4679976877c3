"""The chunked loss against full logits in double precision: every judge, family, chunk and mask."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import zoo
from flyweight.distill import chunked
from flyweight.distill.alignment import Alignment, align
from flyweight.distill.chunked import chunk_rows, chunked_loss, top_from_hidden
from flyweight.distill.divergences import Blend, Top, top_of
from flyweight.distill.head import Head, head_of
from flyweight.distill.judges import Answers, Judge, Live, Recorded
from flyweight.errors import UnsupportedFamily

N, D, V = 23, 12, 90
BETAS = [0.0, 0.3, 1.0]


class Case:
    """Hidden states and heads of student and teacher in double precision, targets and weights."""

    def __init__(self, rows: int = V, teacher_rows: int = V, *, bias: bool = False) -> None:
        generator = torch.Generator().manual_seed(1)

        def drawn(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64)

        self.hidden, self.teacher_hidden = drawn(N, D), drawn(N, D + 3)
        self.weight, self.teacher_weight = drawn(rows, D) * 0.7, drawn(teacher_rows, D + 3) * 0.5
        self.bias = drawn(rows) if bias else None
        self.targets = torch.arange(N) * 7 % min(rows, teacher_rows)
        self.weights = torch.linspace(0.2, 1.5, N, dtype=torch.float64)

    def leaves(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """Hidden states, weight and bias anew, wanting gradients."""
        given = [self.hidden, self.weight] + ([] if self.bias is None else [self.bias])
        return [each.to(dtype, copy=True).requires_grad_() for each in given]

    def head(self, leaves: list[Tensor], scaling: Any = None) -> Head:
        return Head(leaves[1], leaves[2] if len(leaves) > 2 else None, scaling)

    def live(self, blend: Blend, alignment: Alignment | None = None, scaling: Any = None) -> Live:
        """A live teacher in single precision."""
        head = Head(self.teacher_weight.float(), None, scaling)
        return Live(blend, self.teacher_hidden.float(), head, self.targets, alignment)

    def teacher_logits(self) -> Tensor:
        return self.teacher_hidden @ self.teacher_weight.t()

    def logits(self, leaves: list[Tensor]) -> Tensor:
        return F.linear(leaves[0], leaves[1], leaves[2] if len(leaves) > 2 else None)


def divergence(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """By torch's own kl_div, in double precision."""
    log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)

    def kl(one: Tensor, other: Tensor) -> Tensor:
        return F.kl_div(other, one, reduction="none", log_target=True).sum(-1)

    if beta in (0, 1):
        return kl(log_p, log_q) if beta == 0 else kl(log_q, log_p)
    mixed = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return beta * kl(log_p, mixed) + (1 - beta) * kl(log_q, mixed)


def blended(student: Tensor, teacher: Tensor, case: Case, blend: Blend) -> Tensor:
    heat = blend.temperature
    apart = divergence(student / heat, teacher / heat, blend.beta) * heat**2
    likelihood = F.cross_entropy(student, case.targets, reduction="none")
    return ((blend.share * apart + (1 - blend.share) * likelihood) * case.weights).sum()


def agree(
    case: Case, wanted: Tensor, leaves: list[Tensor], judge: Judge, budget: int, scaling: Any = None
) -> None:
    """Loss and gradients in single precision are within 1e-4 of those of `wanted`."""
    gradients = torch.autograd.grad(wanted, leaves)
    mine = case.leaves(torch.float32)
    found = chunked_loss(mine[0], case.head(mine, scaling), case.weights.float(), judge, budget)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-6)
    for ours, theirs in zip(torch.autograd.grad(found, mine), gradients, strict=True):
        assert (ours.double() - theirs).norm() <= 1e-4 * theirs.norm()


BUDGETS = [1, 4 * V * 10, 2**28]  # a position, some positions, everything at once


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("bias", [False, True])
def test_a_live_teacher(beta: float, share: float, temperature: float, bias: bool) -> None:
    case, blend = Case(bias=bias), Blend(share, beta, temperature)
    for budget in BUDGETS:
        leaves = case.leaves()
        wanted = blended(case.logits(leaves), case.teacher_logits(), case, blend)
        agree(case, wanted, leaves, case.live(blend), budget)


@pytest.mark.parametrize("bias", [False, True])
def test_the_right_answers(bias: bool) -> None:
    case = Case(bias=bias)
    for budget in BUDGETS:
        leaves = case.leaves()
        wanted = blended(case.logits(leaves), case.teacher_logits(), case, Blend(0.0))
        agree(case, wanted, leaves, Answers(case.targets), budget)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_record_of_every_token(beta: float, share: float) -> None:
    case, blend = Case(), Blend(share, beta)
    top = top_of(case.teacher_logits().float(), V)
    for budget in BUDGETS:
        leaves = case.leaves()
        wanted = blended(case.logits(leaves), case.teacher_logits(), case, blend)
        agree(case, wanted, leaves, Recorded(blend, top, case.targets), budget)


SCALINGS = {
    "divisor": lambda logits: logits / 3.0,
    "soft cap": lambda logits: (logits / 2.0).tanh() * 2.0,
    "the last step saves its result": lambda logits: (logits / 2.0).tanh(),
}


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("recorded", [False, True])
def test_what_follows_the_head_is_differentiated(scaling: Any, beta: float, recorded: bool) -> None:
    case, blend = Case(bias=True), Blend(0.8, beta)
    teacher = scaling(case.teacher_logits())
    judge: Judge = case.live(blend, scaling=scaling)
    if recorded:
        judge = Recorded(blend, top_of(teacher.float(), V), case.targets)
    for budget in BUDGETS:
        leaves = case.leaves()
        wanted = blended(scaling(case.logits(leaves)), teacher, case, blend)
        agree(case, wanted, leaves, judge, budget, scaling)


@pytest.mark.parametrize("name", zoo.DECODERS)
def test_the_head_of_every_family_says_what_transformers_says(name: str) -> None:
    """Forward KL between two models of a family is that of their logits, so are all gradients."""
    student, teacher = zoo.build(name), zoo.build(name, seed=1)
    ids = zoo.ids(student)
    targets = ids[:, 1:].flatten()
    weights = torch.full((len(targets),), 1 / len(targets))
    wished = divergence(
        student(ids, use_cache=False).logits[:, :-1].double().flatten(0, 1),
        zoo.logits(teacher)[:, :-1].double().flatten(0, 1),
        0.0,
    ).mean()
    kept = [each for each in student.parameters() if each.requires_grad]
    theirs = torch.autograd.grad(wished, kept, allow_unused=True, materialize_grads=True)
    hidden, said = (
        model.base_model(ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        for model in (student, teacher)
    )
    judge = Live(Blend(), said.detach(), head_of(teacher), targets)
    found = chunked_loss(hidden, head_of(student), weights, judge, budget=80 * 4 * 20)
    assert found.item() == pytest.approx(wished.item(), rel=1e-4)
    ours = torch.autograd.grad(found, kept, allow_unused=True, materialize_grads=True)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= 2e-4 * other.norm() + 1e-6


def test_a_head_that_is_not_linear_is_refused() -> None:
    model = zoo.build("llama")
    model.lm_head = nn.Sequential(model.lm_head)
    with pytest.raises(UnsupportedFamily, match="Sequential"):
        head_of(model)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("recorded", [False, True])
def test_padded_rows_are_as_if_they_were_not_there(beta: float, recorded: bool) -> None:
    """On either side, whatever they hold: same loss, same gradients, exactly 0 for the padding."""
    tokens, blend = 70, Blend(0.8, beta)
    case = Case(rows=75, teacher_rows=82)
    case.targets = torch.arange(N) % tokens
    case.weight[tokens:] = 9.0
    case.teacher_weight[tokens:] = 9.0
    alignment = align(75, 82, tokens=tokens)
    teacher = case.teacher_logits()[:, :tokens]
    judge: Judge = case.live(blend, alignment)
    if recorded:
        judge = Recorded(blend, top_of(teacher.float(), tokens), case.targets, alignment)
    for budget in BUDGETS:
        leaves = case.leaves()
        wanted = blended(case.logits(leaves)[:, :tokens], teacher, case, blend)
        agree(case, wanted, leaves, judge, budget)
    mine = case.leaves(torch.float32)
    loss = chunked_loss(mine[0], case.head(mine), case.weights.float(), judge)
    gradient = torch.autograd.grad(loss, mine[1])[0]
    assert (gradient[tokens:] == 0).all()
    assert (gradient[:tokens] != 0).any(1).all()


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_cut_vocabulary(beta: float, share: float, temperature: float) -> None:
    """Kept rows in any places, rows of the student without a token between, padding in both."""
    rows = torch.tensor([4, -1, 0, 60, 7, 8, -1, 33, 50, 11, 12, 13])
    here, blend = (rows >= 0).nonzero()[:, 0], Blend(share, beta, temperature)
    case = Case(rows=14, teacher_rows=V)
    case.targets = here[torch.arange(N) % len(here)]
    alignment = align(14, V, rows=rows, tokens=80)
    assert alignment is not None
    assert alignment.cut
    heat = temperature
    teacher = case.teacher_logits()[:, :80] / heat
    mass = teacher.softmax(-1)[:, rows[here]].sum(-1)
    kept = teacher[:, rows[here]]
    for budget in BUDGETS:
        leaves = case.leaves()
        student = case.logits(leaves)[:, here]
        p, q = kept.softmax(-1) * mass[:, None], (student / heat).softmax(-1)
        if beta == 0:  # by the chain rule: less what only the teacher decides
            apart = (p * (p / q).log()).sum(-1) - mass * mass.log()
        elif beta == 1:
            apart = (q * (q / p).log()).sum(-1) + mass.log()
        else:
            mixed = beta * p + (1 - beta) * q
            whole = beta * mass + (1 - beta)
            apart = (beta * p * (p / mixed).log() + (1 - beta) * q * (q / mixed).log()).sum(-1)
            apart = apart - beta * mass * (mass / whole).log() + (1 - beta) * whole.log()
        place = torch.arange(N) % len(here)
        likelihood = F.cross_entropy(student, place, reduction="none")
        wanted = ((share * apart * heat**2 + (1 - share) * likelihood) * case.weights).sum()
        agree(case, wanted, leaves, case.live(blend, alignment), budget)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2**16),
    st.integers(1, 500),
    st.sampled_from(BETAS),
    st.sampled_from(["live", "record", "answers"]),
)
def test_chunks_and_blocks_change_nothing(budget: int, cached: int, beta: float, kind: str) -> None:
    case, blend = Case(), Blend(0.7, beta)
    judges: dict[str, Judge] = {
        "live": case.live(blend),
        "record": Recorded(blend, top_of(case.teacher_logits().float(), 9), case.targets),
        "answers": Answers(case.targets),
    }
    results = []
    for size, block in ((2**30, 2**18), (budget, cached)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chunked, "CACHED", block)
            patch.setattr(chunked, "SMALL", 0)
            mine = case.leaves(torch.float32)
            judge = case.live(blend) if kind == "live" else judges[kind]
            loss = chunked_loss(mine[0], case.head(mine), case.weights.float(), judge, size)
            results.append([loss, *torch.autograd.grad(loss, mine)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_between_equal_models_loss_and_gradients_are_exactly_zero(
    beta: float, budget: int, dtype: torch.dtype
) -> None:
    case = Case()
    mine = case.leaves(dtype)
    judge = Live(
        Blend(1.0, beta, 1.5), mine[0].detach().clone(), Head(mine[1].detach()), case.targets
    )
    loss = chunked_loss(mine[0], case.head(mine), case.weights.float(), judge, budget)
    assert loss.item() == 0
    assert all((each == 0).all() for each in torch.autograd.grad(loss, mine))


@pytest.mark.parametrize("budget", [V * 2 * 5, 2**28])
@pytest.mark.parametrize("small", [0, 2**22])
@pytest.mark.parametrize("master", [torch.float32, torch.bfloat16])
def test_in_half_precision_gradients_are_as_good_as_autograds(
    budget: int, small: int, master: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads in bf16, and in fp32 under autocast as they are trained."""
    monkeypatch.setattr(chunked, "SMALL", small)
    monkeypatch.setattr(chunked, "SLAB", 32)
    case, blend = Case(bias=True), Blend(0.7)
    leaves = [each.detach().double().requires_grad_() for each in case.leaves(torch.bfloat16)]
    teacher = (case.teacher_hidden.bfloat16() @ case.teacher_weight.bfloat16().t()).double()
    wanted = blended(case.logits(leaves), teacher, case, blend)
    exact = torch.autograd.grad(wanted, leaves)
    errors = []
    for ours in (True, False):
        mine = [each.detach().to(master).requires_grad_() for each in leaves]
        head = case.head(mine)
        with torch.autocast("cpu", torch.bfloat16):
            if ours:
                loss = chunked_loss(mine[0], head, case.weights.float(), case.live(blend), budget)
            else:
                loss = blended(case.logits(mine).float(), teacher.float(), case, blend)
        found = torch.autograd.grad(loss, mine)
        assert [each.dtype for each in found] == [master] * 3
        errors.append([(a - b).norm() / b.norm() for a, b in zip(found, exact, strict=True)])
    for our_error, plain_error in zip(*errors, strict=True):
        # a gradient in bf16 is rounded by each chunk that is added to it
        assert our_error <= (1.2 if master == torch.float32 else 2) * plain_error + 1e-3


def test_the_loss_passes_on_what_it_is_multiplied_with_and_only_once() -> None:
    case = Case(bias=True)
    one, other = case.leaves(torch.float32), case.leaves(torch.float32)
    weights, judge = case.weights.float(), Answers(case.targets)
    plain = chunked_loss(one[0], case.head(one), weights, judge)
    tripled = chunked_loss(other[0], case.head(other), weights, judge) * 3
    for once, thrice in zip(
        torch.autograd.grad(plain, one), torch.autograd.grad(tripled, other), strict=True
    ):
        torch.testing.assert_close(3 * once, thrice)
    loss = chunked_loss(one[0], case.head(one), weights, judge)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_what_wants_no_gradient_gets_none() -> None:
    """A frozen head, frozen hidden states, and no graph at all."""
    case, judge = Case(bias=True), Answers(torch.zeros(N, dtype=torch.long))
    weights = case.weights.float()
    frozen = [each.float() for each in (case.hidden, case.weight, case.bias) if each is not None]
    wished = None
    for wanting in range(3):
        mine = [each.clone().requires_grad_(i == wanting) for i, each in enumerate(frozen)]
        loss = chunked_loss(mine[0], Head(mine[1], mine[2]), weights, judge)
        loss.backward()
        assert [each.grad is not None for each in mine] == [i == wanting for i in range(3)]
        wished = loss.item()
    mine = case.leaves(torch.float32)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            loss = chunked_loss(mine[0], case.head(mine), weights, judge)
        assert not loss.requires_grad
        assert loss.item() == wished


def test_no_position_at_all_costs_nothing() -> None:
    case = Case()
    mine = case.leaves(torch.float32)
    empty = torch.zeros(0, dtype=torch.long)
    loss = chunked_loss(mine[0][:0], case.head(mine), torch.zeros(0), Answers(empty))
    loss.backward()
    assert loss.item() == 0
    assert mine[1].grad is not None
    assert (mine[1].grad == 0).all()


@pytest.mark.parametrize("beta", BETAS)
def test_in_double_precision_it_is_autograd_to_twelve_digits(beta: float) -> None:
    case, blend = Case(bias=True), Blend(0.6, beta, 1.7)
    leaves, mine = case.leaves(), case.leaves()
    wanted = blended(case.logits(leaves).tanh(), case.teacher_logits(), case, blend)
    judge = Live(blend, case.teacher_hidden, Head(case.teacher_weight), case.targets)
    loss = chunked_loss(mine[0], case.head(mine, torch.tanh), case.weights, judge, 5000)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    for one, other in zip(
        torch.autograd.grad(loss, mine), torch.autograd.grad(wanted, leaves), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("scaling", [None, *SCALINGS.values()], ids=["none", *SCALINGS])
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_record_is_the_teachers_softmax(scaling: Any, budget: int) -> None:
    case = Case()
    logits = case.teacher_logits()
    wanted = (logits if scaling is None else scaling(logits)).log_softmax(-1)
    top = top_from_hidden(
        case.teacher_hidden.float(),
        Head(case.teacher_weight.float(), None, scaling),
        5,
        budget=budget,
    )
    assert top.tail is not None
    torch.testing.assert_close(top.log_p.double(), wanted.topk(5).values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(wanted.gather(-1, top.indices), wanted.topk(5).values)
    outside = wanted.exp().scatter(-1, top.indices, 0.0).sum(-1).log()
    torch.testing.assert_close(top.tail.double(), outside, rtol=1e-5, atol=1e-6)


@given(
    st.integers(0, 5000),
    st.integers(1, 10_000),
    st.integers(1, 10**7),
    st.sampled_from([1, 8, 128]),
)
def test_chunks_fit_their_budget_and_are_of_one_size(
    positions: int, each: int, budget: int, tile: int
) -> None:
    rows, most = chunk_rows(positions, each, budget, tile), max(1, budget // each)
    assert rows == 1 or rows * each <= budget
    assert rows % tile == 0 or most < -(-rows // tile) * tile
    if positions:
        assert -(-positions // rows) == -(-positions // most)


@pytest.mark.parametrize("slab", [1, 5 * D, V * D])
@pytest.mark.parametrize("first", [True, False])
def test_slabs_of_a_gpu_add_up_to_the_product(
    slab: int, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp32 from factors in half precision, whatever was there where it is the first."""
    monkeypatch.setattr(chunked, "GPU_SLAB", slab)
    lot = torch.Generator().manual_seed(0)
    left, right = (torch.randn(N, each, generator=lot).bfloat16() for each in (V, D))
    before = torch.randn(V, D, generator=lot)
    total = torch.full_like(before, torch.nan) if first else before.clone()
    chunked._add_slabs(total, left, right, first=first)
    wanted = left.double().t() @ right.double() + (0 if first else before)
    assert (total - wanted).norm() < 5e-3 * wanted.norm()


def test_memory_does_not_grow_with_the_sequence() -> None:
    """Tensors made in the forward pass: one chunk of logits, however many positions."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        """The bytes of the largest storage that any operation returned."""

        bytes = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[override]
            out = func(*args, **(kwargs or {}))
            for each in out if isinstance(out, tuple | list) else [out]:
                if isinstance(each, Tensor):
                    self.bytes = max(self.bytes, each.untyped_storage().nbytes())
            return out

    found = []
    for tokens in (64, 1024):
        hidden = torch.randn(tokens, 8, requires_grad=True)
        head = Head(torch.randn(500, 8, requires_grad=True))
        judge = Recorded(
            Blend(0.5), Top(torch.full((tokens, 2), -1.0), torch.tensor([[3, 4]] * tokens)),
            torch.zeros(tokens, dtype=torch.long),
        )  # fmt: skip
        with Largest() as largest:
            chunked_loss(hidden, head, torch.ones(tokens), judge, 500 * 4 * 32)
        found.append(largest.bytes)
    assert found == [500 * 4 * 32] * 2


def test_a_gpu_is_asked_for_little_at_a_time() -> None:
    """At the sizes of Llama 3.2 1B and 3.1 8B, 8,188 tokens: below a thousand launches, 5 ms."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Launches(TorchDispatchMode):
        """How many operations wrote something."""

        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[override]
            out = func(*args, **(kwargs or {}))
            views = func.is_view or "empty" in func.name() or not isinstance(out, Tensor)
            self.count += not views
            return out

    size, tokens, half = 128_256, 8188, torch.bfloat16
    with torch.device("meta"):  # no CPU, as little as a GPU
        hidden, weight = torch.empty(tokens, 2048), torch.empty(size, 2048)
        said, head = torch.empty(tokens, 4096, dtype=half), torch.empty(size, 4096, dtype=half)
        judge = Live(Blend(), said, Head(head), torch.zeros(tokens, dtype=torch.long))
        sums = chunked._Gradients(hidden, weight, None, (True, True, False))
        weights, own = torch.ones(tokens), Head(weight).to(half)
    with torch.no_grad(), Launches() as launches:
        chunked._walk(hidden, own, weights, judge, chunked.GPU_CHUNK_BYTES, sums)
    assert 100 < launches.count < 1000


@pytest.mark.parametrize(("gigabytes", "mebibytes"), [(141, 1024), (24, 357), (8, 256)])
def test_a_smaller_gpu_holds_fewer_logits(
    gigabytes: int, mebibytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = SimpleNamespace(total_memory=gigabytes * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: told)
    assert chunked._usual_budget(torch.device("cuda")) // 2**20 == mebibytes
    assert chunked._usual_budget(torch.device("mps")) == chunked.CHUNK_BYTES
