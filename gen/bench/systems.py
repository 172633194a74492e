"""The systems that `bench gpu` measures, by name: Kiln within a budget, and DiffSynth's and diffusers' ways beside it.

Peers are run as their own documents say, on the same files where they read files. Each is built in a process of its
own. This is the one place beside `gen.flux` that imports diffsynth: to measure it, not to draw with it. Knows no
clock and no results.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from gen.bench.measuring import Draw, encode
from gen.bench.synth import synthesize_lora
from gen.errors import GenerationError
from gen.flux import build_pipeline, load_generator
from gen.request import LoraUse
from gen.weights import Weights, find_weights

GIB = 2**30
FLOAT8, BFLOAT16 = torch.float8_e4m3fn, torch.bfloat16
_PARTS = ("text_encoder_1", "text_encoder_2", "dit", "vae_encoder", "vae_decoder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one system is to draw, and with what."""

    system: str
    weights: Path
    width: int
    height: int
    device: str  # "cuda" or "cpu"
    budget_gib: float | None = None  # None: all resident, or as much as the system takes
    cache: Path | None = None  # of Kiln's packed weights and compiled graphs


def build(job: Job) -> Draw:
    """Load the system; raise GenerationError with a plain sentence if it cannot run here."""
    return _BUILDERS[job.system](job)


def tells_when_done(job: Job) -> bool:
    """Whether the system tells of a step when the card has done it, or else when it has been queued there."""
    return _BUILDERS[job.system] is _kiln


def _kiln(job: Job) -> Draw:
    """Kiln; as "kiln-lora" each picture wears another LoRA than the one before, which counts as part of its prompt."""
    from gen.streaming.sizes import Precision
    from gen.tuning import Tuning

    loras = _loras(job) if job.system.endswith("lora") else None
    precision = Precision.BFLOAT16 if job.system.endswith("bfloat16") else Precision.FLOAT8
    budget = "" if job.budget_gib is None else f"{job.budget_gib:.3f}GiB"
    generator = load_generator(
        job.weights, device=job.device, tuning=Tuning(budget=budget, precision=precision, cache=job.cache), loras=loras
    )

    def draw(prompt: str, *, seed: int, steps: int, on_step: Callable[[], None]) -> bytes:
        request = generator.profile.request(prompt, seed=seed, size=f"{job.width}x{job.height}", steps=steps)
        if loras is not None:
            request = replace(request, loras=(LoraUse(name=f"synth-{seed % 2}", strength=1.0),))
        return generator.draw(request, on_step=lambda _: on_step()).png

    return draw


def _loras(job: Job) -> Path:
    """A folder of two LoRAs, of rank 16 on every linear, as many trainers make them."""
    folder = (job.cache or job.weights) / "synth-loras"
    for number in range(2):
        synthesize_lora(folder / f"synth-{number}.safetensors", find_weights(job.weights).shape, rank=16, seed=number)
    return folder


def _resident(job: Job) -> Draw:
    """DiffSynth, bfloat16, everything on the card, eager: what its pipeline does when memory does not matter."""
    weights = find_weights(job.weights)
    return _draw_with(build_pipeline(weights, device=torch.device(job.device), dtype=BFLOAT16), job, weights)


def _offloaded(job: Job) -> Draw:
    """Whole components move to the card in turn; with "float8" the DiT's layers hold float8 and cast at each call.

    The two ways to save memory in DiffSynth 1.x, `enable_cpu_offload` and `dit.quantize`, rebuilt with what 2.x has.
    """
    weights = find_weights(job.weights)
    pipe = build_pipeline(weights, device=torch.device("cpu"), dtype=BFLOAT16)
    managed = ["dit"] if "float8" in job.system else []
    for part in managed:
        _manage(pipe, part, stored=FLOAT8, works_on=job.device, moves_whole=True)
    pipe = _on(pipe, job.device)
    load_managed = pipe.load_models_to_device

    def load(names: Iterable[str]) -> None:
        load_managed([name for name in names if name in managed])
        for part in set(_PARTS) - set(managed):
            getattr(pipe, part).to(job.device if part in names else "cpu")

    pipe.load_models_to_device = load
    draw = _draw_with(pipe, job, weights)

    def draw_whole(prompt: str, *, seed: int, steps: int, on_step: Callable[[], None]) -> bytes:
        load(("text_encoder_1", "text_encoder_2"))  # its unit for prompts does not ask for them
        return draw(prompt, seed=seed, steps=steps, on_step=on_step)

    return draw_whole


def _low_vram(job: Job) -> Draw:
    """DiffSynth's float8 low-VRAM recipe as its examples have it: everything float8, layers converted as they run."""
    weights = find_weights(job.weights)
    pipe = build_pipeline(weights, device=torch.device("cpu"), dtype=BFLOAT16)
    limit = job.budget_gib if job.device == "cuda" else None  # it asks the card what is free
    for part in _PARTS:
        _manage(pipe, part, stored=FLOAT8, works_on=job.device, limit_gib=limit)
    return _draw_with(_on(pipe, job.device), job, weights)


def _manage(
    pipe: Any,
    part: str,
    *,
    stored: torch.dtype,
    works_on: str,
    moves_whole: bool = False,
    limit_gib: float | None = None,
) -> None:
    """Put DiffSynth's memory management around one model, as its loader does; the model rests on the host."""
    from diffsynth.core.vram.layers import enable_vram_management
    from diffsynth.models.model_loader import ModelPool

    model: nn.Module = getattr(pipe, part).to(stored)
    base = next(kind for kind in type(model).__mro__ if kind.__module__.startswith("diffsynth."))
    states: dict[str, Any] = {
        "offload_device": "cpu",
        "onload_device": works_on if moves_whole else "cpu",
        "preparing_device": works_on,
        "computation_device": works_on,
    }
    states |= {
        "offload_dtype": stored,
        "onload_dtype": stored,
        "preparing_dtype": stored,
        "computation_dtype": BFLOAT16,
    }
    layers = ModelPool().fetch_module_map(f"{base.__module__}.{base.__name__}", states)
    setattr(pipe, part, enable_vram_management(model, layers, vram_config=states, vram_limit=limit_gib))


def _on(pipe: Any, device: str) -> Any:
    """The pipeline's own idea of where it works, without moving what its management has placed."""
    pipe.device = device
    pipe.device_type = torch.device(device).type
    pipe.vram_management_enabled = pipe.check_vram_management_state()
    return pipe


def _draw_with(pipe: Any, job: Job, weights: Weights) -> Draw:
    def draw(prompt: str, *, seed: int, steps: int, on_step: Callable[[], None]) -> bytes:
        def told(timesteps: Iterable[Any]) -> Iterator[Any]:
            for timestep in timesteps:
                yield timestep
                on_step()

        with torch.inference_mode():
            picture: Image.Image = pipe(
                prompt=prompt,
                seed=seed,
                width=job.width,
                height=job.height,
                num_inference_steps=steps,
                t5_sequence_length=weights.shape.t5_tokens,
                progress_bar_cmd=told,
            )
        return encode(picture)

    return draw


def _diffusers(job: Job) -> Draw:
    """diffusers' DiT alone, with random weights of the same shape: prompts and pictures are left out.

    "compiled" is `compile_repeated_blocks` with all in bfloat16 on the card; otherwise leaf-level group offload with a
    stream and float8 layerwise casting, both as its memory and speed guides have them.
    """
    if importlib.util.find_spec("diffusers") is None:
        raise GenerationError("diffusers is not installed: pip install diffusers, to measure it too.")
    from diffusers import FluxTransformer2DModel

    shape = find_weights(job.weights).shape
    device = torch.device(job.device)
    compiled = job.system.endswith("compiled")
    with torch.device(device if compiled else "cpu"):
        torch.set_default_dtype(BFLOAT16)
        dit = FluxTransformer2DModel(
            num_layers=shape.joint_blocks,
            num_single_layers=shape.single_blocks,
            attention_head_dim=shape.dim // shape.heads,
            num_attention_heads=shape.heads,
            joint_attention_dim=shape.t5_dim,
            pooled_projection_dim=shape.clip_dim,
            guidance_embeds=True,
            axes_dims_rope=shape.rope_axes,
        )
        torch.set_default_dtype(torch.float32)
    dit = dit.eval().requires_grad_(False)
    if compiled:
        dit.compile_repeated_blocks(fullgraph=True)
    else:
        dit.enable_layerwise_casting(storage_dtype=FLOAT8, compute_dtype=BFLOAT16)
        on_card = device.type == "cuda"
        dit.enable_group_offload(
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=on_card,
            record_stream=on_card,
        )
    return _steps_of(dit, job)


def _steps_of(dit: Any, job: Job) -> Draw:
    """A "picture" of the DiT's steps alone: what comes back is a grey PNG."""
    shape, device = find_weights(job.weights).shape, torch.device(job.device)
    down, across = job.height // 16, job.width // 16
    ids = torch.zeros(down, across, 3, device=device)
    ids[..., 1], ids[..., 2] = torch.arange(down)[:, None], torch.arange(across)[None]

    def draw(prompt: str, *, seed: int, steps: int, on_step: Callable[[], None]) -> bytes:
        noise = torch.Generator(device).manual_seed(seed)
        latents = torch.randn(1, down * across, 64, generator=noise, device=device, dtype=BFLOAT16)
        rest = {
            "encoder_hidden_states": torch.zeros(1, shape.t5_tokens, shape.t5_dim, device=device, dtype=BFLOAT16),
            "pooled_projections": torch.zeros(1, shape.clip_dim, device=device, dtype=BFLOAT16),
            "guidance": torch.full((1,), 3.5, device=device),
            "img_ids": ids.view(-1, 3),
            "txt_ids": torch.zeros(shape.t5_tokens, 3, device=device),
        }
        with torch.inference_mode():
            for step in range(steps):
                timestep = torch.full((1,), 1 - step / steps, device=device, dtype=BFLOAT16)
                velocity = dit(hidden_states=latents, timestep=timestep, return_dict=False, **rest)[0]
                latents = latents - velocity / steps
                on_step()
        file = io.BytesIO()
        Image.new("RGB", (16, 16), "grey").save(file, format="PNG")
        return file.getvalue()

    return draw


_BUILDERS: dict[str, Callable[[Job], Draw]] = {
    "kiln": _kiln,
    "kiln-bfloat16": _kiln,
    "kiln-lora": _kiln,
    "diffsynth-bfloat16": _resident,
    "diffsynth-bfloat16-offload": _offloaded,
    "diffsynth-float8-offload": _offloaded,
    "diffsynth-low-vram": _low_vram,
    "diffusers-compiled": _diffusers,
    "diffusers-group-offload": _diffusers,
}
