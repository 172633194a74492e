"""DiffSynth's model function and the VAE's decoder as its pipeline calls them, with the engine behind them.

Knows DiffSynth's pipeline only by its calls. Knows no files and no requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel

from gen.attention import ORDER
from gen.checks import check_latents
from gen.engine import Engine
from gen.shells import Guest
from gen.vae import decode_tiled


class WatchedModel:
    """DiffSynth's model function; remembers what the finished picture is going to look like."""

    def __init__(self, model: Callable[..., Tensor], *, scheduler: Any) -> None:
        self._model, self._scheduler = model, scheduler
        self._positive: Tensor | None = None  # the first of two velocities, where there is a cfg_scale
        self.estimate: Tensor | None = None  # of the finished latents (1, 16, H/8, W/8), after each step

    def __call__(self, *, latents: Tensor, progress_id: int, cfg_scale: float = 1.0, **rest: Any) -> Tensor:
        """DiffSynth's own arguments → velocity (B, 16, H/8, W/8). It calls for the negative prompt last."""
        is_last = cfg_scale == 1.0 or "negative_prompt" in rest
        velocity = guided = self._run(latents=latents, progress_id=progress_id, is_last=is_last, **rest)
        if is_last and cfg_scale != 1.0 and self._positive is not None:
            guided = velocity + cfg_scale * (self._positive - velocity)
        self._positive = None if is_last else velocity
        # latents = (1 - sigma) picture + sigma noise, and the velocity is noise - picture
        self.estimate = latents - float(self._scheduler.sigmas[progress_id]) * guided
        return velocity

    def forget(self) -> None:
        """A picture has ended, in whatever way: let go of what was made for it."""
        self._positive = self.estimate = None

    def _run(self, *, is_last: bool, **arguments: Any) -> Tensor:
        """`is_last`: no other prompt follows in this step."""
        return self._model(**arguments)


class HoistedModel(WatchedModel):
    """The same with every step's modulation made beforehand, at the first step of a picture."""

    def __init__(self, model: Callable[..., Tensor], engine: Engine, *, scheduler: Any) -> None:
        super().__init__(model, scheduler=scheduler)
        self._engine = engine
        self._tables: list[tuple[Tensor, Tensor, Tensor]] = []  # pooled prompt, guidance, and the table of these

    def forget(self) -> None:
        """As `WatchedModel.forget`."""
        super().forget()
        self._tables.clear()

    def _run(self, *, is_last: bool, **arguments: Any) -> Tensor:
        dit, progress_id = arguments["dit"], arguments["progress_id"]
        pooled, guidance = arguments["pooled_prompt_emb"], arguments["guidance"]
        if pooled.shape[0] != 1:  # several prompts at once: their modulation is made at each step
            return self._model(**arguments)
        table = self._made(dit, pooled, guidance)
        if is_last and progress_id == len(self._scheduler.timesteps) - 1:
            self._engine.ends_soon()
        with self._engine.modulation.at(table, progress_id), sdpa_kernel(ORDER, set_priority=True):
            return self._engine.step(self._model, arguments)

    def _made(self, dit: Any, pooled: Tensor, guidance: Tensor) -> Tensor:
        """(steps, width): the table of this picture and prompt, made when it is first asked for."""
        for known_pooled, known_guidance, table in self._tables:
            if known_pooled is pooled and known_guidance is guidance:
                return table
        steps = self._scheduler.timesteps.to(device=pooled.device, dtype=pooled.dtype)
        conditioning = dit.time_embedder(steps, pooled.dtype) + dit.pooled_text_embedder(pooled)
        if dit.guidance_embedder is not None:
            conditioning = conditioning + dit.guidance_embedder(guidance * 1000, pooled.dtype)
        made = self._engine.modulation.table(conditioning)
        self._tables = [*self._tables[-1:], (pooled, guidance, made)]  # of two prompts at most
        return made


class Decoder(nn.Module):
    """The VAE's decoder as the pipeline calls it, in the pieces that the plan allows."""

    def __init__(self, engine: Engine, guest: Guest) -> None:
        super().__init__()
        self._engine, self._guest = engine, guest

    def forward(self, latents: Tensor, **_: Any) -> Tensor:
        """Latents (1, 16, H/8, W/8) → pixels (1, 3, H, W) in [-1, 1]; raise BadPicture if numbers overflowed."""
        check_latents(latents)
        pixels: Tensor
        with self._guest.here() as decoder:
            pixels = decode_tiled(decoder, latents, tile=self._engine.tile)
        return pixels
