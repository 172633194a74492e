"""The streamed engine of one FLUX model: its arena, slots and modulation, and the plan that they follow.

Takes a model's modules without memory and leaves in their place shells that weights visit; then keeps to a byte
budget picture by picture. Lives on the one GPU thread. Knows no DiffSynth (`gen.flux` does), no queue, no settings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen.adapting import Branches, fill, lay_out_branches
from gen.compiling import Compiled
from gen.errors import OutOfMemory
from gen.flux_blocks import Block, joint_block, single_block
from gen.flux_sources import Parts, dit_names, flux_sources, modulation_sources, stored_dtype, t5_names
from gen.modulation import Modulation
from gen.shells import FluxShell, Guest, Handoff, HostEmbedding
from gen.step_graph import StepGraph, record_on_card
from gen.streaming.arena import Arena
from gen.streaming.cards import Card
from gen.streaming.ceilings import card_of
from gen.streaming.packing import Packing, open_arena
from gen.streaming.planner import Planner, Rung, gib, resting
from gen.streaming.sizes import Precision, Wanted
from gen.streaming.slots import Slots
from gen.sums import ExactSums, FusedSums, has_float8_cores, pick_exact, pick_sums
from gen.t5 import StreamedT5, t5_layer
from gen.tuning import host_memory, most_pinned
from gen.weights import Weights

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a model is to run; what is None is chosen for the device."""

    device: torch.device
    dtype: torch.dtype  # of activations, norms and biases
    precision: Precision | None = None  # of linear layers' weights; None: like everything else
    budget_bytes: int | None = None  # of the card's memory; None: everything rests there
    compiled: bool = True
    cache: Path | None = None  # folder of packed weights and compiled graphs; None: neither is kept
    pinned_bytes: int | None = None  # at most; None: a share of the host's memory
    poison: bool = False  # overwrite a slot after every visit, to find races


class Engine:
    """One loaded model's weights and where they are."""

    def __init__(self, weights: Weights, parts: Parts, options: Options) -> None:
        self._options, self._shape = options, weights.shape
        self._most_pinned = most_pinned(options.pinned_bytes)
        stored = stored_dtype(options.precision, options.dtype)
        sources = list(flux_sources(parts, stored=stored, wide=options.dtype))
        self._layouts = {source.name: source.layout for source in sources}
        packing = Packing(
            title=weights.profile.name,
            sources=sources,
            files=(weights.dit, *weights.t5, *weights.clip, weights.vae),
            about={"precision": str(stored).removeprefix("torch."), "wide": str(options.dtype)},
        )
        self.arena = open_arena(packing, cache=options.cache, device=options.device)
        self.slots = Slots(self.arena, device=options.device, poison=options.poison)
        modulation = modulation_sources(parts.dit)
        self.dit, self.t5 = dit_names(parts.dit), t5_names(parts.t5)
        self._modulation_names = [name for source in modulation for name in source.entries]
        self.modulation, self._handoff = Modulation(modulation, self.slots), Handoff()
        self.rung: Rung | None = None
        records = options.compiled and options.device.type == "cuda"
        self._graph = StepGraph(record_on_card if records else None)
        self._beside, self._rank, self._is_beside = Arena(()), 0, True
        try:
            self.card = self._card_here()
            self._settle(self._first_rung(weights))
            self._furnish(parts)
        except BaseException:
            self.close()
            raise

    @property
    def planner(self) -> Planner:
        """Makes this model's plans."""
        return Planner(shape=self._shape, card=self.card, precision=self._options.precision or Precision.BFLOAT16)

    @property
    def is_narrow(self) -> bool:
        """True if sums are made of eight-bit numbers."""
        return has_float8_cores(self._options.device) and self._options.precision is Precision.FLOAT8

    @property
    def tile(self) -> int | None:
        """Side of the tiles in which pictures are decoded now, pixels; None: in one piece."""
        return self.rung.vae_tile if self.rung else None

    @contextmanager
    def running(self, wanted: Wanted, *, shrink: float = 1.0) -> Iterator[None]:
        """Keep to the plan for a picture within the budget times `shrink`, and leave nothing behind after an error.

        Raise OutOfMemory if the budget is too small for the picture.
        """
        try:
            self._prepare(wanted, shrink)
            yield
        except BaseException:
            self.recover()
            raise

    def has_plan(self, wanted: Wanted, *, shrink: float) -> bool:
        """True if there is a plan for a picture within the budget times `shrink`."""
        try:
            self._rung(self._options.budget_bytes or self.card.memory_bytes, wanted, shrink)
        except OutOfMemory:
            return False
        return True

    @contextmanager
    def exactly(self) -> Iterator[None]:
        """Sums in the activations' dtype instead of float8, with the same stored weights."""
        usual, graph = [shell.block for shell in self._shells], self._graph
        joint, single = self._blocks(ExactSums())
        for index, shell in enumerate(self._shells):
            shell.block = joint if index < self._shape.joint_blocks else single
        graph.forget()
        self._graph = StepGraph(None)
        try:
            yield
        finally:
            self._graph = graph
            for shell, block in zip(self._shells, usual, strict=True):
                shell.block = block

    def adapt(self, branches: Branches | None) -> None:
        """Draw with these LoRA branches on every block from now on, or with none.

        A set of the rank that is in use replaces its values; another rank costs new slots, and what is built for it the
        first time. Packed weights are never touched. Within a budget the next picture's plan makes room first.
        """
        rank = next(iter(branches.values()))[0].shape[0] if branches else 0
        self._graph.forget()
        self.slots.lay_beside(Arena(()))  # nothing reads the branches while they change
        self._is_beside, rung = False, self.rung
        if branches is None or rank != self._rank:
            self._beside.close()
            self._rank = -1  # whatever fails now, the next set is laid out anew
            self._beside = lay_out_branches(branches or {}, self._options.dtype)
            self._rank, self.rung = rank, None
            if self._options.device.type == "cuda":
                self.arena.make_room(self._beside.size, limit=self._most_pinned)
                self._beside.pin(self._beside.entries, limit=self._most_pinned - self.arena.pinned)
        fill(self._beside, branches or {})
        if self._options.budget_bytes is None:
            if rung is not None:
                self._settle(rung)
            self._lay_beside()

    def step(self, model: Callable[..., Tensor], arguments: Mapping[str, Any]) -> Tensor:
        """One call of DiffSynth's model function with its named arguments."""
        is_recorded = self.rung is not None and self.rung.recorded
        return self._graph(model, arguments) if is_recorded else model(**arguments)

    def ends_soon(self) -> None:
        """Say that the step that begins now is the picture's last: next on the card are the next picture's encoders."""
        self.slots.turn(self.dit, to=[*self.t5, *self._modulation_names])

    def _prepare(self, wanted: Wanted, shrink: float) -> None:
        if self._options.budget_bytes is not None:
            self._settle(self._rung(self._options.budget_bytes, wanted, shrink))
        self._lay_beside()
        self.slots.turn(self.dit, to=self.dit)

    def _rung(self, budget_bytes: int, wanted: Wanted, shrink: float) -> Rung:
        return self.planner.plan(round(budget_bytes * shrink), replace(wanted, lora_rank=self._rank)).rung

    def _lay_beside(self) -> None:
        """Bring new branches to the card, once a plan has made room for them."""
        if not self._is_beside:
            self.slots.lay_beside(self._beside)
            self._is_beside = True

    def recover(self) -> None:
        """Give back what a picture that ended early has left on the card: copies ahead, tables, cached memory."""
        self.slots.drop_ahead()
        self.modulation.forget()
        self._handoff.forget()
        self._graph.forget()
        if self._options.device.type == "cuda":
            torch.cuda.synchronize(self._options.device)
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Free the card and unpin the host's memory."""
        self._graph.forget()
        self.slots.close()
        self.arena.close()
        self._beside.close()
        self.modulation.forget()

    def _card_here(self) -> Card:
        """The card that the planner reckons with, its link measured where a block can be pinned."""
        device, block = self._options.device, self.dit[0]
        if device.type == "cuda":
            self.arena.pin([block], limit=self._most_pinned)
        pinned = self.arena[block].host if self.arena.is_pinned(block) else None
        return card_of(device, host_memory_bytes=host_memory(), pinned=pinned)

    def _first_rung(self, weights: Weights) -> Rung:
        everything = tuple(range(len(self.dit)))
        if self._options.budget_bytes is None:
            return resting(everything)
        profile = weights.profile
        wanted = Wanted(width=profile.width, height=profile.height, steps=profile.steps)
        plan = self.planner.plan(self._options.budget_bytes, wanted)
        log.info(
            "%d of %d blocks rest on the card within %s", len(plan.rung.resident), len(self.dit), gib(plan.budget_bytes)
        )
        return plan.rung

    def _settle(self, rung: Rung) -> None:
        """Place what the rung says; nothing moves if it is the rung that was settled last."""
        if rung == self.rung:
            return
        resident = {"dit", "t5", *(self.dit[index] for index in rung.resident)}
        resident |= {*self.t5, "clip"} if rung.text_resident else set()
        resident |= set(self._modulation_names) if rung.modulation_resident else set()
        streamed = [name for name in (*self.dit, *self._modulation_names, *self.t5) if name not in resident]
        size = max((self._size(name) for name in streamed), default=0)
        self.rung = None
        self._graph.forget()
        if self._options.device.type == "cuda":
            begun = time.perf_counter()
            self.arena.pin([*streamed, "clip", "vae_decoder"], limit=self._most_pinned - self._beside.pinned)
            pinned = gib(self.arena.pinned + self._beside.pinned)
            log.info("%s of the host's memory are pinned, after %.1f s", pinned, time.perf_counter() - begun)
        self.slots.settle(resident=resident, slots=rung.slots if streamed else 0, size=size)
        self.slots.route(self.t5, self._modulation_names, self.dit)
        self.slots.turn(self.dit, to=self.dit)
        self.rung = rung

    def _size(self, name: str) -> int:
        """Bytes of an entry with what lies beside it."""
        beside = self._beside.entries.get(name)
        return self._layouts[name].size + (beside.layout.size if beside else 0)

    def _furnish(self, parts: Parts) -> None:
        """Put shells where the modules have blocks, and the arena's tensors where they keep weights."""
        size = self._shape.dim // self._shape.heads
        sums = pick_sums(self._options.device, is_narrow=self.is_narrow, size=size)
        self.packages, (joint, single) = sums.packages, self._blocks(sums)
        count = self._shape.joint_blocks
        self._shells = [
            FluxShell(
                index,
                name,
                block=joint if index < count else single,
                is_last=index + 1 in (count, len(self.dit)),
                slots=self.slots,
                modulation=self.modulation,
                handoff=self._handoff,
            )
            for index, name in enumerate(self.dit)
        ]
        parts.dit.blocks, parts.dit.single_blocks = (
            nn.ModuleList(shells) for shells in (self._shells[:count], self._shells[count:])
        )
        with self.slots.visit("dit") as tensors:
            parts.dit.load_state_dict(dict(tensors), strict=True, assign=True)

    def _blocks(self, sums: ExactSums) -> tuple[Block, Block]:
        joint, single = joint_block(self._shape.heads, sums), single_block(self._shape.heads, sums)
        # Fused sums are kernels already: compiled they are no faster, and each size takes seconds (H200, 2026-11).
        is_fused = isinstance(sums, FusedSums) and self.is_narrow
        if is_fused or not self._options.compiled:
            return joint, single
        return replace(joint, run=Compiled(joint.run)), replace(single, run=Compiled(single.run))

    def streamed_t5(self) -> StreamedT5:
        """T5 as the pipeline calls it."""
        device, dtype = self._options.device, self._options.dtype
        tokens = self._layouts["t5.tokens"].views(self.arena["t5.tokens"].host)
        embedding = HostEmbedding(next(iter(tokens.values())), device=device, dtype=dtype)
        # Activations stay wide: T5's have outliers that eight bits lose, and its copies take longer than its sums.
        layer = t5_layer(self._shape.t5_heads, pick_exact(device))
        layer = Compiled(layer) if self._options.compiled else layer
        return StreamedT5(self.t5, embedding=embedding, layer=layer, slots=self.slots)

    def guests(self, parts: Parts) -> dict[str, Guest]:
        """CLIP and both halves of the VAE, which are on the card while they are called."""
        return {
            name: Guest(name, getattr(parts, name), slots=self.slots) for name in ("clip", "vae_decoder", "vae_encoder")
        }
