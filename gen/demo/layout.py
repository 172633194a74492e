"""Saving a model in FLUX.1-dev's file layout: DiffSynth's key names → the names in published files.

The reverse of the converters that `gen.flux` loads with; a test holds the two together. Knows no training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gen.request import ModelProfile
from gen.weights import PREFIX, FluxShape

_DIT_TOP = {
    "time_embedder.timestep_embedder.0": "time_in.in_layer",
    "time_embedder.timestep_embedder.2": "time_in.out_layer",
    "guidance_embedder.timestep_embedder.0": "guidance_in.in_layer",
    "guidance_embedder.timestep_embedder.2": "guidance_in.out_layer",
    "pooled_text_embedder.0": "vector_in.in_layer",
    "pooled_text_embedder.2": "vector_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "final_norm_out.linear": "final_layer.adaLN_modulation.1",
    "final_proj_out": "final_layer.linear",
}
_JOINT = {
    "norm1_{}.linear": "{}_mod.lin",
    "attn.{}_to_qkv": "{}_attn.qkv",
    "attn.{}_to_out": "{}_attn.proj",
    "attn.norm_q_{}": "{}_attn.norm.query_norm",
    "attn.norm_k_{}": "{}_attn.norm.key_norm",
    "ff_{}.0": "{}_mlp.0",
    "ff_{}.2": "{}_mlp.2",
}
_SINGLE = {
    "norm.linear": "modulation.lin",
    "to_qkv_mlp": "linear1",
    "proj_out": "linear2",
    "norm_q_a": "norm.query_norm",
    "norm_k_a": "norm.key_norm",
}
_CLIP_LAYER = {
    "attn.to_q": "self_attn.q_proj",
    "attn.to_k": "self_attn.k_proj",
    "attn.to_v": "self_attn.v_proj",
    "attn.to_out": "self_attn.out_proj",
    "layer_norm1": "layer_norm1",
    "layer_norm2": "layer_norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
_ENCODER = "down.0.block.0 down.0.block.1 down.0.downsample down.1.block.0 down.1.block.1 down.1.downsample "
_ENCODER += "down.2.block.0 down.2.block.1 down.2.downsample down.3.block.0 down.3.block.1 "
_ENCODER += "mid.block_1 mid.attn_1 mid.block_2"
_DECODER = "mid.block_1 mid.attn_1 mid.block_2 up.3.block.0 up.3.block.1 up.3.block.2 up.3.upsample "
_DECODER += "up.2.block.0 up.2.block.1 up.2.block.2 up.2.upsample "
_DECODER += "up.1.block.0 up.1.block.1 up.1.block.2 up.1.upsample up.0.block.0 up.0.block.1 up.0.block.2"
_VAE_LEAF = {
    "conv_shortcut": "nin_shortcut",
    "transformer_blocks.0.to_q": "q",
    "transformer_blocks.0.to_k": "k",
    "transformer_blocks.0.to_v": "v",
    "transformer_blocks.0.to_out": "proj_out",
    "conv_norm_out": "norm_out",
}


def save_weights(folder: Path, *, shape: FluxShape, profile: ModelProfile, models: Mapping[str, nn.Module]) -> None:
    """Write the parts "dit", "clip", "t5", "vae_encoder" and "vae_decoder" in bfloat16, and kiln.json beside them."""
    vae = {
        f"{part}.{vae_name(key, part)}": tensor
        for part in ("encoder", "decoder")
        for key, tensor in models[f"vae_{part}"].state_dict().items()
    }
    t5 = {key: tensor for key, tensor in models["t5"].state_dict().items() if key != "encoder.embed_tokens.weight"}
    clip = {clip_name(key): tensor for key, tensor in models["clip"].state_dict().items()}
    _save(
        {PREFIX + dit_name(key): t for key, t in models["dit"].state_dict().items()},
        folder / f"{profile.name}.safetensors",
    )
    _save(vae, folder / "ae.safetensors")
    _save(clip, folder / "text_encoder" / "model.safetensors")
    _save(t5, folder / "text_encoder_2" / "model.safetensors")
    description = {"profile": asdict(profile), "shape": asdict(shape)}
    (folder / "kiln.json").write_text(json.dumps(description, indent=2) + "\n", "utf-8")


def dit_name(key: str) -> str:
    """FLUX's name for a key of the DiT."""
    stem, leaf = key.rsplit(".", 1)
    if stem in _DIT_TOP:
        return f"{_DIT_TOP[stem]}.{leaf}"
    family, number, part = stem.split(".", 2)
    if family == "single_blocks":
        name = _SINGLE[part]
    else:
        stream = {"a": "img", "b": "txt"}
        found = [(s, ours, theirs) for s in stream for ours, theirs in _JOINT.items() if ours.format(s) == part]
        name = found[0][2].format(stream[found[0][0]])
    family = {"blocks": "double_blocks"}.get(family, family)
    return f"{family}.{number}.{name}.{'scale' if '_norm' in name else leaf}"


def clip_name(key: str) -> str:
    """transformers' name for a key of the CLIP encoder, as published beside FLUX."""
    if key == "position_embeds":
        return "text_model.embeddings.position_embedding.weight"
    if key.startswith("token_embedding"):
        return f"text_model.embeddings.{key}"
    if not key.startswith("encoders."):
        return f"text_model.{key}"
    _, number, rest = key.split(".", 2)
    part, leaf = rest.rsplit(".", 1)
    return f"text_model.encoder.layers.{number}.{_CLIP_LAYER[part]}.{leaf}"


def vae_name(key: str, part: str) -> str:
    """FLUX's name for a key of the VAE's encoder or decoder, without `encoder.` or `decoder.`."""
    stem, leaf = key.rsplit(".", 1)
    if not stem.startswith("blocks."):
        return f"{_VAE_LEAF.get(stem, stem)}.{leaf}"
    _, number, rest = stem.split(".", 2)
    block = (_ENCODER if part == "encoder" else _DECODER).split()[int(number)]
    return f"{block}.{_VAE_LEAF.get(rest, rest)}.{leaf}"


def _save(state: Mapping[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    published = {}
    for key, tensor in state.items():
        plain = tensor.detach().to("cpu", torch.bfloat16)
        published[key] = (plain[0] if key.endswith("position_embedding.weight") else plain).contiguous().clone()
    save_file(published, path, metadata={"format": "pt"})
