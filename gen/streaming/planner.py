"""From a byte budget to a plan: what rests on the card, what streams, in which pieces pictures are decoded.

Pure functions of budget, shape, picture, card and precision. All plans of one model stand on a ladder: each rung holds
more on the card and is no slower; the last rung that fits the budget is the plan, so more memory never makes a plan
worse. Text, DiT and VAE never run at once: the peak is what stays plus the largest of the three. Knows no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gen.errors import InvalidRequest, OutOfMemory
from gen.message import msg
from gen.streaming import sizes
from gen.streaming.cards import GIB, HOPPER, Card
from gen.streaming.sizes import Precision, Wanted
from gen.weights import FluxShape

SMALL_TILE, LARGE_TILE = 256, 592  # pixels a side; four of the large cover 1024x1024, of 576 it would be nine
_MIB = 2**20
# What no formula gives, measured on an H100 in 2026-11 unless it says estimate
_EFFICIENCY = 0.735  # of the roofline: a float8 step took 0.0833 s where GEMM and attention alone take 0.0612
_STREAMING_COST = 0.02  # of compute, while every block streams: copies take memory bandwidth from kernels
_ROOM = 0.8  # of compute, estimate: copies that take no more hide well, uneven as blocks are
_TWO_SLOTS_COST = 0.05  # of the copies, estimate: with a third slot uneven blocks even out
_TEXT_SECONDS = 0.030  # launches of both encoders
_VAE_FLOP = 0.050 * 807e12  # a megapixel untiled, in seconds times the card's bfloat16 FLOP/s
_TILED = {None: 1.0, LARGE_TILE: 2.1, SMALL_TILE: 5.1}  # decoding time over untiled
_VAE_BYTES = 160 * _MIB  # weights and workspace of FLUX.1's
_VAE_PIXEL_BYTES = 2200  # of what is decoded at once
_SLACK_BYTES = 96 * _MIB  # cuBLAS workspaces (40 MiB on Hopper), prompt, latents
_SLACK_SHARE = 0.29  # of the widest phase: what the allocator cannot use again (H200, at 2 and at 6.8 GiB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The peak of PyTorch's reserved memory in its parts, bytes. The CUDA context (0.3-0.5 GiB) comes on top."""

    slots: int
    blocks: int  # resident, like all weights here with their LoRA branches
    text: int  # resident encoders
    modulation: int  # resident weights
    table: int  # all steps' modulation
    embedders: int  # and the last linear
    graph: int  # a recorded step's activations
    text_phase: int
    dit_phase: int
    vae_phase: int
    slack: int

    @property
    def stays(self) -> int:
        """What is on the card in every phase."""
        return self.slots + self.blocks + self.text + self.modulation + self.table + self.embedders + self.graph

    @property
    def peak(self) -> int:
        """The most that is reserved at any moment."""
        return self.stays + max(self.text_phase, self.dit_phase, self.vae_phase) + self.slack


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """What rests on the card, before a budget is looked at."""

    resident: tuple[int, ...] = ()  # blocks that rest on the card: indices over joint then single blocks
    slots: int = 2  # 0 where nothing streams
    text_resident: bool = False  # both text encoders, or streamed for every new prompt
    modulation_resident: bool = False  # its weights, or streamed once a picture
    vae_tile: int | None = SMALL_TILE  # pixels a side; None decodes in one piece
    recorded: bool = False  # a step is a graph, which holds a step's activations; only where nothing streams


def resting(blocks: tuple[int, ...], *, recorded: bool = True) -> Rung:
    """All of a model on the card: `blocks` are all of its blocks."""
    return Rung(
        resident=blocks, slots=0, text_resident=True, modulation_resident=True, vae_tile=None, recorded=recorded
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Expected times."""

    step: float
    text: float  # of a new prompt
    modulation: float  # a picture's table
    vae: float
    picture: float  # new prompt, table, all steps, decoding; without the PNG


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one model draws pictures up to one size within one budget."""

    budget_bytes: int
    wanted: Wanted
    precision: Precision
    blocks: int  # joint and single
    rung: Rung
    memory: Memory
    seconds: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Makes the plans of one model on one card."""

    shape: FluxShape
    card: Card
    precision: Precision = Precision.FLOAT8

    def plan(self, budget_bytes: int, wanted: Wanted) -> Plan:
        """The best plan within the budget; raise OutOfMemory naming the smallest that works, or the card's memory."""
        if budget_bytes > self.card.memory_bytes:
            raise OutOfMemory(
                msg("A budget of {budget} is more than {card} has: {memory}."),
                budget=gib(budget_bytes),
                card=self.card.name,
                memory=gib(self.card.memory_bytes),
            )
        plans = list(self._plans(budget_bytes, wanted))
        fitting = [plan for plan in plans if plan.memory.peak <= budget_bytes]
        if not fitting:
            least = min(plan.memory.peak for plan in plans)
            raise OutOfMemory(
                msg(
                    "A budget of {budget} is too small for {width}x{height} pixels in {precision}: "
                    "the smallest that works is {least}."
                ),
                budget=gib(budget_bytes),
                width=wanted.width,
                height=wanted.height,
                precision=self.precision,
                least=gib(_round_up(least)),
            )
        return fitting[-1]

    def smallest_budget(self, wanted: Wanted) -> int:
        """The fewest bytes with which `plan` succeeds on a card that has them."""
        return min(plan.memory.peak for plan in self._plans(0, wanted))

    def _plans(self, budget_bytes: int, wanted: Wanted) -> Iterator[Plan]:
        """All rungs from the least memory to the most speed."""
        for rung in self._ladder(wanted):
            yield Plan(
                budget_bytes=budget_bytes,
                wanted=wanted,
                precision=self.precision,
                blocks=self.shape.joint_blocks + self.shape.single_blocks,
                rung=rung,
                memory=self._memory(rung, wanted),
                seconds=self._seconds(rung, wanted),
            )

    def _ladder(self, wanted: Wanted) -> Iterator[Rung]:
        """First blocks until their copies hide behind compute, larger tiles, some blocks more, no tiles, and the rest.

        A resident block saves a copy a step, an encoder one a picture. On an H100 a GiB of blocks saves 0.4 s a picture
        until copies hide, then 0.01; the larger tile 0.2 s for 0.7 GiB; no tiles 0.05 s for 1.5 more.
        """
        small, large = (_tile(wanted, side) for side in (SMALL_TILE, LARGE_TILE))
        yield Rung(vae_tile=small)
        spreads = list(_spreads(self._blocks(wanted)))
        hidden, easily = (self._first_hidden(spreads, wanted, room=room) for room in (1.0, _ROOM))
        for resident in spreads[: hidden + 1]:
            yield Rung(resident=resident, slots=3, vae_tile=small)
        for resident in spreads[hidden : easily + 1]:
            yield Rung(resident=resident, slots=3, vae_tile=large)
        for resident in spreads[easily:]:
            yield Rung(resident=resident, slots=3, vae_tile=None)
        every = spreads[-1]
        yield Rung(resident=every, slots=3, vae_tile=None, text_resident=True)
        yield resting(every, recorded=False)
        yield resting(every)

    def _first_hidden(self, spreads: Sequence[tuple[int, ...]], wanted: Wanted, *, room: float) -> int:
        """The first of the spreads whose copies take at most this share of the compute."""
        limit = room * self._compute_seconds(wanted)
        return next(index for index, spread in enumerate(spreads) if self._copy_seconds(spread, wanted) <= limit)

    def _blocks(self, wanted: Wanted) -> tuple[int, ...]:
        return sizes.block_bytes(self.shape, self.precision, lora_rank=wanted.lora_rank)

    def _copy_seconds(self, resident: tuple[int, ...], wanted: Wanted) -> float:
        blocks = self._blocks(wanted)
        return (sum(blocks) - sum(blocks[index] for index in resident)) / self.card.link_bytes_s

    def _compute_seconds(self, wanted: Wanted) -> float:
        rate = self.card.float8_flops if self.precision is Precision.FLOAT8 else self.card.bfloat16_flops
        gemm = sizes.gemm_flops(self.shape, wanted) / rate
        return (gemm + sizes.attention_flops(self.shape, wanted) / self.card.attention_flops) / _EFFICIENCY

    def _seconds(self, rung: Rung, wanted: Wanted) -> Seconds:
        link, compute = self.card.link_bytes_s, self._compute_seconds(wanted)
        copies, whole = (self._copy_seconds(resident, wanted) for resident in (rung.resident, ()))
        uneven = _TWO_SLOTS_COST if rung.slots == 2 else 0.0
        step = max(compute * (1 + _STREAMING_COST * copies / whole), copies * (1 + uneven))
        text = _TEXT_SECONDS + sizes.text_flops(self.shape) / self.card.bfloat16_flops
        if not rung.text_resident:
            text = max(text, sizes.text_bytes(self.shape, self.precision) / link)
        modulation = 0.0 if rung.modulation_resident else sizes.modulation_bytes(self.shape) / link
        width = (self.shape.vae_channels[0] / 128) ** 2  # FLOPs go with the square of the channels
        vae = _VAE_FLOP / self.card.bfloat16_flops * width * _pixels(wanted) / _MIB * _TILED[rung.vae_tile]
        picture = text + modulation + wanted.steps * step + vae
        return Seconds(step=step, text=text, modulation=modulation, vae=vae, picture=picture)

    def _memory(self, rung: Rung, wanted: Wanted) -> Memory:
        shape, precision, rank = self.shape, self.precision, wanted.lora_rank
        blocks = self._blocks(wanted)
        text, dit, vae = self._text_phase(rung), self._dit_phase(wanted), self._vae_phase(rung, wanted)
        keeps_heads = self.card.capability == HOPPER and precision is Precision.FLOAT8
        return Memory(
            slots=rung.slots * sizes.slot_bytes(shape, precision, lora_rank=rank),
            blocks=sum(blocks[index] for index in rung.resident),
            text=sizes.text_bytes(shape, precision) if rung.text_resident else 0,
            modulation=sizes.modulation_bytes(shape, lora_rank=rank) if rung.modulation_resident else 0,
            table=sizes.table_bytes(shape, wanted),
            embedders=sizes.embedder_bytes(shape),
            graph=dit + sizes.recording_bytes(shape, wanted, keeps_heads=keeps_heads) if rung.recorded else 0,
            text_phase=text,
            dit_phase=dit,
            vae_phase=vae,
            slack=_SLACK_BYTES + math.ceil(_SLACK_SHARE * max(text, dit, vae)),
        )

    def _text_phase(self, rung: Rung) -> int:
        clip = 0 if rung.text_resident else sizes.clip_bytes(self.shape)
        return sizes.text_activation_bytes(self.shape) + clip

    def _dit_phase(self, wanted: Wanted) -> int:
        unpacked = 0
        if self.precision is Precision.FLOAT8 and not self.card.has_float8:
            unpacked = 2 * 7 * self.shape.dim**2  # the widest linear in bfloat16
        return sizes.dit_activation_bytes(self.shape, wanted) + unpacked

    def _vae_phase(self, rung: Rung, wanted: Wanted) -> int:
        channels = self.shape.vae_channels[0] / 128  # over FLUX.1's
        tile = rung.vae_tile
        pixels = _pixels(wanted) if tile is None else min(tile, wanted.width) * min(tile, wanted.height)
        inside = math.ceil(_VAE_BYTES * channels**2 + _VAE_PIXEL_BYTES * channels * pixels)
        return inside + 24 * _pixels(wanted)  # three channels of the blended picture, in float32, twice


def parse_budget(text: str, *, free_bytes: int) -> int:
    """Read "6.8GiB", "6.8" (GiB), "900 MiB" or "all" (what is free) as bytes; raise InvalidRequest otherwise."""
    if text.strip().lower() == "all":
        return free_bytes
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)\s*(GiB|GB|MiB|MB|)", text.strip(), re.IGNORECASE)
    units = {"": GIB, "gib": GIB, "gb": 10**9, "mib": _MIB, "mb": 10**6}
    if found is None or float(found[1]) == 0:
        raise InvalidRequest(f"A budget is a size such as 6.8GiB, 900MiB, or all; it is {text[:40]!r}.")
    return round(float(found[1]) * units[found[2].lower()])


def gib(count: int) -> str:
    """Bytes as people read them: `6.80 GiB`."""
    return f"{count / GIB:.2f} GiB"


def _round_up(count: int) -> int:
    """To a hundredth of a GiB, so that the number that an error names works when it is typed."""
    return math.ceil(count * 100 / GIB) * GIB // 100 + 1


def _pixels(wanted: Wanted) -> int:
    return wanted.width * wanted.height


def _tile(wanted: Wanted, side: int) -> int | None:
    return None if max(wanted.width, wanted.height) <= side else side


def _spreads(blocks: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Sets of resident blocks from none to all, each of more bytes and evenly spread, so that the link never idles."""
    most = -1
    for share in range(len(blocks) + 1):
        resident = _spread(blocks, share / len(blocks))
        size = sum(blocks[index] for index in resident)
        if size > most:
            most = size
            yield resident


def _spread(blocks: tuple[int, ...], share: float) -> tuple[int, ...]:
    """Blocks that hold about `share` of the bytes: each adds its share to a debt, and one that the debt pays rests."""
    resident, debt = [], 0.0
    for index, size in enumerate(blocks):
        debt += share * size
        if debt >= size * (1 - 1e-9):
            resident.append(index)
            debt -= size
    return tuple(resident)
