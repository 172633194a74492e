"""Each thing that `kiln doctor` can find: a line with a status, what was seen, and a cure."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import socket
import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import discord.http
import pytest

from bot.doctor import card as doctor_card
from bot.doctor import command as doctor
from bot.doctor import discord_side as doctor_discord
from bot.doctor import folders as doctor_folders
from bot.doctor import machine as doctor_host
from bot.doctor.finding import Finding, Status
from bot.doctor.torch_side import Torch, ask_torch
from bot.errors import StartError
from bot.host.card_reader import Reading
from bot.invite import PERMISSIONS
from bot.settings import Settings, load_settings
from gen.request import ModelProfile
from gen.streaming.cards import GIB
from gen.streaming.sizes import Precision
from gen.weights import DEMO_WEIGHTS, FLUX_DEV, FluxShape, find_weights
from tests.loopback.faults import Fault
from tests.loopback.world import Server
from tests.loopback_discord import LoopbackDiscord

ROOT = Path(__file__).parents[2]
DEMO = find_weights(DEMO_WEIGHTS)
NO_CARD = Torch(version="2.11.0", cards=[], mps=False, cuda="13.0")
CARD = Torch(
    version="2.11.0+cu130",
    cuda="13.0",
    built_for=["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"],
    cards=["NVIDIA GeForce RTX 4090"],
    mps=False,
    memory=[24 * GIB],
    free=[23 * GIB],
    capability=[(8, 9)],
    link=[25e9],
)
STAND_IN = """
import types
cuda = types.SimpleNamespace(device_count=lambda: 0, is_available=lambda: False)
backends = types.SimpleNamespace(mps=cuda)
version, __version__ = types.SimpleNamespace(cuda=None), "9.9"
"""  # for torch, which takes seconds


def settings(**given: Any) -> Settings:
    return load_settings(**{"weights": DEMO_WEIGHTS, **given})


def card(name: str, capability: tuple[int, int]) -> Torch:
    return replace(CARD, cards=[name], capability=[capability])


def is_said(finding: Finding, status: Status, words: str) -> None:
    assert finding.status is status, finding
    assert re.search(words, finding.detail), finding.detail
    assert finding.status is Status.OK or finding.cure, "what is not well needs a cure"


def test_the_json_names_every_check_and_its_cure(capsys: pytest.CaptureFixture[str]) -> None:
    findings = doctor.examine(ask=lambda: NO_CARD)
    told = json.loads("\n".join(doctor.report(findings, as_json=True)))
    assert [set(check) for check in told["checks"]] == [{"name", "status", "detail", "cure"}] * len(findings)
    names = [check["name"] for check in told["checks"]]
    assert names[:7] == ["settings", "database", "weights", "torch", "driver", "device", "plan"]
    assert names[7:] == ["here", "memory", "disk", "loras", "classifier", "web", "commands", "token"]


def test_on_a_card_more_is_asked() -> None:
    names = [finding.name for finding in doctor.examine(ask=lambda: CARD, read=lambda: SAID)]
    assert names[3:11] == ["torch", "driver", "device", "capability", "link", "sensors", "plan", "here"]


SAID = Reading(name="card", temperature=61, memory_used=GIB, memory_total=24 * GIB, load=97, power=212.4)


@pytest.mark.parametrize(
    ("torch", "given", "said", "status", "words"),
    [
        (CARD, {}, SAID, Status.OK, "61 °C, 212 W, 97 % busy"),
        (CARD, {}, None, Status.WARN, "NVML, the driver's library, does not answer"),
        (CARD, {"temperature_max": 80}, None, Status.WARN, "KILN_TEMPERATURE_MAX holds nothing"),
        (CARD, {"power_max": 300}, replace(SAID, power=None), Status.WARN, "KILN_POWER_MAX holds nothing"),
        (CARD, {"temperature_max": 80}, replace(SAID, temperature=999), Status.WARN, "does not say its temperature"),
        (NO_CARD, {"temperature_max": 80}, None, Status.WARN, "KILN_TEMPERATURE_MAX holds nothing"),
        (CARD, {"temperature_max": 80, "power_max": 300}, SAID, Status.OK, "61 °C"),
    ],
)
def test_what_the_card_does_not_say_is_held_against_what_is_asked_of_it(
    torch: Torch, given: dict[str, float], said: Reading | None, status: Status, words: str
) -> None:
    (found,) = doctor_card.sensors(torch, settings(**given), lambda: said)
    is_said(found, status, words)


def test_a_driver_that_fails_in_its_own_way_is_a_line_and_no_traceback() -> None:
    def read() -> Reading:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a card's name")

    (found,) = doctor_card.sensors(CARD, settings(), read)
    is_said(found, Status.WARN, "NVML, the driver's library, does not answer")


def test_without_a_card_and_a_wish_about_it_there_is_no_line() -> None:
    assert list(doctor_card.sensors(NO_CARD, settings(), lambda: None)) == []


@pytest.mark.parametrize("version", ["2.8.1", "1.13", "nightly"])
def test_a_torch_that_is_too_old_is_told(version: str) -> None:
    is_said(doctor_card.torch_version(replace(CARD, version=version)), Status.FAIL, "too old: Kiln needs 2.9")
    assert doctor_card.torch_version(CARD).status is Status.OK


def test_the_oldest_torch_is_the_one_that_is_installed() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert f"torch>={'.'.join(map(str, doctor_card.TORCH_MIN))}" in wanted


def test_a_torch_that_is_broken_or_missing_is_told() -> None:
    def broken() -> Torch:
        raise StartError("torch cannot be loaded: libcudart.so is missing")

    (found,) = [finding for finding in doctor.examine(ask=broken) if finding.name == "torch"]
    is_said(found, Status.FAIL, "libcudart")


@pytest.mark.parametrize(
    ("printed", "answers"), [("print('hello')", True), ("print('hello'); raise SystemExit", False)]
)
def test_what_others_print_beside_torchs_answer_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, answers: bool
) -> None:
    (tmp_path / "torch.py").write_text(f"{printed}\n{STAND_IN}")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    if answers:
        assert ask_torch().version == "9.9"
    else:
        with pytest.raises(StartError, match="answers nonsense: 'hello"):
            ask_torch()


def test_torch_is_really_asked() -> None:
    seen = ask_torch()
    assert re.match(r"\d+\.\d+", seen.version)
    assert len(seen.cards) == len(seen.link) == len(seen.capability)


NVRM = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: 12.2.0\n"


@pytest.mark.parametrize(
    ("torch", "module", "device", "status", "words"),
    [
        (CARD, NVRM, "auto", Status.OK, "NVIDIA's driver 580.65.06"),
        (CARD, None, "auto", Status.OK, "of unknown version"),  # WSL has no such file
        (NO_CARD, None, "auto", Status.OK, "no NVIDIA driver is loaded"),
        (NO_CARD, None, "cuda", Status.FAIL, "no NVIDIA driver is loaded"),
        (replace(NO_CARD, cuda=None), NVRM, "auto", Status.WARN, "built without CUDA"),
        (replace(NO_CARD, complaint="driver too old (11040)"), NVRM, "auto", Status.WARN, r"no card: driver too old"),
    ],
)
def test_the_driver_and_whether_torch_can_use_it(
    tmp_path: Path, torch: Torch, module: str | None, device: str, status: Status, words: str
) -> None:
    told = tmp_path / "version"
    if module:
        told.write_text(module)
    is_said(doctor_card.driver(torch, settings(device=device), told=told), status, words)


def test_a_macs_chip_is_told_to_be_untested_and_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    found, place = doctor_card.device(replace(NO_CARD, mps=True), settings(), DEMO.profile)
    is_said(found, Status.WARN, "bfloat16; untested")
    assert "PYTORCH_ENABLE_MPS_FALLBACK=1" in found.cure
    assert place == "the Mac's graphics chip"
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    found, _ = doctor_card.device(replace(NO_CARD, mps=True), settings(), DEMO.profile)
    assert "PYTORCH_ENABLE_MPS_FALLBACK" not in found.cure


@pytest.mark.parametrize(
    ("profile", "status", "words"),
    [(DEMO.profile, Status.OK, "the CPU alone: enough"), (FLUX_DEV, Status.WARN, "hours a picture")],
)
def test_a_cpu_alone_is_said_plainly(profile: ModelProfile, status: Status, words: str) -> None:
    is_said(doctor_card.device(NO_CARD, settings(), profile)[0], status, words)


@pytest.mark.parametrize(
    ("name", "capability", "status", "words"),
    [
        ("NVIDIA GeForce RTX 4090", (8, 9), Status.OK, "float8 tensor cores"),
        ("NVIDIA H100", (9, 0), Status.OK, "saves memory and time"),
        ("NVIDIA GeForce RTX 3060", (8, 6), Status.OK, "float8 for storage only; it saves memory here, not time"),
        ("Tesla T4", (7, 5), Status.WARN, "float8 saves memory here, not time"),
        ("Tesla V100", (7, 0), Status.FAIL, r"no kernels for it, only from 7\.5 on"),
    ],
)
def test_what_the_capability_means(name: str, capability: tuple[int, int], status: Status, words: str) -> None:
    is_said(doctor_card.capability(card(name, capability), 0), status, words)


def test_a_v100_whose_torch_still_has_kernels_is_slow_and_works() -> None:
    older = replace(card("Tesla V100", (7, 0)), built_for=["sm_50", "sm_70", "sm_90"])
    is_said(doctor_card.capability(older, 0), Status.WARN, "float8 saves memory here, not time")


@pytest.mark.parametrize(
    ("link", "status", "words"),
    [
        ([25e9], Status.OK, r"25\.0 GB/s from pinned memory"),
        ([3.1e9], Status.WARN, r"3\.1 GB/s .*, where 25 are usual"),
        ([0.0], Status.WARN, "could not be measured"),
        ([], Status.WARN, "could not be measured"),
    ],
)
def test_the_measured_link_is_held_against_the_usual(link: list[float], status: Status, words: str) -> None:
    is_said(doctor_card.link(replace(CARD, link=link), 0), status, words)


def test_a_measured_link_is_what_the_plan_reckons_with(flux: Settings) -> None:
    fast, slow = (doctor_card.plan(replace(CARD, link=[rate]), flux, FLUX_DEV) for rate in (25e9, 1e9))
    seconds = [float(found.detail.partition(" ")[0]) for found in (fast, slow)]
    assert seconds[1] > 2 * seconds[0]


@pytest.fixture
def flux(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings whose model is of FLUX.1-dev's size, without its 34 GB, within 6 GiB."""
    large = replace(DEMO, profile=FLUX_DEV, shape=FluxShape())
    monkeypatch.setattr("bot.doctor.plan.find_weights", lambda _: large)
    return settings(vram_budget="6GiB")


def test_the_plan_says_seconds_a_picture_and_memory(flux: Settings) -> None:
    words = r"^[\d.]+ s a picture \(1024x1024, 20 steps\), an estimate; 5\.\d+ GiB of its memory, \d+ of 57 blocks"
    is_said(doctor_card.plan(CARD, flux, FLUX_DEV), Status.OK, words)


def test_a_budget_that_is_too_small_fails_the_plan(flux: Settings) -> None:
    small = settings(vram_budget="500MiB")
    is_said(doctor_card.plan(CARD, small, FLUX_DEV), Status.FAIL, "the smallest that works is")


def test_without_a_card_the_plan_of_a_large_model_is_a_warning(flux: Settings) -> None:
    is_said(doctor_card.plan(NO_CARD, flux, FLUX_DEV), Status.WARN, "no card")
    is_said(doctor_card.plan(NO_CARD, flux, DEMO.profile), Status.OK, "about 3 s a picture")


def host_files(
    folder: Path, *, total: int, available: int, ceiling: str = "max", kernel: str = "Linux"
) -> dict[str, Path]:
    texts = {
        "meminfo": f"MemTotal: {total // 1024} kB\nMemFree: 1 kB\nMemAvailable: {available // 1024} kB\n",
        "ceiling": ceiling,
        "kernel": kernel,
    }
    for name, content in texts.items():
        (folder / name).write_text(content)
    return {name: folder / name for name in texts}


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ({"total": 64 * GIB, "available": 60 * GIB}, Status.OK, r"60\.00 GiB of 64\.00 .*, 38\.40 GiB may be pinned"),
        ({"total": 64 * GIB, "available": 10 * GIB}, Status.WARN, r"the model needs 20\.00 GiB"),
        ({"total": 16 * GIB, "available": 15 * GIB}, Status.FAIL, r"of 16\.00 GiB"),
        ({"total": 32 * GIB, "available": 30 * GIB}, Status.WARN, r"19\.20 GiB may be pinned"),
        ({"total": 36 * GIB, "available": 30 * GIB, "kernel": "Linux Microsoft WSL2"}, Status.WARN, r"18\.00 GiB may"),
        ({"total": 64 * GIB, "available": 60 * GIB, "ceiling": str(8 * GIB)}, Status.FAIL, r"of 8\.00 GiB"),
        ({"total": 64 * GIB, "available": 60 * GIB, "most": 50 * GIB}, Status.OK, r"50\.00 GiB may be pinned"),
        ({"total": 64 * GIB, "available": 60 * GIB, "most": 0}, Status.WARN, r" 0\.00 GiB may be pinned"),
        ({"total": 64 * GIB, "available": 60 * GIB, "most": 65 * GIB}, Status.FAIL, r"KILN_PINNED_MEMORY is 65\.00"),
    ],
)  # fmt: skip
def test_the_hosts_memory_is_held_against_what_the_model_needs(
    tmp_path: Path, files: dict[str, Any], status: Status, words: str
) -> None:
    most = files.pop("most", None)
    is_said(doctor_host.memory(20 * GIB, most=most, **host_files(tmp_path, **files)), status, words)


def test_a_system_that_tells_no_memory_gets_a_line_all_the_same(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    found = doctor_host.memory(0, meminfo=missing, ceiling=missing, kernel=missing)
    assert found.status is Status.OK


def test_the_large_model_needs_what_the_readme_says() -> None:
    large = replace(DEMO, profile=FLUX_DEV, shape=FluxShape())
    assert doctor_host.packed_bytes(large, Precision.FLOAT8) == pytest.approx(20e9, rel=0.03)


@pytest.mark.parametrize(
    ("free", "needed", "status", "words"),
    [
        (500 * GIB, 20 * GIB, Status.OK, "500.00 GiB free for pictures"),
        (GIB // 2, 0, Status.WARN, "0.50 GiB free for"),
        (GIB // 40, 0, Status.FAIL, "free for"),
        (10 * GIB, 20 * GIB, Status.WARN, "10.00 GiB for packed weights, which take 20.00 GiB"),
    ],
)
def test_room_on_the_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, needed: int, status: Status, words: str
) -> None:
    monkeypatch.setattr(doctor_host, "_free", lambda _: free)
    found = doctor_host.disk(settings(data=tmp_path, cache=tmp_path), needed)
    is_said(found, status, words)


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        is_said(doctor_host.port("port", "127.0.0.1", number, cure="Another."), Status.WARN, "in use")
    assert doctor_host.port("port", "127.0.0.1", number, cure="Another.").status is Status.OK
    is_said(doctor_host.port("port", "192.0.2.1", number, cure="Another."), Status.WARN, "cannot be listened on")
    is_said(doctor_host.port("port", "127..0.1", number, cure="Another."), Status.WARN, "no host's name")


def test_the_address_of_health_and_metrics_is_looked_at() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = doctor_host.web(settings(web=address))
        is_said(found, Status.WARN, f"{address} cannot be listened on: Address already in use")
        assert "KILN_WEB" in found.cure
    is_said(doctor_host.web(settings(web=address)), Status.OK, "is free")
    is_said(doctor_host.web(settings(web="off")), Status.OK, "off")


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that this user may not look into; root may, so it is the system's word for it that is scripted."""
    folder = tmp_path / "closed"

    def stat(path: Path, **more: Any) -> os.stat_result:
        if path.is_relative_to(folder):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return os.stat(path, **more)

    monkeypatch.setattr(Path, "stat", stat)
    return folder


def test_a_folder_that_may_not_be_looked_at_is_one_finding_and_the_others_are_there(closed: Path) -> None:
    found = {
        finding.name: finding
        for given in ({"data": closed / "data"}, {"weights": closed / "weights"}, {"cache": closed / "cache"})
        for finding in _examined(given)
        if finding.status is Status.FAIL
    }
    assert set(found) == {"database", "disk", "weights"}
    for finding in found.values():
        is_said(finding, Status.FAIL, f"{closed}.* cannot be (looked at|read): Permission denied")


def _examined(given: dict[str, Path]) -> list[Finding]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KILN_PRECISION", "float8")  # so that the cache of packed weights matters
        for name, folder in given.items():
            patch.setenv(f"KILN_{name.upper()}", str(folder))
        return doctor.examine(ask=lambda: NO_CARD)


def test_the_consoles_port_and_password_are_looked_at() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        is_said(
            doctor._console(settings(console_port=number)), Status.WARN, f"127.0.0.1:{number} cannot be listened on"
        )
    is_said(doctor._console(settings(console_host="0.0.0.0")), Status.FAIL, "others can reach the console")
    assert doctor._console(settings(console_port=number)).status is Status.OK


def test_a_console_whose_extra_is_not_installed_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    is_said(doctor._console(settings()), Status.FAIL, r"pip install 'kiln-bot\[console\]'")


@pytest.mark.parametrize(
    ("host", "web", "clashes"),
    [
        ("127.0.0.1", "127.0.0.1:6006", True),
        ("localhost", "127.0.0.1:6006", True),
        ("127.0.0.1", "0.0.0.0:6006", True),
        ("0.0.0.0", "127.0.0.1:6006", True),
        ("127.0.0.1", "127.0.0.2:6006", False),
        ("127.0.0.1", "127.0.0.1:9464", False),
        ("127.0.0.1", "off", False),
    ],
)
def test_a_console_on_the_port_of_health_and_metrics_is_told(
    monkeypatch: pytest.MonkeyPatch, host: str, web: str, clashes: bool
) -> None:
    monkeypatch.setattr(doctor_host, "why_not", lambda host, port: "")
    found = doctor._console(settings(console=True, console_host=host, console_password="long enough", web=web))
    if clashes:
        is_said(found, Status.FAIL, f"{host}:6006 is where health and metrics are served too: KILN_WEB is {web}")
    else:
        assert found.status is Status.OK


def test_the_folder_of_loras_and_each_damaged_file_in_it(tmp_path: Path) -> None:
    given, sound = settings(loras=tmp_path / "loras"), (DEMO_WEIGHTS / "ae.safetensors").read_bytes()
    is_said(doctor_folders.loras(settings()), Status.OK, "none: .*loras is where they go")
    is_said(doctor_folders.loras(given), Status.WARN, "KILN_LORAS is .*loras, and there is no such folder")
    (tmp_path / "loras").mkdir()
    is_said(doctor_folders.loras(given), Status.OK, "0 in ")
    for name, content in {"ink": sound, "cut": sound[:-9], "p": b"PK\3\4" + bytes(99), "a\nb": sound}.items():
        (tmp_path / "loras" / f"{name}.safetensors").write_bytes(content)
    found = doctor_folders.loras(given)
    is_said(
        found,
        Status.WARN,
        r"^1 in .*; 'a\\nb\.safetensors' has a name .*; cut\.safetensors is damaged.*; p\.s.* pickle",
    )
    for number in range(9):
        (tmp_path / "loras" / f"x{number}.safetensors").write_bytes(b"")
    is_said(doctor_folders.loras(given), Status.WARN, "x1.safetensors is damaged.*; and 7 more$")


def test_a_folder_of_loras_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", closed)
    is_said(doctor_folders.loras(settings(loras=tmp_path)), Status.WARN, f"{tmp_path} cannot be read: Permission")
    monkeypatch.undo()
    (tmp_path / "file").write_bytes(b"")
    is_said(doctor_folders.loras(settings(loras=tmp_path / "file")), Status.WARN, "cannot be read: Not a directory")


def test_a_picture_classifier_is_looked_at_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "looker"
    given = settings(classifier=folder)

    def says(status: Status, words: str) -> None:
        is_said(doctor_folders.classifier(given), status, words)

    is_said(doctor_folders.classifier(settings()), Status.OK, "none")
    says(Status.FAIL, "KILN_CLASSIFIER is .*looker, and there is no such folder")
    folder.mkdir()
    says(Status.FAIL, "has no config.json")
    (folder / "config.json").write_text("{")
    says(Status.FAIL, "has no preprocessor_config.json")
    (folder / "preprocessor_config.json").write_text("{}")
    says(Status.FAIL, r"has no \*\.safetensors file")
    (folder / "model.safetensors").write_bytes(b"cut")
    says(Status.FAIL, r"model\.safetensors is damaged")
    (folder / "model.safetensors").write_bytes((DEMO_WEIGHTS / "ae.safetensors").read_bytes())
    says(Status.FAIL, "config.json is no JSON object")
    (folder / "config.json").write_text("[]")
    says(Status.FAIL, "config.json is no JSON object")
    (folder / "config.json").write_text('{"id2label": {"0": "cat", "1": "dog"}}')
    says(Status.FAIL, "no label for harmless pictures; it has cat, dog")
    (folder / "config.json").write_text('{"id2label": {"0": "Normal", "1": "nsfw"}}')
    says(Status.OK, "looker: Normal, nsfw")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    says(Status.FAIL, "transformers, which reads it, is not installed")


def test_weights_that_nobody_compared_are_told_so(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.symlink_to(DEMO_WEIGHTS)
    _, found = doctor._weights(settings(weights=folder))
    is_said(found, Status.OK, "kiln-demo, in .*weights: bfloat16, 256x256, 12 steps; whether its bytes are right")
    _, found = doctor._weights(settings(weights=tmp_path))
    is_said(found, Status.FAIL, "lacks the DiT")
    assert "kiln weights pull" in found.cure


@pytest.mark.parametrize(("token", "words"), [("", "is not set"), ("Bot abc", "does not look like a token")])
def test_a_token_that_is_none_is_told_and_discord_is_not_asked(token: str, words: str) -> None:
    given = settings(discord_token=token)
    is_said(doctor._token(given), Status.WARN, words)
    assert doctor._discord(given, lambda: datetime.now(UTC)) == []


def test_a_damaged_database_is_told_with_what_brings_it_back(tmp_path: Path) -> None:
    (tmp_path / "kiln.sqlite3").write_bytes(b"not a database" * 100)
    found = doctor._database(settings(data=tmp_path))
    is_said(found, Status.FAIL, "not a database")
    assert "kiln db backup" in found.cure


@pytest.fixture
async def loopback(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord() as there:
        monkeypatch.setattr(discord.http.Route, "BASE", there.address)
        yield there


def utc() -> datetime:
    return datetime.now(UTC)


async def ask(
    loopback: LoopbackDiscord, data: Path, *, off: timedelta = timedelta(), token: str | None = None
) -> dict[str, Finding]:
    found = await asyncio.to_thread(
        doctor_discord.on_discord, token or loopback.token, data=data, now=lambda: utc() + off
    )
    return {finding.name: finding for finding in found}


async def test_a_token_that_discord_takes_is_told_with_its_application(
    loopback: LoopbackDiscord, tmp_path: Path
) -> None:
    found = await ask(loopback, tmp_path)
    is_said(found["discord"], Status.OK, rf"signed in as Kiln \(application {loopback.world.bot.id}\), in 1 servers")
    assert {finding.status for finding in found.values()} == {Status.OK}
    assert not any(loopback.token in f"{finding.detail}{finding.cure}" for finding in found.values())
    assert loopback.unknown_routes() == []


async def test_a_token_that_discord_does_not_take_fails(loopback: LoopbackDiscord, tmp_path: Path) -> None:
    found = await ask(loopback, tmp_path, token="MTQ1NjA3NDQ0Mzk4MDgwMDAwMA.wrong.token")
    is_said(found["discord"], Status.FAIL, "does not accept")
    assert "Reset Token" in found["discord"].cure


async def test_a_token_of_another_bot_is_told(loopback: LoopbackDiscord, tmp_path: Path) -> None:
    (tmp_path / "commands.sha256").write_text("0123abc 42\n")
    found = await ask(loopback, tmp_path)
    is_said(found["discord"], Status.WARN, "last used by application 42, another bot")
    (tmp_path / "commands.sha256").write_text(f"0123abc {loopback.world.bot.id}\n")
    assert (await ask(loopback, tmp_path))["discord"].status is Status.OK


async def test_a_discord_in_trouble_is_a_warning(loopback: LoopbackDiscord, tmp_path: Path) -> None:
    loopback.faults.plan(("GET", "/applications/@me"), Fault(status=503, text="503"))
    found = await ask(loopback, tmp_path)
    is_said(found["discord"], Status.WARN, "Discord answers 503 to GET /applications/@me")


async def test_a_discord_that_cannot_be_reached_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(discord.http.Route, "BASE", "http://127.0.0.1:9")
    found = await asyncio.to_thread(doctor_discord.on_discord, "token", data=tmp_path, now=utc)
    is_said(found[0], Status.FAIL, "Discord cannot be reached")


@pytest.mark.parametrize(
    ("flags", "grant", "status", "words"),
    [
        (0, False, Status.OK, "no privileged intents; anyone may invite it"),
        (1 << 19, False, Status.WARN, "privileged intents are on: Message Content"),
        (1 << 12 | 1 << 15, False, Status.WARN, "privileged intents are on: Presence, Server Members"),
        (0, True, Status.FAIL, "requires an OAuth2 code grant"),
    ],
)
async def test_how_the_application_is_set_up(
    loopback: LoopbackDiscord, tmp_path: Path, flags: int, grant: bool, status: Status, words: str
) -> None:
    loopback.world.application_flags, loopback.world.requires_code_grant = flags, grant
    is_said((await ask(loopback, tmp_path))["application"], status, words)


async def test_what_the_bot_lacks_is_told_for_each_server(loopback: LoopbackDiscord, tmp_path: Path) -> None:
    lacking = discord.Permissions(PERMISSIONS.value)
    lacking.update(attach_files=False, embed_links=False)
    loopback.world.servers = [
        Server(id=1, name="Enough", permissions=PERMISSIONS.value),
        Server(id=2, name="Too\x1b[31m little", permissions=lacking.value),
        Server(id=3, name="Admin", permissions=1 << 3),
    ]
    found = await ask(loopback, tmp_path)
    is_said(found["server Enough"], Status.OK, "all permissions")
    is_said(found["server Too[31m little"], Status.WARN, "the bot lacks Embed Links, Attach Files")
    is_said(found["server Admin"], Status.OK, "all permissions")


async def test_a_bot_in_no_server_gets_its_link(loopback: LoopbackDiscord, tmp_path: Path) -> None:
    loopback.world.servers = []
    found = (await ask(loopback, tmp_path))["servers"]
    is_said(found, Status.WARN, "in no server yet")
    assert "client_id=" in found.cure


@pytest.mark.parametrize(
    ("off", "status", "words"),
    [
        (timedelta(seconds=1), Status.OK, "ahead of|behind"),
        (timedelta(seconds=40), Status.WARN, r"\d+ s ahead of Discord's"),
        (timedelta(hours=1), Status.FAIL, r"3[56]\d\d s ahead of Discord's"),
        (timedelta(hours=-1), Status.FAIL, r"3[56]\d\d s behind Discord's"),
    ],
)
async def test_a_clock_that_is_off_is_told(
    loopback: LoopbackDiscord, tmp_path: Path, off: timedelta, status: Status, words: str
) -> None:
    found = (await ask(loopback, tmp_path, off=off))["clock"]
    is_said(found, status, words)


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_a_date_of_nonsense_is_no_skew(date: str) -> None:
    assert doctor_discord.clock(date, utc()).status is Status.OK
