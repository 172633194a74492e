"""FLUX through DiffSynth-Studio: builds a model of any FLUX shape from its files.

The only importer of diffsynth. One shape description serves FLUX.1-dev and the small demo model; the blocks,
encoders, scheduler and pipeline are DiffSynth's. Everything here runs on the one GPU thread. Knows no queue, no
Discord, no settings.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffsynth.models import flux_dit, flux_vae
from diffsynth.models.flux_text_encoder_clip import CLIPEncoderLayer, FluxTextEncoderClip
from diffsynth.models.flux_text_encoder_t5 import FluxTextEncoderT5
from diffsynth.models.general_modules import TimestepEmbeddings
from diffsynth.pipelines.flux_image import FluxImagePipeline, FluxImageUnit_PromptEmbedder, model_fn_flux_image
from diffsynth.utils.state_dict_converters import flux_dit as dit_keys
from diffsynth.utils.state_dict_converters import flux_text_encoder_clip as clip_keys
from diffsynth.utils.state_dict_converters import flux_text_encoder_t5 as t5_keys
from diffsynth.utils.state_dict_converters import flux_vae as vae_keys
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import T5Config, T5EncoderModel

from gen.checkpoint import Checkpoint
from gen.device import options_for, pick_device
from gen.engine import Engine, Options
from gen.errors import OutOfMemory, WeightsMissing
from gen.flux_sources import Parts
from gen.generator import FluxGenerator
from gen.hoisting import Decoder, HoistedModel, WatchedModel
from gen.text import Encoded, PromptCache
from gen.tokenizers import read_tokenizers
from gen.tuning import Tuning
from gen.vae import quicken_norms
from gen.weights import FluxShape, Weights, find_weights

log = logging.getLogger(__name__)
State = Mapping[str, Tensor]
PROMPTS_BYTES = 256 * 2**20  # of the host's memory for encoded prompts, about sixty


class SizedDiT(flux_dit.FluxDiT):  # type: ignore[misc]
    """FluxDiT of any shape: the same attribute names, so that DiffSynth's model function walks it."""

    def __init__(self, shape: FluxShape) -> None:
        nn.Module.__init__(self)
        dim = shape.dim
        self.input_dim = 64  # 16 latent channels x 2x2 patch
        self.pos_embedder = flux_dit.RoPEEmbedding(dim, 10000, list(shape.rope_axes))
        self.time_embedder = TimestepEmbeddings(256, dim)
        self.guidance_embedder = TimestepEmbeddings(256, dim)
        self.pooled_text_embedder = nn.Sequential(nn.Linear(shape.clip_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.context_embedder = nn.Linear(shape.t5_dim, dim)
        self.x_embedder = nn.Linear(self.input_dim, dim)
        self.blocks = nn.ModuleList(
            flux_dit.FluxJointTransformerBlock(dim, shape.heads) for _ in range(shape.joint_blocks)
        )
        self.single_blocks = nn.ModuleList(
            flux_dit.FluxSingleTransformerBlock(dim, shape.heads) for _ in range(shape.single_blocks)
        )
        self.final_norm_out = flux_dit.AdaLayerNormContinuous(dim)
        self.final_proj_out = nn.Linear(dim, 64)


class SizedClip(FluxTextEncoderClip):  # type: ignore[misc]
    """FluxTextEncoderClip with its number of heads given: input ids (B, 77) → pooled (B, clip_dim)."""

    def __init__(self, shape: FluxShape) -> None:
        super().__init__(shape.clip_dim, shape.clip_vocabulary, 77, 0, shape.clip_hidden)
        head_dim = shape.clip_dim // shape.clip_heads
        self.encoders = nn.ModuleList(
            CLIPEncoderLayer(shape.clip_dim, shape.clip_hidden, shape.clip_heads, head_dim)
            for _ in range(shape.clip_layers)
        )
        with torch.device("cpu"):  # a plain tensor, not a buffer: it must be real even when the rest is built on meta
            self.attn_mask = self.attention_mask(77)


class SizedT5(FluxTextEncoderT5):  # type: ignore[misc]
    """FluxTextEncoderT5 of any shape: input ids (B, N) → (B, N, t5_dim)."""

    def __init__(self, shape: FluxShape) -> None:
        config = T5Config(
            vocab_size=shape.t5_vocabulary,
            d_model=shape.t5_dim,
            d_kv=shape.t5_head_dim,
            d_ff=shape.t5_hidden,
            num_layers=shape.t5_layers,
            num_heads=shape.t5_heads,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
        T5EncoderModel.__init__(self, config)


class VAEAttention(flux_vae.ConvAttention):  # type: ignore[misc]
    """ConvAttention of one head, its numbers laid out as fast kernels ask: the slow one wants a GiB at 1024x1024."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, N, C) → (B, N, C)."""
        columns = hidden_states.transpose(1, 2)[..., None]
        q, k, v = (
            part(columns)[:, None, ..., 0].transpose(-1, -2).contiguous() for part in (self.to_q, self.to_k, self.to_v)
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        made: Tensor = self.to_out(seen[:, 0].transpose(1, 2)[..., None])
        return made[..., 0].transpose(1, 2)


class SizedVAEDecoder(flux_vae.FluxVAEDecoder):  # type: ignore[misc]
    """FluxVAEDecoder of any width: latents (B, 16, H/8, W/8) → pixels (B, 3, H, W) in [-1, 1]."""

    def __init__(self, shape: FluxShape) -> None:
        nn.Module.__init__(self)
        full, half, quarter, eighth = shape.vae_channels
        self.scaling_factor, self.shift_factor = 0.3611, 0.1159
        self.conv_in = nn.Conv2d(16, eighth, kernel_size=3, padding=1)
        blocks: list[nn.Module] = [*_middle(eighth)]
        for level, (inner, outer) in enumerate(((eighth, eighth), (eighth, quarter), (quarter, half), (half, full))):
            blocks += [
                _resnet(inner, outer),
                *(_resnet(outer, outer) for _ in range(2)),
            ]
            blocks += [flux_vae.UpSampler(outer)] if level < 3 else []
        self.blocks = nn.ModuleList(blocks)
        self.conv_norm_out = nn.GroupNorm(num_channels=full, num_groups=32, eps=1e-6)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(full, 3, kernel_size=3, padding=1)


class SizedVAEEncoder(flux_vae.FluxVAEEncoder):  # type: ignore[misc]
    """FluxVAEEncoder of any width: pixels (B, 3, H, W) in [-1, 1] → latents (B, 16, H/8, W/8)."""

    def __init__(self, shape: FluxShape) -> None:
        nn.Module.__init__(self)
        full, half, quarter, eighth = shape.vae_channels
        self.scaling_factor, self.shift_factor = 0.3611, 0.1159
        self.conv_in = nn.Conv2d(3, full, kernel_size=3, padding=1)
        blocks: list[nn.Module] = []
        for level, (inner, outer) in enumerate(((full, full), (full, half), (half, quarter), (quarter, eighth))):
            blocks += [_resnet(inner, outer), _resnet(outer, outer)]
            blocks += [flux_vae.DownSampler(outer, padding=0, extra_padding=True)] if level < 3 else []
        self.blocks = nn.ModuleList([*blocks, *_middle(eighth)])
        self.conv_norm_out = nn.GroupNorm(num_channels=eighth, num_groups=32, eps=1e-6)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(eighth, 32, kernel_size=3, padding=1)


def _middle(channels: int) -> tuple[nn.Module, ...]:
    attention = flux_vae.VAEAttentionBlock(1, channels, channels, 1, eps=1e-6)
    with_biases = dict.fromkeys(("bias_q", "bias_kv", "bias_out"), True)
    attention.transformer_blocks = nn.ModuleList([VAEAttention(channels, 1, channels, **with_biases)])
    return _resnet(channels, channels), attention, _resnet(channels, channels)


def _resnet(channels_in: int, channels_out: int) -> nn.Module:
    block: nn.Module = flux_vae.ResnetBlock(channels_in, channels_out, eps=1e-6)
    return block


_PARTS: tuple[tuple[str, Callable[[FluxShape], nn.Module], Callable[[State], State], str], ...] = (
    ("clip", SizedClip, clip_keys.FluxTextEncoderClipStateDictConverter, "text_encoder_1"),
    ("t5", SizedT5, t5_keys.FluxTextEncoderT5StateDictConverter, "text_encoder_2"),
    ("dit", SizedDiT, dit_keys.FluxDiTStateDictConverter, "dit"),
    ("vae_encoder", SizedVAEEncoder, vae_keys.FluxVAEEncoderStateDictConverter, "vae_encoder"),
    ("vae_decoder", SizedVAEDecoder, vae_keys.FluxVAEDecoderStateDictConverter, "vae_decoder"),
)


def build_pipeline(weights: Weights, *, device: torch.device, dtype: torch.dtype) -> FluxImagePipeline:
    """DiffSynth's pipeline holding the model of `weights`; raise WeightsMissing when a file does not fit its shape."""
    pipe = _empty_pipeline(weights, device=device, dtype=dtype)
    bar = tqdm(_PARTS, desc=f"Loading {weights.profile.name}", unit="part", leave=False, disable=None)
    for name, build, convert, place in bar:
        files = _files(weights, name)
        state = {key: tensor.to(device, dtype) for key, tensor in convert(_read(files)).items()}
        setattr(pipe, place, _fill(build, weights.shape, state, files[0]))
    pipe.model_fn = WatchedModel(model_fn_flux_image, scheduler=pipe.scheduler)
    return pipe.eval().requires_grad_(False)


def build_engine(weights: Weights, options: Options) -> tuple[FluxImagePipeline, Engine]:
    """DiffSynth's pipeline with shells where its models have blocks, and the engine that visits them."""
    pipe = _empty_pipeline(weights, device=options.device, dtype=options.dtype)
    with torch.device("meta"):
        modules = {name: build(weights.shape).requires_grad_(False) for name, build, _, _ in _PARTS}
    for name in ("vae_decoder", "vae_encoder"):
        quicken_norms(modules[name], options.device)
    checkpoints = {name: Checkpoint(_files(weights, name), convert) for name, _, convert, _ in _PARTS}
    parts = Parts(checkpoints=checkpoints, **modules)
    engine = Engine(weights, parts, options)
    guests = engine.guests(parts)
    modules |= guests | {"vae_decoder": Decoder(engine, guests["vae_decoder"]), "t5": engine.streamed_t5()}
    for name, _, _, place in _PARTS:
        setattr(pipe, place, modules[name])
    pipe.model_fn = HoistedModel(model_fn_flux_image, engine, scheduler=pipe.scheduler)
    return pipe.eval(), engine


def _empty_pipeline(weights: Weights, *, device: torch.device, dtype: torch.dtype) -> FluxImagePipeline:
    pipe = FluxImagePipeline(device=device, torch_dtype=dtype)
    pipe.tokenizer_1, pipe.tokenizer_2 = read_tokenizers(weights)
    prompts = PromptCache(PROMPTS_BYTES)
    for unit in pipe.units:
        if isinstance(unit, FluxImageUnit_PromptEmbedder):
            unit.encode_prompt = _remembering(prompts, unit.encode_prompt)
    return pipe


def _remembering(prompts: PromptCache, encode: Callable[..., Encoded]) -> Callable[..., Encoded]:
    """DiffSynth's encoding of a prompt, skipped for a prompt that is remembered."""

    def encoded(*, prompt: str, device: torch.device, t5_sequence_length: int, **rest: Any) -> Encoded:
        def make() -> Encoded:
            made = encode(prompt=prompt, device=device, t5_sequence_length=t5_sequence_length, **rest)
            return tuple(tensor.cpu() for tensor in made)

        return tuple(tensor.to(device) for tensor in prompts.encode(prompt, f"{t5_sequence_length} tokens", make))

    return encoded


def _files(weights: Weights, part: str) -> tuple[Path, ...]:
    one = {"dit": weights.dit, "vae_encoder": weights.vae, "vae_decoder": weights.vae}
    return (one[part],) if part in one else weights.clip if part == "clip" else weights.t5


def build_velocity() -> Callable[..., Tensor]:
    """DiffSynth's model function: keyword arguments dit, latents, timestep, … → velocity, for training."""
    function: Callable[..., Tensor] = model_fn_flux_image
    return function


def _read(files: tuple[Path, ...]) -> State:
    state: dict[str, Tensor] = {}
    for path in files:
        try:
            state.update(load_file(path))
        except Exception as error:
            raise WeightsMissing(f"{path} cannot be loaded: {error}.") from error
    return state


def _fill(build: Callable[[FluxShape], nn.Module], shape: FluxShape, state: State, path: Path) -> nn.Module:
    """Build a module without memory of its own and give it the tensors of `state`."""
    with torch.device("meta"):
        module = build(shape)
    try:
        module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1:2] or [str(error)]
        raise WeightsMissing(f"{path} does not fit the model's shape: {reason[0].strip()[:300]}") from error
    return module


def load_generator(
    folder: Path, *, device: str | None = None, tuning: Tuning | None = None, loras: Path | None = None
) -> FluxGenerator:
    """Load the model in `folder`; the device is "cuda", "mps" or "cpu", by default the best that is there.

    A card computes in bfloat16, a CPU in float32 with one thread, so that the same seed draws the same pixels on many
    cores and few. The streamed engine is for cards; on a CPU, or for the small demo model, only if `tuning` asks for a
    precision or a budget. `loras` is the folder of LoRA files, by default `loras` in `folder`. Raise DeviceMissing,
    OutOfMemory for a budget too small, or WeightsMissing naming the file at fault.
    """
    weights, tuning = find_weights(folder), tuning or Tuning()
    place = pick_device(device)
    dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
    if place.type == "cpu":
        # Sums are split by the number of threads: two drew other pixels than one, and twenty times slower beside an
        # event loop and a browser on two cores, because they wait by spinning (2026-11).
        torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # DiffSynth prints while it loads
            if tuning.is_plain and (place.type != "cuda" or weights.profile.is_demo):
                generator = FluxGenerator(weights, build_pipeline(weights, device=place, dtype=dtype), loras=loras)
            else:
                built = build_engine(weights, options_for(tuning, place, dtype))
                generator = FluxGenerator(weights, *built, loras=loras)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"{weights.profile.name} does not fit on {place}: {str(error).splitlines()[0]}") from error
    log.info("Loaded %s on %s in %s", weights.profile.name, place, dtype)
    return generator
