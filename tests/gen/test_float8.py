"""Stored weights: what float8 costs, and that a LoRA beside them is the merged weight."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from gen.float8 import exact_linear, quantize_rows, sqnr


@pytest.mark.parametrize("sigma", [0.003, 0.02, 1.0, 30.0])
def test_every_row_keeps_31_decibels_whatever_its_size(sigma: float) -> None:
    exact = torch.randn(256, 3072, generator=torch.Generator().manual_seed(1)) * sigma
    weight, scale = quantize_rows(exact)
    rows = sqnr(exact, weight.float() * scale[:, None])
    assert rows.mean() > 31.3
    assert rows.min() > 30.5


def test_rows_of_one_weight_keep_their_own_scales() -> None:
    exact = torch.randn(4, 512, generator=torch.Generator().manual_seed(1)) * torch.tensor([[1e-4], [1e-2], [1], [100]])
    weight, scale = quantize_rows(exact)
    assert sqnr(exact, weight.float() * scale[:, None]).min() > 30


def test_a_row_of_zeros_stays_zero() -> None:
    weight, scale = quantize_rows(torch.zeros(2, 16))
    assert torch.equal(weight.float() * scale[:, None], torch.zeros(2, 16))


def test_the_largest_value_of_a_row_is_exact() -> None:
    exact = torch.tensor([[0.1, -7.25, 3.0]])
    weight, scale = quantize_rows(exact)
    assert float((weight.float() * scale[:, None])[0, 1]) == pytest.approx(-7.25, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_uses_the_stored_weights_exact_values(dtype: torch.dtype) -> None:
    weight, scale = quantize_rows(torch.randn(32, 64))
    x, bias = torch.randn(2, 5, 64).to(dtype), torch.randn(32).to(dtype)
    stored = {"a.weight": weight, "a.scale": scale, "a.bias": bias}
    wanted = F.linear(x.double(), weight.double() * scale.double()[:, None], bias.double())
    assert sqnr(wanted.flatten(0, 1), exact_linear(stored, "a", x).flatten(0, 1)).min() > (
        110 if dtype == torch.float32 else 40
    )


def test_a_lora_beside_a_weight_is_the_merged_weight() -> None:
    weight, down, up = torch.randn(32, 64), torch.randn(4, 64), torch.randn(32, 4)
    x = torch.randn(3, 64)
    stored = {"a.weight": weight, "a.down": down, "a.up": up}
    assert torch.allclose(exact_linear(stored, "a", x), F.linear(x, weight + up @ down), atol=1e-3)


def test_sqnr_is_in_decibels() -> None:
    exact = torch.ones(1, 100)
    assert float(sqnr(exact, exact * 1.1)[0]) == pytest.approx(20, abs=1e-3)
