"""The ways to merge: identities bit for bit, formulas against plain code, and what must not matter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor

from unival_plugin.checkpoints.merge_methods import METHODS, dare, slerp, task_arithmetic, ties, weighted

shapes = array_shapes(min_dims=0, max_dims=3, max_side=5)
usual = st.floats(-100, 100, width=32)
extreme = st.sampled_from([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-45, 3e38, -3e38])


@st.composite
def tensors(draw: st.DrawFn, count: int, elements: st.SearchStrategy[float] = usual) -> list[Tensor]:
    shape = draw(shapes)
    return [torch.from_numpy(draw(arrays(np.float32, shape, elements=elements)).copy()) for _ in range(count)]


@st.composite
def means(draw: st.DrawFn, count: int) -> list[float]:
    """Coefficients that sum up to 1."""
    sizes = [draw(st.floats(0.01, 1)) for _ in range(count)]
    return [size / sum(sizes) for size in sizes]


def same_bits(one: Tensor, two: Tensor) -> bool:
    nan = one.isnan() & two.isnan()
    bits = one.reshape(-1).view(torch.int32) == two.reshape(-1).view(torch.int32)
    return one.shape == two.shape and bool((bits | nan.reshape(-1)).all())


def close(one: Tensor, two: Tensor) -> bool:
    return torch.allclose(one, two, rtol=1e-5, atol=1e-4)


@given(tensors(1, usual | extreme), means(3))
def test_equal_tensors_come_out_bit_for_bit(made: list[Tensor], coefficients: list[float]):
    [tensor] = made
    for count in (1, 2, 3):
        part = coefficients[:count]
        share = [each / sum(part) for each in part]
        assert same_bits(weighted([tensor.clone() for _ in range(count)], share), tensor)
    assert same_bits(slerp([tensor, tensor.clone()], [0.3, 0.7]), tensor)


@given(tensors(2, usual | extreme))
def test_the_ends_of_an_interpolation_are_the_files(made: list[Tensor]):
    for way in (weighted, slerp):
        assert same_bits(way(made, [1.0, 0.0]), made[0])
        assert same_bits(way(made, [0.0, 1.0]), made[1])


@given(tensors(3), means(2))
def test_the_ends_of_task_arithmetic_are_base_and_file(made: list[Tensor], coefficients: list[float]):
    base, *files = made
    assert same_bits(task_arithmetic(files, [0.0, 0.0], base), base)
    assert same_bits(task_arithmetic(files, [1.0, 0.0], base), files[0])
    assert same_bits(task_arithmetic([base, base], coefficients, base), base)


@given(tensors(4), st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_density_1_is_task_arithmetic(made: list[Tensor], coefficients: list[float]):
    base, *files = made
    expected = task_arithmetic(files, coefficients, base)
    assert same_bits(ties(files, coefficients, base, {"density": 1.0}), expected)
    assert same_bits(dare(files, coefficients, base, {"density": 1.0, "seed": 5.0}), expected)


def in_all_orders(name: str, files: list[Tensor], coefficients: list[float], base: Tensor) -> list[Tensor]:
    method = METHODS[name]
    return [
        method.function(
            [files[i] for i in order], [coefficients[i] for i in order], base if method.base else None, method.options
        )
        for order in itertools.permutations(range(len(files)))
    ]


@settings(max_examples=40)
@given(tensors(4), means(3), st.sampled_from([name for name in sorted(METHODS) if name != "ties"]))
def test_the_order_of_files_does_not_matter(made: list[Tensor], coefficients: list[float], name: str):
    base, *files = made
    if METHODS[name].pair:
        files, coefficients = files[:2], [coefficients[0], 1 - coefficients[0]]
    first, *others = in_all_orders(name, files, coefficients, base)
    assert all(close(first, other) for other in others)


@given(st.integers(0, 1000), means(3))
def test_the_order_of_files_does_not_matter_to_elected_signs(seed: int, coefficients: list[float]):
    base, *files = torch.randn(4, 50, generator=torch.Generator().manual_seed(seed))
    first, *others = in_all_orders("ties", files, coefficients, base)
    assert all(close(first, other) for other in others)


@given(tensors(3), st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_weighted_is_the_weighted_sum(made: list[Tensor], coefficients: list[float]):
    expected = sum(c * tensor.double() for c, tensor in zip(coefficients, made, strict=True))
    assert close(weighted(made, coefficients), torch.as_tensor(expected).float())


def test_an_unused_file_may_hold_infinities():
    broken = torch.full((2,), float("inf"))
    assert weighted([torch.ones(2), broken, torch.zeros(2)], [0.5, 0.0, 0.5]).tolist() == [0.5, 0.5]


def test_equal_infinities_stay_and_different_ones_are_no_number():
    one, two = torch.tensor([float("-inf"), 1.0, float("inf")]), torch.tensor([float("-inf"), 3.0, float("-inf")])
    merged = weighted([one, two], [0.5, 0.5])
    assert merged[:2].tolist() == [float("-inf"), 2.0] and merged[2].isnan()


def test_the_inputs_are_not_changed():
    made = [torch.randn(4, 3) for _ in range(3)]
    before = [tensor.clone() for tensor in made]
    for method in METHODS.values():
        files = made[1:] if method.pair or method.base else made
        method.function(files, [1 / len(files)] * len(files), made[0] if method.base else None, method.options)
    assert all(map(torch.equal, made, before))


def ties_written_out(files: list[Tensor], coefficients: list[float], base: Tensor, density: float) -> Tensor:
    """Element by element, as the paper tells it."""
    vectors = []
    for tensor, coefficient in zip(files, coefficients, strict=True):
        vector = (tensor - base) * coefficient
        keep = max(1, round(density * vector.numel()))
        smallest = vector.abs().flatten().sort(descending=True).values[keep - 1]
        vectors.append(torch.where(vector.abs() >= smallest, vector, 0).flatten())
    merged = []
    for parts in zip(*vectors, strict=True):
        sign = torch.sign(sum(parts))
        agreeing = [i for i, part in enumerate(parts) if part * sign > 0]
        weight = sum(abs(coefficients[i]) for i in agreeing)
        merged.append(sum(parts[i] for i in agreeing) / weight if agreeing else torch.tensor(0.0))
    return base + torch.stack(merged).reshape(base.shape) * sum(map(abs, coefficients))


@pytest.mark.parametrize("coefficients", [[1 / 3] * 3, [0.5, 0.2, 0.9], [1.0, -0.5, 0.3]])
@pytest.mark.parametrize("density", [0.2, 0.7, 0.999])
def test_ties_is_trim_elect_and_disjoint_mean(coefficients: list[float], density: float):
    torch.manual_seed(2)
    base, *files = (torch.randn(5, 7) for _ in range(4))
    expected = ties_written_out(files, coefficients, base, density)
    assert torch.allclose(ties(files, coefficients, base, {"density": density}), expected, atol=1e-6)


def test_ties_of_files_that_agree_in_sign_is_task_arithmetic_but_for_the_trimmed():
    base = torch.zeros(4)
    files = [torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([5.0, 6.0, 7.0, 8.0])]
    assert ties(files, [0.5, 0.5], base, {"density": 0.5}).tolist() == [0.0, 0.0, 5.0, 6.0]


def test_dare_drops_and_enlarges():
    base, tensor = torch.full((100, 100), 3.0), torch.full((100, 100), 4.0)
    merged = dare([tensor], [1.0], base, {"density": 0.25, "seed": 1.0})
    assert set(merged.unique().tolist()) == {3.0, 7.0}
    assert abs(float((merged == 7).float().mean()) - 0.25) < 0.02


def test_dare_repeats_with_its_seed_only():
    base, tensor = torch.zeros(50), torch.randn(50)
    first, again, other = (dare([tensor], [1.0], base, {"density": 0.5, "seed": seed}) for seed in (1.0, 1.0, 2.0))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_slerp_keeps_the_length_where_the_mean_does_not():
    one, two = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    merged = slerp([one, two], [0.5, 0.5])
    assert torch.allclose(merged, torch.full((2, 1), 0.5**0.5))
    third = slerp([one, two], [2 / 3, 1 / 3])
    assert float(third[1] / third[0]) == pytest.approx(np.tan(np.pi / 6))


@pytest.mark.parametrize("two", [torch.tensor([-1.0, 0.0]), torch.zeros(2)])
def test_slerp_without_an_arc_is_the_mean(two: Tensor):
    one = torch.tensor([1.0, 0.0])
    assert torch.equal(slerp([one, two], [0.25, 0.75]), weighted([one, two], [0.25, 0.75]))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_names_its_paper_and_takes_any_shape(name: str):
    method = METHODS[name]
    assert method.summary and any(character.isdigit() for character in method.paper)
    for shape in ((), (0,), (2, 0), (3,)):
        files, base = [torch.ones(shape), torch.full(shape, 3.0)], torch.zeros(shape) if method.base else None
        assert method.function(files, [0.5, 0.5], base, method.options).shape == shape


@pytest.mark.parametrize("name", sorted(METHODS))
def test_double_precision_stays(name: str):
    method = METHODS[name]
    files, base = [torch.ones(3).double(), torch.rand(3).double()], torch.zeros(3).double() if method.base else None
    assert method.function(files, [0.5, 0.5], base, method.options).dtype == torch.float64
