"""What the planner must know of a card: its memory, its link and how fast it multiplies.

The figures of the H100 were measured (2026-11); all others are data sheets' dense peaks with float32 accumulation and
a link's usual yield, so a plan for them is an estimate. `gen.streaming.ceilings` measures the link that is there.
Knows no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

GIB = 2**30
HOPPER = (9, 0)  # compute capability of the cards where FlashAttention 4 may be used: H100, H200
_TERA, _GIGA = 1e12, 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One card; rates are what a long kernel or copy reaches, not what a picture does."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]  # CUDA compute capability; (0, 0) is the CPU
    link_bytes_s: float  # host to card, pinned memory
    bfloat16_flops: float  # GEMM
    float8_flops: float  # GEMM; equal to bfloat16's where there are no float8 tensor cores
    attention_flops: float
    is_link_measured: bool = False  # by this Kiln, on this machine; all else is of a table

    def __post_init__(self) -> None:
        """Raise ValueError unless every rate and the memory are positive."""
        rates = (self.link_bytes_s, self.bfloat16_flops, self.float8_flops, self.attention_flops)
        if self.memory_bytes <= 0 or not all(rate > 0 for rate in rates):
            raise ValueError(f"{self.name}: memory and rates must be above zero: {self.memory_bytes:,} B, {rates}")

    def with_link(self, bytes_s: float) -> Card:
        """The same card behind a link that was measured."""
        return replace(self, link_bytes_s=bytes_s, is_link_measured=True)

    @property
    def has_float8(self) -> bool:
        """Whether its tensor cores multiply float8: Ada (8.9), Hopper (9.0) and later."""
        return self.capability >= (8, 9)


# The longest name that is part of a card's own wins: TFLOP/s in bfloat16, in float8, in attention; GB/s of the link
_KNOWN: dict[str, tuple[float, float, float, float]] = {
    "H100": (807, 1534, 663, 53.8),  # measured, PCIe 5 x16
    "H200": (807, 1534, 663, 53.8),
    "A100": (312, 312, 250, 25),
    "L40S": (362, 733, 300, 25),
    "L4": (121, 242, 100, 25),
    "A10": (125, 125, 100, 25),
    "RTX 5090": (209, 419, 209, 54),
    "RTX 5080": (113, 225, 113, 54),
    "RTX 5070 Ti": (88, 176, 88, 54),
    "RTX 5070": (62, 124, 62, 54),
    "RTX 5060 Ti": (47, 95, 47, 27),
    "RTX 4090": (165, 330, 165, 25),
    "RTX 4080": (97, 195, 97, 25),
    "RTX 4070 Ti": (80, 160, 80, 25),
    "RTX 4070": (58, 116, 58, 25),
    "RTX 4060 Ti": (44, 88, 44, 13),
    "RTX 4060": (30, 60, 30, 13),
    "RTX 3090": (71, 71, 71, 25),
    "RTX 3080": (60, 60, 60, 25),
    "RTX 3070": (41, 41, 41, 25),
    "RTX 3060": (25.5, 25.5, 25.5, 25),
}
_NO_CARD = (0.15, 0.15, 0.15, 10)  # two CPU cores in float32; "the link" is a copy in memory
_UNKNOWN = (40, 80, 40, 13)  # about the slowest card that is sold with 8 GB


def known_card(name: str, *, memory_bytes: int, capability: tuple[int, int]) -> Card:
    """The card of that name with the table's rates; a cautious guess for one that the table lacks."""
    fits = [known for known in _KNOWN if known in name]
    rates = _KNOWN[max(fits, key=len)] if fits else _NO_CARD if capability == (0, 0) else _UNKNOWN
    bfloat16, float8, attention, link = rates
    return Card(
        name=name,
        memory_bytes=memory_bytes,
        capability=capability,
        link_bytes_s=link * _GIGA,
        bfloat16_flops=bfloat16 * _TERA,
        float8_flops=(float8 if capability >= (8, 9) else bfloat16) * _TERA,
        attention_flops=attention * _TERA,
    )
