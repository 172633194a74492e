"""float8 products on a card at FLUX.1's shapes: their error, and compiled blocks beside exact ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gen.attention import attend, flash, pick_flash
from gen.float8 import exact_linear, float8_linear, quantize_rows, sqnr
from gen.flux_blocks import Block, Operands, Streams, joint_block, single_block
from gen.sums import ExactSums, Float8Sums, FusedSums, Norms, Operand, has_float8_cores

if torch.cuda.is_available():
    from gen.fused import group_norm, widened

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card here")]
DIM, HEADS = 3072, 24
JOINT = {
    f"{kind}_{s}{tail}": size for s in "ab" for kind, tail, size in (("ff", ".0", (4, 1)), ("ff", ".2", (1, 4)))
} | {f"attn.{s}_to_{what}": size for s in "ab" for what, size in (("qkv", (3, 1)), ("out", (1, 1)))}
SINGLE = {"to_qkv_mlp": (7, 1), "proj_out": (1, 5)}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.float32).to(dtype)


def _stored(linears: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for name, (rows, columns) in linears.items():
        exact = _random(rows * DIM, columns * DIM) / (columns * DIM) ** 0.5
        weights[f"{name}.weight"], weights[f"{name}.scale"] = quantize_rows(exact)
        weights[f"{name}.bias"] = _random(rows * DIM) * 0.1
    return weights


def _inputs(tokens: int, modulations: int) -> dict[str, Any]:
    angle = torch.rand(1, 1, tokens + 512, DIM // HEADS // 2, device="cuda")
    sine, cosine = angle.sin(), angle.cos()
    turn = torch.stack((cosine, -sine, sine, cosine), -1).view(1, 1, tokens + 512, -1, 2, 2)
    return {"modulation": _random(1, modulations * DIM) * 0.1, "rotation": turn}


def _worst(exact: Tensor, approximate: Tensor) -> float:
    """The lowest SQNR of all tokens, dB."""
    return float(sqnr(exact.flatten(0, -2), approximate.flatten(0, -2)).min())


@pytest.mark.parametrize("tokens", [512, 4096, 4608])
@pytest.mark.parametrize(("rows", "columns"), [(7, 1), (1, 5), (3, 1), (4, 1), (1, 4), (1, 1)])
def test_a_float8_product_stays_within_its_error(tokens: int, rows: int, columns: int) -> None:
    if not has_float8_cores(torch.device("cuda")):
        pytest.skip("this card has no float8 tensor cores")
    weights = _stored({"x": (rows, columns)})
    x = _random(1, tokens, columns * DIM)
    assert _worst(exact_linear(weights, "x", x), float8_linear(weights, "x", x)) > 28


def test_rows_are_stored_with_at_least_31_decibels() -> None:
    exact = _random(DIM, DIM) * 0.003
    weight, scale = quantize_rows(exact)
    assert float(sqnr(exact, weight.float() * scale[:, None]).mean()) > 31


FLASH = pick_flash(torch.device("cuda" if torch.cuda.is_available() else "cpu"), size=DIM // HEADS)


@pytest.mark.skipif(FLASH is None, reason="FlashAttention 4 is not installed, or not for this card")
@pytest.mark.parametrize(("length", "batch"), [(4608, 1), (1536, 2), (577, 1)])
def test_flash_attention_is_as_exact_as_torchs(length: int, batch: int) -> None:
    q, k = _random(2, batch, length, 4, 128).unbind(0)
    v = _random(batch, length, 3, 4, 128)[:, :, 2]  # as it stands beside others in a block's product
    q[:, ::7] *= 8  # some of them look at few
    wanted = attend(q.double(), k.double(), v.double())
    usual, fast = (sqnr(wanted.flatten(), made.flatten()) for made in (attend(q, k, v), flash(q, k, v)))
    assert float(fast) > float(usual) - 0.5 > 40
    assert torch.equal(flash(q, k, v), flash(q, k, v))


@pytest.mark.parametrize("sums", [Float8Sums(), FusedSums(), FusedSums(FLASH)])
@pytest.mark.parametrize("size", [4096, 1024, 1536])
def test_float8_blocks_draw_what_exact_ones_draw(size: int, sums: ExactSums) -> None:
    if not has_float8_cores(torch.device("cuda")):
        pytest.skip("this card has no float8 tensor cores")
    torch.compiler.reset()  # graphs of other sizes and sums count toward one limit
    norms = {f"attn.norm_{x}_{s}.weight": torch.ones(128, device="cuda").bfloat16() for x in "qk" for s in "ab"}
    norms |= {f"norm_{x}_a.weight": torch.ones(128, device="cuda").bfloat16() for x in "qk"}
    for build, linears, modulations in ((joint_block, JOINT, 12), (single_block, SINGLE, 3)):
        weights = _stored(linears) | norms
        given = _inputs(size, modulations)
        image = _random(1, size + (512 if build is single_block else 0), DIM)
        streams = image, _random(1, 512, DIM)
        given["following"] = given["modulation"].flip(-1)
        with torch.no_grad():
            (exact, _), (fast, left) = (
                _ran(build(HEADS, kind), weights, streams, given, compiled=not isinstance(kind, FusedSums))
                for kind in (ExactSums(), sums)
            )
            again = build(HEADS, sums).begin(weights, fast, given["following"])
        assert _worst(exact[0] - streams[0], fast[0] - streams[0]) > 20, build
        assert _worst(exact[1], fast[1]) > 20, build
        for kept, begun in zip(left, again, strict=True):  # with the block's last sums, or by itself: the same
            assert _worst(_numbers(begun), _numbers(kept)) > 28, build


def _ran(
    block: Block, weights: dict[str, Tensor], streams: Streams, given: dict[str, Any], *, compiled: bool
) -> tuple[Streams, Operands]:
    run = torch.compile(block.run, fullgraph=True, dynamic=False) if compiled else block.run
    return run(weights, streams, block.begin(weights, streams, given["modulation"]), **given)


def _numbers(operand: Operand) -> Tensor:
    return operand[0].float() * operand[1] if len(operand) == 2 else operand[0]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("tokens", [64, 512, 4097])
def test_fused_kernels_make_what_separate_ones_make(batch: int, tokens: int) -> None:
    if not has_float8_cores(torch.device("cuda")):
        pytest.skip("this card has no float8 tensor cores")
    weights = _stored(SINGLE | {"mlp": (1, 4)})
    x, modulation = _random(batch, tokens, DIM), _random(batch, 1, 6 * DIM) * 0.3
    shift, _, _, scale = modulation.chunk(6, dim=-1)[:4]
    wide = _random(batch, tokens, 7 * DIM)
    exact, fused = ExactSums(), FusedSums()
    given = weights, "to_qkv_mlp", x, shift, scale
    one, other = (sums.product(*given[:2], sums.operand(*given)) for sums in (exact, fused))
    assert _worst(one, other) > 28
    gate, y = modulation.chunk(6, dim=-1)[5], _random(batch, tokens, DIM)
    (kept, ready), (same, rows) = (sums.gated(*given[:2], x, gate, y, shift, scale) for sums in (exact, fused))
    assert _worst(kept, same) > 45
    assert _worst(ready[0], rows[0].float() * rows[1]) > 28
    assert _worst(exact.plain(*given[:2], x[:, 1:]), fused.plain(*given[:2], x[:, 1:])) > 28
    gelu = weights, "proj_out", wide[..., 3 * DIM :], wide[..., :DIM]
    assert _worst(_mlp(exact, *gelu), _mlp(fused, *gelu)) > 28
    alone = weights, "mlp", wide[..., 3 * DIM :]
    assert _worst(_mlp(exact, *alone), _mlp(fused, *alone)) > 28


def _mlp(sums: ExactSums, weights: dict[str, Tensor], name: str, wide: Tensor, beside: Tensor | None = None) -> Tensor:
    return sums.product(weights, name, sums.gelu(weights, name, wide, beside))


def test_rows_of_gelu_keep_their_scale_where_it_is_hard_to_tell() -> None:
    if not has_float8_cores(torch.device("cuda")):
        pytest.skip("this card has no float8 tensor cores")
    weights = {"x.weight": torch.eye(4 * DIM, device="cuda").to(torch.float8_e4m3fn)}
    weights |= {"x.scale": torch.ones(4 * DIM, device="cuda")}
    some = _random(1, 6, 4 * DIM)
    rows = [some[:, 0] / 1000, -some[:, 1].abs() / 10, -some[:, 2].abs() * 3, some[:, 3] * 100, some[:, 4] - 1]
    wide = torch.stack((*rows, 0 * some[:, 5]), 1)
    exact, made = (_mlp(sums, weights, "x", wide) for sums in (ExactSums(), FusedSums()))
    assert bool((made[:, 5] == 0).all())
    assert _worst(exact[:, :5], made[:, :5]) > 28
    far = _mlp(FusedSums(), weights, "x", wide * 0 - 6)
    assert bool((far.abs() < 0.17 / 448).all())


@pytest.mark.parametrize("rank", [16, 64, 128, 512])
def test_a_branch_beside_fused_kernels_adds_what_its_product_is(rank: int) -> None:
    if not has_float8_cores(torch.device("cuda")):
        pytest.skip("this card has no float8 tensor cores")
    weights = _stored({"to_qkv_mlp": (7, 1), "mlp": (1, 4), "out": (1, 1)})
    branches = {f"{name}.up": _random(rows * DIM, rank) / rank for name, rows in (("to_qkv_mlp", 7), ("mlp", 1))}
    branches |= {f"{name}.down": _random(rank, columns * DIM) / 8 for name, columns in (("to_qkv_mlp", 1), ("mlp", 4))}
    branches |= {"out.up": _random(DIM, rank) / rank, "out.down": _random(rank, DIM) / 8}
    x, (shift, scale) = _random(1, 4097, DIM), (_random(1, 1, 2 * DIM) * 0.3).chunk(2, dim=-1)
    wide = _random(1, 77, 4 * DIM)

    def branch(sums: ExactSums) -> list[Tensor]:
        makes: list[Callable[[dict[str, Tensor]], Tensor]] = [
            lambda held: sums.product(held, "to_qkv_mlp", sums.operand(held, "to_qkv_mlp", x, shift, scale)),
            lambda held: _mlp(sums, held, "mlp", wide),
            lambda held: sums.plain(held, "out", x),
        ]
        return [make(weights | branches) - make(weights) for make in makes]

    for exact, fused in zip(branch(ExactSums()), branch(FusedSums()), strict=True):
        assert float(sqnr(exact.flatten(), fused.flatten())) > 25


@pytest.mark.parametrize("with_text", [True, False])
def test_the_kernel_turns_heads_as_plain_sums_do(with_text: bool) -> None:
    wide, text = _random(2, 1000, 7 * DIM), _random(2, 77, 3 * DIM)
    norms = [Norms(_random(128).abs(), _random(128)) for _ in range(2)]
    given = (text, norms[0]) if with_text else None, (wide[..., : 3 * DIM], norms[1])
    rotation = _inputs(1000 - 512 + 77 * with_text, 1)["rotation"]
    exact, fused = (sums.turned(*given, rotation, heads=HEADS) for sums in (ExactSums(), FusedSums()))
    for one, other in zip(exact, fused, strict=True):
        assert one.shape == other.shape
        assert float(sqnr(one.flatten().float(), other.flatten().float())) > 45


@pytest.mark.parametrize("shape", [(1, 512, 128, 128), (2, 128, 301, 77), (1, 256, 1024, 1024)])
def test_the_kernel_of_group_norms_is_torchs_to_rounding(shape: tuple[int, ...]) -> None:
    x, weight, bias = _random(*shape) * 3 + 2, _random(shape[1]), _random(shape[1])
    exact = F.group_norm(x.float(), 32, weight.float(), bias.float(), 1e-6)
    assert float(sqnr(exact.flatten(), group_norm(x, 32, weight, bias, 1e-6).float().flatten())) > 45


def test_widening_is_exact() -> None:
    weight, _ = quantize_rows(_random(DIM, 5 * DIM + 8))
    assert torch.equal(widened(weight, torch.bfloat16), weight.to(torch.bfloat16))
