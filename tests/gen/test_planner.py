"""Plans hold for every budget, size, shape and card: never over budget, never worse with more memory."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen.errors import InvalidRequest, OutOfMemory
from gen.streaming import sizes
from gen.streaming.cards import GIB, Card, known_card
from gen.streaming.planner import Memory, Planner, gib, parse_budget, resting
from gen.streaming.sizes import Precision, Wanted
from gen.weights import DEMO_WEIGHTS, FluxShape, find_weights

H100 = known_card("NVIDIA H100 80GB HBM3", memory_bytes=80 * GIB, capability=(9, 0))
SQUARE = Wanted(width=1024, height=1024)
DEMO = find_weights(DEMO_WEIGHTS).shape
RESULTS = Path(__file__).parents[2] / "bench" / "results"

sides = st.integers(8, 128).map(lambda units: 16 * units)
wanted = st.builds(
    Wanted, width=sides, height=sides, steps=st.integers(1, 50), lora_rank=st.sampled_from((0, 16, 64, 256))
)
cards = st.builds(
    Card,
    name=st.just("a card"),
    memory_bytes=st.just(141 * GIB),
    capability=st.sampled_from(((0, 0), (8, 6), (8, 9), (9, 0))),
    link_bytes_s=st.floats(1e9, 1e11),
    bfloat16_flops=st.floats(1e11, 2e15),
    float8_flops=st.floats(1e11, 4e15),
    attention_flops=st.floats(1e11, 1e15),
)
planners = st.builds(
    Planner, shape=st.sampled_from((FluxShape(), DEMO)), card=cards, precision=st.sampled_from(Precision)
)
budgets = st.integers(1, 140 * GIB)


def _at_least(planner: Planner, wanted: Wanted, budget: int) -> int:
    return max(budget, planner.smallest_budget(wanted))


@given(planners, wanted, budgets)
def test_a_plan_is_never_over_its_budget(planner: Planner, wanted: Wanted, budget: int) -> None:
    budget = _at_least(planner, wanted, budget)
    assert planner.plan(budget, wanted).memory.peak <= budget


@given(planners, wanted, budgets, budgets)
def test_more_budget_is_never_slower_or_less_resident(planner: Planner, wanted: Wanted, one: int, other: int) -> None:
    one, other = (_at_least(planner, wanted, budget) for budget in sorted((one, other)))
    small, large = planner.plan(one, wanted), planner.plan(other, wanted)
    assert large.seconds.step <= small.seconds.step
    assert large.seconds.picture <= small.seconds.picture * (1 + 1e-12)
    assert large.memory.blocks >= small.memory.blocks
    assert large.rung.text_resident >= small.rung.text_resident
    assert large.rung.modulation_resident >= small.rung.modulation_resident


@given(planners, wanted, wanted, budgets)
def test_more_pixels_never_plan_less_activation_memory(
    planner: Planner, one: Wanted, other: Wanted, budget: int
) -> None:
    small, large = sorted((one, other), key=lambda wanted: wanted.tokens(planner.shape))
    budget = max(_at_least(planner, small, budget), planner.smallest_budget(large))
    assert planner.plan(budget, large).memory.dit_phase >= planner.plan(budget, small).memory.dit_phase


@given(planners, wanted)
def test_the_smallest_budget_works_and_one_byte_less_does_not(planner: Planner, wanted: Wanted) -> None:
    least = planner.smallest_budget(wanted)
    planner.plan(least, wanted)
    with pytest.raises(OutOfMemory, match="the smallest that works is"):
        planner.plan(least - 1, wanted)


@given(planners, wanted)
def test_the_budget_that_the_error_names_works_when_typed(planner: Planner, wanted: Wanted) -> None:
    with pytest.raises(OutOfMemory) as failed:
        planner.plan(1, wanted)
    named = str(failed.value).rpartition("is ")[2].removesuffix(".")
    planner.plan(parse_budget(named, free_bytes=0), wanted)


@given(planners, wanted, budgets)
def test_what_streams_has_slots_and_what_rests_does_not(planner: Planner, wanted: Wanted, budget: int) -> None:
    rung = planner.plan(_at_least(planner, wanted, budget), wanted).rung
    blocks = planner.shape.joint_blocks + planner.shape.single_blocks
    streams = len(rung.resident) < blocks or not rung.text_resident or not rung.modulation_resident
    assert rung.slots >= 2 if streams else rung.slots == 0
    assert list(rung.resident) == sorted(set(rung.resident))
    assert set(rung.resident) <= set(range(blocks))


@given(st.floats(1.5, 8))
def test_resident_blocks_are_spread_evenly_and_not_a_prefix(budget_gib: float) -> None:
    blocks = sizes.block_bytes(FluxShape(), Precision.FLOAT8)
    rung = Planner(shape=FluxShape(), card=H100).plan(round(budget_gib * GIB), SQUARE).rung
    share = sum(blocks[index] for index in rung.resident) / sum(blocks)
    for end in range(1, 58):  # of every prefix about the same share rests: no stretch of the link's time is idle
        rests = sum(blocks[index] for index in rung.resident if index < end)
        assert abs(rests - share * sum(blocks[:end])) <= 2 * max(blocks)


def test_flops_and_bytes_of_flux_are_the_known_ones() -> None:
    shape = FluxShape()
    assert sizes.gemm_flops(shape, SQUARE) == pytest.approx(59.49e12, rel=1e-3)
    assert sizes.attention_flops(shape, SQUARE) == pytest.approx(14.87e12, rel=1e-3)
    assert sum(sizes.block_bytes(shape, Precision.FLOAT8)) == pytest.approx(8.62e9, rel=2e-3)
    assert sizes.modulation_bytes(shape) == pytest.approx(2 * 3.25e9, rel=5e-3)
    assert sizes.t5_layer_bytes(shape, Precision.BFLOAT16) == pytest.approx(2 * 193e6, rel=5e-3)


@pytest.mark.parametrize(("budget_gib", "measured"), [(1.5, 0.1645), (4, 0.1128), (6.8, 0.0860)])
def test_expected_steps_are_what_was_measured_on_an_h100(budget_gib: float, measured: float) -> None:
    plan = Planner(shape=FluxShape(), card=H100).plan(round(budget_gib * GIB), SQUARE)
    assert plan.seconds.step == pytest.approx(measured, rel=0.05)


def test_bfloat16_streams_twice_the_bytes_of_float8() -> None:
    half, full = (sum(sizes.block_bytes(FluxShape(), precision)) for precision in Precision)
    assert full / half == pytest.approx(2, rel=0.01)


def test_branches_take_room_only_where_their_blocks_are() -> None:
    """Rank 128 is 315 MB in all; what streams has them in three slots, 25 MB each."""
    planner = Planner(shape=FluxShape(), card=H100)
    plain, lora = (planner.plan(2 * GIB, Wanted(width=1024, height=1024, lora_rank=rank)) for rank in (0, 128))
    assert plain.rung.slots == lora.rung.slots == 3
    added = lora.memory.slots - plain.memory.slots
    assert added == pytest.approx(3 * 2 * 128 * 32 * 3072, rel=0.01)
    least = planner.smallest_budget(SQUARE)
    assert planner.smallest_budget(Wanted(width=1024, height=1024, lora_rank=128)) - least < 64 * 2**20


def test_a_card_without_float8_needs_room_to_unpack_a_linear() -> None:
    old = known_card("NVIDIA GeForce RTX 3060", memory_bytes=12 * GIB, capability=(8, 6))
    least = [Planner(shape=FluxShape(), card=card).smallest_budget(SQUARE) for card in (H100, old)]
    assert least[1] > least[0]


def test_a_card_in_a_slow_slot_keeps_more_blocks() -> None:
    """PCIe 4 x4 carries 6.5 GB/s, where the table takes 25 for granted."""
    usual = known_card("NVIDIA GeForce RTX 4090", memory_bytes=24 * GIB, capability=(8, 9))
    plans = [
        Planner(shape=FluxShape(), card=card).plan(int(6.8 * GIB), SQUARE) for card in (usual, usual.with_link(6.5e9))
    ]
    assert len(plans[1].rung.resident) > len(plans[0].rung.resident)


def test_a_picture_with_two_prompts_has_two_tables_of_modulation() -> None:
    planner = Planner(shape=FluxShape(), card=H100)
    one, two = (planner.plan(2 * GIB, Wanted(width=1024, height=1024, steps=50, prompts=n)).memory for n in (1, 2))
    assert two.table == 2 * one.table > 100e6


def test_a_small_picture_is_decoded_in_one_piece() -> None:
    plan = Planner(shape=FluxShape(), card=H100).plan(GIB * 3 // 2, Wanted(width=256, height=256))
    assert plan.rung.vae_tile is None


def test_everything_rests_on_a_large_card() -> None:
    planner = Planner(shape=FluxShape(), card=H100)
    every = tuple(range(57))
    plan = planner.plan(40 * GIB, SQUARE)
    assert plan.rung == resting(every)
    kept = plan.memory.graph - plan.memory.dit_phase  # FlashAttention's part among it, on Hopper cards in float8
    assert 1.98 * GIB < kept < 2.1 * GIB
    for other in (
        replace(planner, card=replace(H100, capability=(8, 9))),
        replace(planner, precision=Precision.BFLOAT16),
    ):
        memory = other.plan(60 * GIB, SQUARE).memory
        assert 0 < memory.graph - memory.dit_phase < 2**26
    without = planner.plan(plan.memory.peak - 1, SQUARE)  # the graph's own activations do not fit any more
    assert without.rung == resting(every, recorded=False)
    assert without.memory.graph == 0
    assert without.memory.peak == plan.memory.peak - plan.memory.graph


def test_the_widest_phase_of_a_picture_counts() -> None:
    parts = dict.fromkeys(Memory.__dataclass_fields__, 0)
    for widest in ("text_phase", "dit_phase", "vae_phase"):
        one = Memory(**{**parts, "slots": 5, "slack": 3, "text_phase": 1, "dit_phase": 1, "vae_phase": 1, widest: 100})
        assert one.peak == 108


def test_no_measured_picture_took_more_than_is_reckoned_for_what_rested_then(monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads((RESULTS / "h200-1024x1024-flash.json").read_text("utf-8"))
    card = known_card(found["card"], memory_bytes=139 * GIB, capability=(9, 0))
    planner = Planner(shape=FluxShape(), card=card.with_link(found["ceilings"]["pinned_bytes_s"]))
    rows = [row for row in found["rows"] if row["system"] in ("kiln", "kiln-lora")]
    assert len(rows) == 6
    for row in rows:
        asked = replace(SQUARE, lora_rank=16 if row["system"] == "kiln-lora" else 0)
        with monkeypatch.context() as then:
            then.setattr("gen.streaming.planner._SLACK_SHARE", 0.10)  # as it was when these were drawn
            rung = planner.plan(round((row["budget_gib"] or 100) * GIB), asked).rung
        assert row["peak_reserved_gib"] * GIB <= planner._memory(rung, asked).peak, row["budget_gib"]


def test_a_budget_above_the_cards_memory_is_refused() -> None:
    with pytest.raises(OutOfMemory, match=r"81\.00 GiB is more than NVIDIA H100 80GB HBM3 has: 80\.00 GiB"):
        Planner(shape=FluxShape(), card=H100).plan(81 * GIB, SQUARE)


@pytest.mark.parametrize(
    ("text", "count"),
    [("6.8GiB", round(6.8 * GIB)), ("2", 2 * GIB), (" 900 mib ", 900 * 2**20), ("1GB", 10**9), ("all", 77)],
)
def test_budgets_are_read(text: str, count: int) -> None:
    assert parse_budget(text, free_bytes=77) == count


@pytest.mark.parametrize("text", ["", "0", "-1", "6,8", "many", "1e9", "nan", "6.8 KiB", "9" * 50])
def test_what_is_no_budget_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="A budget is a size such as"):
        parse_budget(text, free_bytes=77)


@pytest.mark.parametrize(
    ("name", "tera"), [("NVIDIA GeForce RTX 4060 Ti", 44), ("NVIDIA GeForce RTX 4060", 30), ("Something new", 40)]
)
def test_the_longest_known_name_gives_the_rates(name: str, tera: float) -> None:
    assert known_card(name, memory_bytes=GIB, capability=(8, 9)).bfloat16_flops == tera * 1e12


def test_a_card_without_memory_does_not_exist() -> None:
    with pytest.raises(ValueError, match="above zero"):
        known_card("H100", memory_bytes=0, capability=(9, 0))


def test_bytes_are_shown_in_gib() -> None:
    assert gib(round(6.8 * GIB)) == "6.80 GiB"


def test_the_planner_needs_no_torch() -> None:
    code = "import sys, gen.streaming.planner; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
