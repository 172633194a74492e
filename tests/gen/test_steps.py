"""Step reports on a CPU; on a card, tests/gpu looks at them."""

from __future__ import annotations

import torch

from gen.steps import Steps


def test_a_drawing_that_begins_anew_says_so_before_its_first_step() -> None:
    told: list[tuple[int, bool]] = []
    look = torch.zeros(8, 8, 3, dtype=torch.uint8)
    steps = Steps(
        lambda step, preview: told.append((step, bool(preview))), look=lambda: look, device=torch.device("cpu")
    )
    for _ in range(2):
        assert len(list(steps(torch.zeros(2)))) == 2
    assert told == [(1, True), (2, True), (0, False), (1, True), (2, True)]
