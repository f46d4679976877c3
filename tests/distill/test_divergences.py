"""Values and gradients against autograd in double precision, and what must always hold."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flyweight.distill.alignment import align
from flyweight.distill.divergences import (
    Blend,
    Top,
    against_logits_,
    against_top_,
    cross_entropy_,
    top_of,
)

POSITIONS, VOCABULARY = 7, 40
BETAS = [0.0, 0.1, 0.5, 0.9, 1.0]
TARGETS = torch.arange(POSITIONS) * 5 % VOCABULARY
WEIGHTS = torch.linspace(0.1, 2.0, POSITIONS, dtype=torch.float64)
seeds = st.integers(0, 10_000)
spreads = st.floats(0.01, 12)
betas = st.one_of(st.just(0.0), st.just(1.0), st.floats(0.01, 0.99))


def drawn(seed: int, spread: float, other_spread: float | None = None) -> tuple[Tensor, Tensor]:
    """Logits [N, V] in double precision of a student and of a teacher, however sharp."""
    generator = torch.Generator().manual_seed(seed)
    size = (POSITIONS, VOCABULARY)
    student = torch.randn(size, generator=generator, dtype=torch.float64) * spread
    teacher = torch.randn(size, generator=generator, dtype=torch.float64)
    return student, teacher * (spread if other_spread is None else other_spread)


def jsd(p: Tensor, q: Tensor, beta: float) -> Tensor:
    """The definition, from probabilities [n, E] in double precision; 0 log 0 is 0."""

    def kl(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(one > 0, one * (one / other.clamp_min(1e-300)).log(), 0).sum(-1)

    if beta == 0:
        return kl(p, q)
    if beta == 1:
        return kl(q, p)
    mixture = beta * p + (1 - beta) * q
    return beta * kl(p, mixture) + (1 - beta) * kl(q, mixture)


def wanted(student: Tensor, teacher: Tensor, blend: Blend, k: int = VOCABULARY) -> Tensor:
    """The blend's values, everything outside the teacher's top k counting as one token."""
    order = teacher.argsort(-1, descending=True)
    merged = []
    for logits in (student, teacher):
        probabilities = (logits / blend.temperature).softmax(-1).gather(-1, order)
        tail = probabilities[:, k:].sum(-1, keepdim=True)
        merged.append(torch.cat([probabilities[:, :k], tail], -1) if k < VOCABULARY else
                      probabilities)  # fmt: skip
    divergence = jsd(merged[1], merged[0], blend.beta) * blend.temperature**2
    likelihood = F.cross_entropy(student, TARGETS, reduction="none")
    return blend.share * divergence + (1 - blend.share) * likelihood


def found(student: Tensor, teacher: Tensor, blend: Blend, k: int | None = None) -> Tensor:
    """Values [n] and gradients [n, V] in one tensor [n, 1 + V], from clones in single precision."""
    student, teacher = student.float().clone(), teacher.float().clone()
    weights = WEIGHTS.float()
    if k is None:
        spare = torch.empty_like(student), torch.empty_like(student)
        said = against_logits_(blend, student, teacher, TARGETS, weights, spare)
    else:
        said = against_top_(blend, student, top_of(teacher, k), TARGETS, weights)
    return torch.cat([said[0][:, None], said[1]], -1)


def check(student: Tensor, teacher: Tensor, blend: Blend, k: int | None = None) -> None:
    """Values and gradient within 1e-4 of the reference."""
    reference = student.clone().requires_grad_()
    values = wanted(reference, teacher, blend, k or VOCABULARY)
    (gradient,) = torch.autograd.grad((values * WEIGHTS).sum(), reference)
    said = found(student, teacher, blend, k).double()
    torch.testing.assert_close(said[:, 0], values.detach(), rtol=1e-4, atol=2e-6)
    assert (said[:, 1:] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("share", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("sharp", [(0.3, 0.3), (3.0, 3.0), (8.0, 1.0), (1.0, 8.0)])
def test_the_blend_is_autograds_from_all_logits(
    beta: float, share: float, temperature: float, sharp: tuple[float, float]
) -> None:
    check(*drawn(1, *sharp), Blend(share, beta, temperature))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("share", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("k", [1, 5, VOCABULARY - 1, VOCABULARY])
def test_the_blend_is_autograds_from_the_top_k(beta: float, share: float, k: int) -> None:
    for sharp in ((0.3, 0.3), (3.0, 3.0), (6.0, 1.0), (1.0, 6.0)):
        check(*drawn(2, *sharp), Blend(share, beta), k)


def test_cross_entropy_is_torchs() -> None:
    student = drawn(3, 4.0)[0].requires_grad_()
    values = F.cross_entropy(student, TARGETS, reduction="none")
    (gradient,) = torch.autograd.grad((values * WEIGHTS).sum(), student)
    said = cross_entropy_(student.detach().float().clone(), TARGETS, WEIGHTS.float())
    torch.testing.assert_close(said[0].double(), values.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(said[1].double(), gradient, rtol=1e-4, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(seeds, spreads, spreads, betas)
def test_no_divergence_is_negative(seed: int, spread: float, other: float, beta: float) -> None:
    student, teacher = drawn(seed, spread, other)
    for k in (None, 5):
        assert (found(student, teacher, Blend(1.0, beta), k)[:, 0] >= -2e-6).all()


@settings(max_examples=60, deadline=None)
@given(seeds, spreads, betas, st.integers(1, VOCABULARY), st.sampled_from([1.0, 0.7, 2.5]))
def test_between_equals_it_is_exactly_zero(
    seed: int, spread: float, beta: float, k: int, temperature: float
) -> None:
    same, _ = drawn(seed, spread)
    assert (found(same, same, Blend(1.0, beta, temperature)) == 0).all()
    assert (found(same, same, Blend(1.0, beta), k) == 0).all()


@settings(max_examples=40, deadline=None)
@given(seeds, spreads, spreads, st.integers(1, VOCABULARY), betas)
def test_the_top_k_is_a_lower_bound(
    seed: int, spread: float, other: float, k: int, beta: float
) -> None:
    """Two distributions come no nearer by telling more tokens apart."""
    student, teacher = drawn(seed, spread, other)
    blend = Blend(1.0, beta)
    full = found(student, teacher, blend)[:, 0]
    assert (found(student, teacher, blend, k)[:, 0] <= full * (1 + 1e-4) + 5e-6).all()


@settings(max_examples=40, deadline=None)
@given(seeds, spreads, spreads, st.floats(0.02, 0.98))
def test_the_divergence_mirrors(seed: int, spread: float, other: float, beta: float) -> None:
    """Who is who matters as beta does: at one half not at all."""
    student, teacher = drawn(seed, spread, other)
    one = found(student, teacher, Blend(1.0, beta))[:, 0]
    swapped = found(teacher, student, Blend(1.0, 1 - beta))[:, 0]
    torch.testing.assert_close(one, swapped, rtol=1e-4, atol=2e-6)
    assert (found(student, teacher, Blend(1.0, 0.5))[:, 0] <= math.log(2) + 1e-5).all()


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0.1, 0.8), st.floats(0.1, 0.8))
def test_at_both_ends_of_beta_stand_the_two_kls(seed: int, spread: float, other: float) -> None:
    student, teacher = drawn(seed, spread, other)
    near = 1e-3
    for end, beta, scale in ((0.0, near, 1 / near), (1.0, 1 - near, 1 / near)):
        limit = found(student, teacher, Blend(1.0, end))
        nearly = found(student, teacher, Blend(1.0, beta)) * scale
        assert (nearly - limit).norm() <= 0.05 * limit.norm() + 3e-3


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0.1, 6), betas, st.floats(0.3, 5))
def test_temperature_is_a_division_of_both_logits(
    seed: int, spread: float, beta: float, temperature: float
) -> None:
    """T^2 times the divergence of divided logits, so T times their gradient."""
    student, teacher = drawn(seed, spread, 1.0)
    hot = found(student, teacher, Blend(1.0, beta, temperature))
    cold = found(student / temperature, teacher / temperature, Blend(1.0, beta))
    torch.testing.assert_close(hot[:, 0], cold[:, 0] * temperature**2, rtol=1e-4, atol=5e-5)
    torch.testing.assert_close(hot[:, 1:], cold[:, 1:] * temperature, rtol=1e-4, atol=5e-6)


@settings(max_examples=30, deadline=None)
@given(seeds, spreads, spreads, betas, st.floats(0, 1), st.sampled_from([None, 3]))
def test_a_gradient_moves_no_mass_in_all(
    seed: int, spread: float, other: float, beta: float, share: float, k: int | None
) -> None:
    """Adding one number to all logits of a position changes nothing."""
    student, teacher = drawn(seed, spread, other)
    gradient = found(student, teacher, Blend(share, beta), k)[:, 1:]
    assert gradient.isfinite().all()
    assert (gradient.sum(-1).abs() <= 1e-5 * (1 + gradient.abs().sum(-1))).all()


def test_far_apart_it_stays_finite() -> None:
    """Logits as far apart as fp32 computes with, in each direction."""
    student = torch.tensor([[0.0, 500.0, -500.0, 3.0], [500.0, 0.0, 0.0, 0.0]])
    targets, weights = torch.tensor([2, 1]), torch.ones(2)
    for beta in BETAS:
        for blend in (Blend(1.0, beta), Blend(0.5, beta)):
            buffers = [student.clone(), -student, student.clone(), student.clone()]
            values, gradient = against_logits_(
                blend, buffers[0], buffers[1], targets, weights, (buffers[2], buffers[3])
            )
            top = top_of(-student, 2)
            some, other = against_top_(blend, student.clone(), top, targets, weights)
            for each in (values, gradient, some, other):
                assert each.isfinite().all(), blend


@pytest.mark.parametrize(
    "bad", [(1.1, 0.0, 1.0), (-0.1, 0.0, 1.0), (0.5, 2.0, 1.0), (0.5, 0.0, 0.0), (1, 0, math.nan)]
)
def test_a_blend_has_limits(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="temperature is above 0"):
        Blend(*bad)


def chain_rule(student: Tensor, teacher: Tensor, kept: Tensor, beta: float) -> Tensor:
    """The divergence that includes the tokens that were cut, less what the student cannot change.

    For forward KL that part is infinite: it is taken off before the sum.
    """
    p, q = teacher.softmax(-1), student.softmax(-1)
    mass = p[:, kept].sum(-1)
    whole = torch.zeros_like(p).index_copy(1, kept, q)
    if beta == 0:  # sum over the kept of p log p/q, less the part of kept or not
        inside = (p[:, kept] * (p[:, kept] / q).log()).sum(-1)
        return inside - mass * mass.log()
    apart = jsd(torch.stack([mass, 1 - mass], -1), torch.tensor([1.0, 0.0]).double(), beta)
    return jsd(p, whole, beta) - apart


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("sharp", [(0.3, 0.3), (3.0, 3.0), (1.0, 5.0)])
def test_what_a_cut_vocabulary_took_is_split_off_by_the_chain_rule(
    beta: float, sharp: tuple[float, float]
) -> None:
    student, teacher = drawn(5, *sharp)
    kept = torch.arange(3, VOCABULARY, 2)
    student = student[:, : len(kept)]
    reference = student.clone().requires_grad_()
    if beta == 1:  # KL(q || p) less -log of the mass
        p, q = teacher.softmax(-1)[:, kept], reference.softmax(-1)
        values = (q * (q / p).log()).sum(-1) + p.sum(-1).log()
    else:
        values = chain_rule(reference, teacher, kept, beta)
    (gradient,) = torch.autograd.grad((values * WEIGHTS).sum(), reference)
    log_mass = teacher[:, kept].logsumexp(-1, keepdim=True) - teacher.logsumexp(-1, keepdim=True)
    buffers = [torch.empty(student.shape) for _ in range(2)]
    said, slope = against_logits_(
        Blend(1.0, beta),
        student.float().clone(),
        teacher[:, kept].float().clone(),
        torch.zeros(POSITIONS, dtype=torch.long),
        WEIGHTS.float(),
        (buffers[0], buffers[1]),
        log_mass.float(),
    )
    torch.testing.assert_close(said.double(), values.detach(), rtol=1e-4, atol=2e-6)
    assert (slope.double() - gradient).norm() <= 1e-4 * gradient.norm()


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_a_record_of_all_tokens_says_of_a_cut_vocabulary_what_the_logits_say(
    beta: float, share: float
) -> None:
    student, teacher = drawn(6, 2.0)
    kept = torch.arange(3, VOCABULARY, 2)
    student = student[:, : len(kept)]
    alignment = align(len(kept), VOCABULARY, rows=kept)
    assert alignment is not None
    targets, weights = torch.arange(POSITIONS) % len(kept), WEIGHTS.float()
    blend = Blend(share, beta)
    buffers = [torch.empty(student.shape) for _ in range(2)]
    log_mass = teacher[:, kept].logsumexp(-1, keepdim=True) - teacher.logsumexp(-1, keepdim=True)
    full = against_logits_(
        blend,
        student.float().clone(),
        teacher[:, kept].float(),
        targets,
        weights,
        (buffers[0], buffers[1]),
        log_mass.float(),
    )
    top = alignment.top(top_of(teacher.float(), VOCABULARY))
    said = against_top_(blend, student.float().clone(), top, targets, weights)
    torch.testing.assert_close(said[0], full[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(said[1], full[1], rtol=1e-3, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0.1, 8), st.integers(1, VOCABULARY - 1), betas, st.floats(0, 1))
def test_a_record_of_the_top_k_is_sound_for_a_cut_vocabulary(
    seed: int, spread: float, k: int, beta: float, share: float
) -> None:
    """Finite, not negative, zero in all for the sum of each gradient, whatever was lost."""
    student, teacher = drawn(seed, spread)
    kept = torch.arange(1, VOCABULARY, 3)
    alignment = align(len(kept), VOCABULARY, rows=kept)
    assert alignment is not None
    recorded = top_of(teacher.float(), k)
    half = Top(recorded.log_p.half(), recorded.indices.int())  # as the cache holds it
    top = alignment.top(half[slice(0, POSITIONS)])
    blend, targets = Blend(share, beta), torch.arange(POSITIONS) % len(kept)
    values, gradient = against_top_(
        blend, student[:, : len(kept)].float().clone(), top, targets, torch.ones(POSITIONS)
    )
    assert (values >= -2e-5).all()
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(POSITIONS), rtol=0, atol=2e-5)


def test_where_all_of_the_top_k_was_cut_only_the_answers_teach() -> None:
    student, teacher = drawn(7, 1.0)
    teacher[:, 0] += 20  # the one token that is recorded goes
    kept = torch.arange(1, VOCABULARY)
    alignment = align(len(kept), VOCABULARY, rows=kept)
    assert alignment is not None
    student = student[:, 1:].float()
    targets, weights = torch.arange(POSITIONS), torch.ones(POSITIONS)
    top = alignment.top(top_of(teacher.float(), 1))
    for beta in BETAS:
        alone = against_top_(Blend(1.0, beta), student.clone(), top, targets, weights)
        assert alone[0].abs().max() < 1e-5
        assert alone[1].abs().max() < 1e-5
    values, gradient = against_top_(Blend(0.25), student.clone(), top, targets, weights)
    answers = cross_entropy_(student.clone(), targets, weights)
    torch.testing.assert_close(values, 0.75 * answers[0])
    torch.testing.assert_close(gradient, 0.75 * answers[1])
