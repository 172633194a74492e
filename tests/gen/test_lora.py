"""LoRA files of every format change the same weights; what does not fit is refused by its first key."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gen.errors import InvalidRequest
from gen.lora import Branches, Lora, bucket, combine, read_lora
from gen.lora_index import list_loras
from gen.lora_names import linears, targets
from gen.lora_shelf import LoraShelf
from gen.request import LoraUse
from gen.weights import FluxShape

SHAPE = FluxShape(dim=32, heads=2, joint_blocks=2, single_blocks=2, rope_axes=(4, 6, 6))


def _random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def _pair(rows: int, inputs: int, rank: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    return _random(rank, inputs, seed=seed), _random(rows, rank, seed=seed + 1)


def _save(folder: Path, tensors: dict[str, Tensor], name: str = "style") -> Lora:
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    return read_lora(folder, name, SHAPE)


def _change(branches: Branches, module: str) -> Tensor:
    """What a branch adds to the module's weight."""
    down, up = branches[module]
    return up.float() @ down.float()


def _close(found: Tensor, wanted: Tensor) -> None:
    assert (found - wanted).norm() <= 0.01 * wanted.norm()  # bfloat16 has eight bits


KOHYA = (
    "lora_unet_double_blocks_1_img_attn_qkv.lora_down.weight",
    "lora_unet_double_blocks_1_img_attn_qkv.lora_up.weight",
)
BFL = ("double_blocks.1.img_attn.qkv.lora_A.weight", "double_blocks.1.img_attn.qkv.lora_B.weight")
ALPHA = "double_blocks.1.img_attn.qkv.alpha"
COMFY = tuple("diffusion_model." + key for key in BFL)
PEFT = ("blocks.1.attn.a_to_qkv.lora_A.default.weight", "blocks.1.attn.a_to_qkv.lora_B.default.weight")


@pytest.mark.parametrize("keys", [KOHYA, BFL, COMFY, PEFT])
def test_whole_linears_of_every_format_are_the_same_change(tmp_path: Path, keys: tuple[str, str]) -> None:
    down, up = _pair(96, 32)
    lora = _save(tmp_path, {keys[0]: down, keys[1]: up})
    _close(_change(combine([(lora, 1.0)], SHAPE), "blocks.1.attn.a_to_qkv"), up @ down)


@pytest.mark.parametrize("manner", ["transformer.transformer_blocks.0.attn.{}.lora_{}.weight"])
def test_diffusers_q_k_and_v_are_rows_of_one_linear(tmp_path: Path, manner: str) -> None:
    pairs = [_pair(32, 32, seed=10 * n) for n in range(3)]
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in zip(("to_q", "to_k", "to_v"), pairs, strict=True):
        tensors |= {manner.format(name, "A"): down, manner.format(name, "B"): up}
    branches = combine([(_save(tmp_path, tensors), 1.0)], SHAPE)
    _close(_change(branches, "blocks.0.attn.a_to_qkv"), torch.cat([up @ down for down, up in pairs]))


def test_a_single_blocks_mlp_and_a_missing_v_are_rows_too(tmp_path: Path) -> None:
    (q_down, q_up), (m_down, m_up) = _pair(32, 32), _pair(128, 32, seed=5)
    name = "transformer.single_transformer_blocks.1."
    tensors = {name + "attn.to_q.lora_A.weight": q_down, name + "attn.to_q.lora_B.weight": q_up}
    tensors |= {name + "proj_mlp.lora_A.weight": m_down, name + "proj_mlp.lora_B.weight": m_up}
    change = _change(combine([(_save(tmp_path, tensors), 1.0)], SHAPE), "single_blocks.1.to_qkv_mlp")
    _close(change[:32], q_up @ q_down)
    assert not change[32:96].any()
    _close(change[96:], m_up @ m_down)


def test_it_is_what_diffsynths_own_converter_makes(tmp_path: Path) -> None:
    """The keys of every linear in diffusers' names, against the converter that only gen.flux may use in earnest."""
    from diffsynth.utils.lora.flux import FluxLoRALoader

    plain = targets(SHAPE)
    loader = FluxLoRALoader()
    tensors: dict[str, Tensor] = {}
    for seed, key in enumerate(key for key in loader.diffusers_rename_dict if key.endswith("lora_A.weight")):
        for block in range(2):
            name = key.removesuffix(".lora_A.weight").replace("blockid", str(block))
            target = plain[name.removeprefix("transformer.").replace(".", "_")]
            down, up = _pair(target.rows, target.inputs, seed=100 * seed + block)
            tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    ours = combine([(_save(tmp_path, tensors), 1.0)], SHAPE)
    theirs = loader.convert_state_dict({key: tensor.clone() for key, tensor in tensors.items()})
    assert set(ours) == {key.removesuffix(".lora_A.weight") for key in theirs if key.endswith("lora_A.weight")}
    for module in ours:
        _close(_change(ours, module), theirs[f"{module}.lora_B.weight"] @ theirs[f"{module}.lora_A.weight"])


def test_a_side_branch_is_equal_to_the_merged_model(tmp_path: Path) -> None:
    down, up = _pair(96, 32)
    lora = _save(tmp_path, {KOHYA[0]: down, KOHYA[1]: up})
    branch_down, branch_up = combine([(lora, 0.7)], SHAPE)["blocks.1.attn.a_to_qkv"]
    weight, x = _random(96, 32, seed=7), _random(5, 32, seed=8)
    side = x @ weight.T + x @ branch_down.float().T @ branch_up.float().T
    _close(side, x @ (weight + 0.7 * up @ down).T)


def test_alpha_over_rank_and_strength_scale_the_change(tmp_path: Path) -> None:
    down, up = _pair(96, 32)
    alpha = KOHYA[0].replace("lora_down.weight", "alpha")
    lora = _save(tmp_path, {KOHYA[0]: down, KOHYA[1]: up, alpha: torch.tensor(2.0)})
    _close(_change(combine([(lora, -0.5)], SHAPE), "blocks.1.attn.a_to_qkv"), -0.5 * (2 / 4) * up @ down)


def test_several_loras_add_up(tmp_path: Path) -> None:
    pairs = [_pair(96, 32, rank=rank, seed=rank) for rank in (4, 8)]
    loras = [_save(tmp_path, {BFL[0]: d, BFL[1]: u}, name=str(n)) for n, (d, u) in enumerate(pairs)]
    change = _change(combine([(loras[0], 1.0), (loras[1], 0.5)], SHAPE), "blocks.1.attn.a_to_qkv")
    _close(change, pairs[0][1] @ pairs[0][0] + 0.5 * pairs[1][1] @ pairs[1][0])


def test_every_set_of_one_rank_has_the_same_shapes(tmp_path: Path) -> None:
    one = _save(tmp_path, {BFL[0]: _pair(96, 32)[0], BFL[1]: _pair(96, 32)[1]})
    sets = [combine(loras, SHAPE, rank=32) for loras in ([], [(one, 1.0)], [(one, 1.0), (one, 0.3)])]
    shapes = [{module: (d.shape, u.shape) for module, (d, u) in branches.items()} for branches in sets]
    assert shapes[0] == shapes[1] == shapes[2]
    assert set(shapes[0]) == set(linears(SHAPE))
    assert not any(up.any() for _, up in sets[0].values())


@pytest.mark.parametrize(("rank", "size"), [(0, 16), (16, 16), (17, 32), (500, 512)])
def test_ranks_are_padded_to_a_few(rank: int, size: int) -> None:
    assert bucket(rank) == size


def test_too_much_rank_is_refused_with_the_limit(tmp_path: Path) -> None:
    down, up = _pair(96, 32, rank=12)
    lora = _save(tmp_path, {BFL[0]: down, BFL[1]: up})
    with pytest.raises(InvalidRequest, match="rank 24 together; there is room for 16"):
        combine([(lora, 1.0), (lora, 1.0)], SHAPE, rank=16)
    with pytest.raises(InvalidRequest, match="rank 600 together; 512 is the most"):
        combine([(lora, 1.0)] * 50, SHAPE)


@pytest.mark.parametrize("strength", [4.5, -5.0, float("nan"), float("inf")])
def test_a_strength_outside_its_limits_is_refused(tmp_path: Path, strength: float) -> None:
    lora = _save(tmp_path, {BFL[0]: _pair(96, 32)[0], BFL[1]: _pair(96, 32)[1]})
    with pytest.raises(InvalidRequest, match="The strength of style is -4 to 4"):
        combine([(lora, strength)], SHAPE)


def _other_model(down: Tensor, up: Tensor) -> dict[str, Tensor]:
    return {"lora_unet_down_blocks_0_attentions_0.lora_down.weight": down, BFL[1]: up}


def _four_bits(like: Tensor) -> Tensor:
    return torch.zeros(len(like), like.shape[1] // 2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)


DAMAGES: list[tuple[Callable[[Tensor, Tensor], dict[str, Tensor]], str]] = [
    (
        _other_model,
        "lora_unet_down_blocks_0_attentions_0.lora_down.weight' is for no linear layer of the model's blocks",
    ),
    (
        lambda d, u: {BFL[0]: d, BFL[1]: u, "transformer.x_embedder.lora_A.weight": d},
        "x_embedder.lora_A.weight' is for no linear layer of the model's blocks, and only those can be changed",
    ),
    (
        lambda d, u: {BFL[0]: d, BFL[1]: u, BFL[0].replace("lora_A.weight", "dora_scale"): u},
        r"dora_scale' ends in none of \.lora_A\.weight, .*, \.alpha\.",
    ),
    (
        lambda d, u: {BFL[0]: d, BFL[1].replace("blocks.1", "blocks.7"): u},
        "double_blocks.7.img_attn.qkv.lora_B.weight'",
    ),
    (lambda d, u: {BFL[0]: d}, "lora_A.weight' has no counterpart"),
    (lambda d, u: {BFL[0]: d[:, :16], BFL[1]: u}, r"is \(4, 16\), and should be \(4, 32\)"),
    (lambda d, u: {BFL[0]: d, BFL[1]: u[:64]}, r"is \(64, 4\), and should be \(96, 4\)"),
    (lambda d, u: {BFL[0]: d[0], BFL[1]: u}, r"is \(32,\), and should be"),
    (
        lambda d, u: {BFL[0]: _random(600, 32), BFL[1]: _random(96, 600)},
        r"is \(600, 32\), and should be \(1 to 512, 32\)",
    ),
    (lambda d, u: {BFL[0]: d * float("nan"), BFL[1]: u}, "values that are no finite numbers"),
    (lambda d, u: {BFL[0]: d, BFL[1]: u.to(torch.int8)}, "lora_B.weight' is stored as I8, and should be one of F64, "),
    (lambda d, u: {BFL[0]: _four_bits(d), BFL[1]: u}, "lora_A.weight' is stored as F4, "),
    (lambda d, u: {BFL[0]: d, BFL[1]: u, ALPHA: torch.tensor(1 + 2j)}, "alpha' is stored as C64, .* F32, .* I32"),
    (lambda d, u: {BFL[0]: d, BFL[1]: u, ALPHA: _four_bits(d[:1, :2])}, "alpha' is stored as F4, "),
    (lambda d, u: {BFL[0]: d, BFL[1]: u, ALPHA: torch.tensor(float("inf"))}, "alpha' is not one finite number"),
    (
        lambda d, u: {BFL[0]: d * 0 + 3.4e38, BFL[1]: u},
        r"A.weight' makes numbers of up to 3.4e\+38; 8.47e\+37 fit bfloat",
    ),
    (lambda d, u: {BFL[0]: d, BFL[1]: u.double() * 0 - 1e300}, r"lora_B.weight' makes numbers of up to 1e\+300; "),
    (lambda d, u: {BFL[0]: d, BFL[1]: u, ALPHA: torch.tensor(-3e38)}, r"alpha' makes numbers of up to 3e\+38; "),
    (
        lambda d, u: {BFL[0]: d, BFL[1]: (u * 0 + 60000).half(), ALPHA: torch.tensor(-1e36)},
        r"alpha' makes numbers of up to 1.5e\+40; 8.47e\+37 fit bfloat16 at every strength",
    ),
    (lambda d, u: {BFL[0]: d, BFL[1]: u, KOHYA[0]: d}, "are the same thing"),
    (
        lambda d, u: {BFL[0]: d, BFL[1]: u, ALPHA: u},
        "alpha' is not one finite number",
    ),
    (lambda d, u: {"lora_te1_text_model_encoder.lora_down.weight": d}, "it changes the text encoders alone"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_a_file_that_does_not_fit_is_refused_by_its_first_key(
    tmp_path: Path, damage: Callable[[Tensor, Tensor], dict[str, Tensor]], words: str
) -> None:
    with pytest.raises(InvalidRequest, match="The LoRA style does not fit this model: .*" + words):
        _save(tmp_path, damage(*_pair(96, 32)))


@pytest.mark.parametrize("stored", ["float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_numbers_of_every_usual_kind_are_read(tmp_path: Path, stored: str) -> None:
    down, up = (part.to(getattr(torch, stored)) for part in _pair(96, 32))
    lora = _save(tmp_path, {BFL[0]: down, BFL[1]: up, ALPHA: torch.tensor(2)})
    _close(_change(combine([(lora, 1.0)], SHAPE), "blocks.1.attn.a_to_qkv"), up.float() @ down.float() / 2)


def test_the_largest_numbers_that_are_taken_are_finite_at_the_largest_strength(tmp_path: Path) -> None:
    down, up = torch.full((4, 32), 8.4e37), torch.full((96, 4), 8.4e37)
    lora = _save(tmp_path, {BFL[0]: down, BFL[1]: up, ALPHA: torch.tensor(4.0)})
    for strength in (4.0, -4.0):
        assert all(part.isfinite().all() for part in combine([(lora, strength)], SHAPE)["blocks.1.attn.a_to_qkv"])


def test_a_header_with_one_key_twice_is_refused(tmp_path: Path) -> None:
    down, up = _pair(96, 32)
    place = {"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 512]}
    other = {"dtype": "F32", "shape": [96, 4], "data_offsets": [512, 2048]}
    pairs = [(BFL[0], place), (BFL[0], place), (BFL[1], other)]
    header = "{" + ", ".join(f"{json.dumps(key)}: {json.dumps(told)}" for key, told in pairs) + "}"
    content = len(header).to_bytes(8, "little") + header.encode() + down.numpy().tobytes() + up.numpy().tobytes()
    (tmp_path / "style.safetensors").write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"its header has the key '.*lora_A\.weight' twice"):
        read_lora(tmp_path, "style", SHAPE)


def test_the_text_encoders_part_is_left_out_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    down, up = _pair(96, 32)
    usual = {KOHYA[0]: down, KOHYA[1]: up}
    assert len(_save(tmp_path, usual | {"lora_te1_text_model_x.lora_up.weight": up}).pieces) == 1
    _save(tmp_path, usual, name="other")
    shelf = LoraShelf(tmp_path, SHAPE)
    for name in ("style", "other", "style"):
        shelf.branches((LoraUse(name=name, strength=1.0),))
    assert caplog.messages == ["What the LoRA style has for the text encoders is not used; tensors: 1"]


@pytest.mark.parametrize(
    "name", ["../style", "/etc/passwd", "", ".", "..", "style.safetensors", "a" * 200, "no\x00", "other"]
)
def test_a_name_that_is_none_is_refused_and_reads_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "loras").mkdir()
    down, up = _pair(96, 32)
    save_file({BFL[0]: down, BFL[1]: up}, tmp_path / "style.safetensors")
    with pytest.raises(InvalidRequest, match="There is no LoRA named"):
        read_lora(tmp_path / "loras", name, SHAPE)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    torch.save({"x": 1}, tmp_path / "evil.safetensors")
    (tmp_path / "other.ckpt").write_bytes(b"")
    assert list_loras(tmp_path) == ["evil"]
    with pytest.raises(InvalidRequest, match="evil is damaged, or not a safetensors file"):
        read_lora(tmp_path, "evil", SHAPE)


def test_linears_of_flux_have_its_sizes() -> None:
    sizes = linears(FluxShape())
    assert len(sizes) == 19 * 10 + 38 * 3
    assert sizes["single_blocks.37.to_qkv_mlp"] == (3072, 21504)
    assert sizes["blocks.18.ff_b.2"] == (12288, 3072)
