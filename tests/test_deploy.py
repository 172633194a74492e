"""The files of the service say what they should, and the tools that read them take them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bot.__main__ import main
from bot.app import STOP_SECONDS
from bot.host.metrics import Metrics
from bot.host.notify import LOOK_SECONDS
from bot.settings import Settings, variable
from gen.pull.known import KNOWN
from gen.pull.store import model_folder

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "kiln.service").read_text("utf-8")
KILN = f"{sys.executable} -m bot"
ANALYZE = shutil.which("systemd-analyze")


def unit() -> dict[str, str]:
    lines = [line for line in UNIT.splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return found


@pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze")
def test_the_unit_passes_systemds_own_check_and_is_hardened(tmp_path: Path) -> None:
    assert ANALYZE is not None
    here = tmp_path / "kiln.service"
    there = re.sub(r"/opt/kiln/.venv/bin/kiln|/usr/bin/nvidia-modprobe", "/bin/true", UNIT)  # programs must be there
    here.write_text(there)
    verified = subprocess.run([ANALYZE, "verify", here], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--threshold=40", here], capture_output=True, text=True, check=False
    )
    assert rated.returncode == 0, rated.stdout.splitlines()[-1]


def test_the_unit_has_a_watchdog_that_kiln_can_feed_in_time_and_an_end_that_fits_its_own() -> None:
    said = unit()
    assert (said["Type"], said["Restart"]) == ("notify", "on-failure")
    assert int(said["WatchdogSec"]) >= 3 * LOOK_SECONDS
    assert int(said["TimeoutStopSec"]) > STOP_SECONDS


def test_the_compose_file_gives_one_nvidia_card_a_restart_kept_data_and_logs_with_an_end() -> None:
    kiln = compose()["services"]["kiln"]
    (card,) = kiln["deploy"]["resources"]["reservations"]["devices"]
    assert (card["driver"], card["count"], card["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert kiln["restart"] == "unless-stopped"
    assert set(kiln["logging"]["options"]) == {"max-size", "max-file"}
    mounted = {volume.split(":")[1] for volume in kiln["volumes"]}
    assert {kiln["environment"][name] for name in ("KILN_DATA", "KILN_CACHE", "MODELSCOPE_CACHE")} == mounted
    assert Path(kiln["environment"]["KILN_WEIGHTS"]) in [model_folder(Path("/models"), name) for name in KNOWN]
    assert all(port.startswith("127.0.0.1:") for port in kiln["ports"])
    assert (DEPLOY / kiln["build"]["context"] / kiln["build"]["dockerfile"]).is_file()
    assert set(compose()["volumes"]) == {"data", "cache", "models"}


def test_the_container_copies_files_that_are_there_and_runs_a_command_that_exists(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = (DEPLOY / "Containerfile").read_text("utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    (command,) = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD "))
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0, capsys.readouterr().err


def test_the_containers_folders_are_those_that_compose_mounts_and_belong_to_its_user() -> None:
    container = (DEPLOY / "Containerfile").read_text("utf-8")
    (listed,) = re.findall(r"^VOLUME (.+)$", container, re.MULTILINE)
    folders = json.loads(listed)
    assert {volume.split(":")[1] for volume in compose()["services"]["kiln"]["volumes"]} == set(folders)
    assert f"chown kiln:kiln {' '.join(folders)}" in container


def test_the_image_is_built_from_what_is_copied_and_no_data_or_token_is_sent_along() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    lines = (DEPLOY / "Containerfile").read_text("utf-8").splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    assert "*" in ignored
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied


def test_the_services_command_works_as_its_user_on_its_folders(tmp_path: Path) -> None:
    script = (DEPLOY / "kiln").read_text("utf-8")
    (environment,) = (line for line in UNIT.splitlines() if line.startswith("Environment="))
    assert environment.removeprefix("Environment=") in script
    (tmp_path / "kiln.sqlite3").touch()
    for path, real in (("/opt/kiln", str(ROOT)), ("/var/lib/kiln", str(tmp_path)), (".venv/bin/kiln", KILN)):
        script = script.replace(path, real)
    stand_in = tmp_path / "sudo"  # there may be no such user here
    stand_in.write_text('#!/bin/sh\n[ "$1" = --user=kiln ] && shift && exec "$@"\n')
    stand_in.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        ["sh", "-c", script, "kiln", "pause"], env=environ, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / "paused").exists()


def test_no_file_names_a_setting_that_is_not_there() -> None:
    for file in DEPLOY.iterdir():
        named = set(re.findall(r"\bKILN_[A-Z_]+", file.read_text("utf-8")))
        assert named <= {variable(name) for name in Settings.model_fields}, file


def test_the_dashboard_asks_for_names_that_the_page_has_and_shows_them_all() -> None:
    metrics = Metrics()
    text = generate_latest(metrics.registry).decode()
    there = {
        name
        for family in text_string_to_metric_families(text)
        for name in (family.name, f"{family.name}_total", f"{family.name}_bucket")
    }
    panels = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))["panels"]
    asked = {
        name for panel in panels for target in panel["targets"] for name in re.findall(r"kiln_\w+", target["expr"])
    }
    assert asked - there == set()
    ours = {family.name for family in text_string_to_metric_families(text) if family.name.startswith("kiln_")}
    shown = {re.sub(r"_(total|bucket)$", "", name) for name in asked}
    assert {re.sub(r"_total$", "", name) for name in ours} - shown == set()


def test_the_dashboards_panels_do_not_cover_each_other() -> None:
    panels = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_prometheus_is_told_the_address_that_the_settings_have() -> None:
    told = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text("utf-8"))
    assert told["scrape_configs"][0]["static_configs"][0]["targets"] == [Settings.model_fields["web"].default]


def test_json_lines_carry_a_traceback_in_their_line() -> None:
    code = (
        "import logging\nfrom bot.logs import log_to_stderr\nlog_to_stderr('INFO', as_json=True)\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.exception('it %s', 'broke')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    (line,) = ran.stderr.splitlines()
    told = json.loads(line)
    assert (told["level"], told["message"]) == ("ERROR", "it broke")
    assert "ZeroDivisionError" in told["traceback"]
