"""A model of FLUX.1's widths with few blocks and random weights, for tests on a card.

Runs without the bot's packages and without this repository's pytest settings:
`python -m pytest -c /dev/null --rootdir . tests/gpu`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # torch reads it once

import pytest
import torch

from gen.bench.synth import synthesize
from gen.weights import FluxShape

torch.set_num_threads(os.cpu_count() or 1)  # nothing runs beside these, and 3 GB are made of random numbers


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA card")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1's widths, two joint and four single blocks, two layers of T5: 3 GB of bfloat16."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA card here")
    made = tmp_path_factory.mktemp("synth") / "model"
    synthesize(made, shape=FluxShape(joint_blocks=2, single_blocks=4, t5_layers=2, clip_layers=2))
    told = json.loads((made / "kiln.json").read_text("utf-8"))
    told["profile"] |= {"side_max": 2048, "pixels_max": 2**21}  # FLUX.1's, not the small model's
    (made / "kiln.json").write_text(json.dumps(told), "utf-8")
    return made
