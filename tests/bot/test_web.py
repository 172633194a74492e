"""Health and metrics over real HTTP on 127.0.0.1, around the real client on simcord, a real queue and GPU thread."""

from __future__ import annotations

import asyncio
import math
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bot.errors import PromptRefused, QueueUnavailable, StartError
from bot.host import web as module
from bot.host.card_reader import Reading
from bot.host.metrics import Metrics
from bot.host.ports import OFF
from bot.host.web import Watched, open_web
from bot.service import open_service
from bot.storage.database import open_database
from gen.pulse import Pulse
from tests.bot.conftest import Stage, eventually, open_stage, said
from tests.bot.test_delivery import left_running
from tests.fakes import Clock, image_request, new_job

NAMES = frozenset(
    {
        "build_info",
        "event_loop_lag_seconds",
        "fairness_max_lag_seconds",
        "gateway_connected",
        "gpu_busy_seconds_total",
        "job_crashes_total",
        "job_e2e_seconds",
        "job_gpu_seconds",
        "job_wait_seconds",
        "jobs_quarantined_total",
        "jobs_running",
        "jobs_total",
        "jobs_waiting",
        "late_results_discarded_total",
        "model_loaded",
        "queue_oldest_age_seconds",
        "rejections_total",
        "replies_total",
    }
)
HOT = Reading(name="card", temperature=61, memory_used=2**30, memory_total=2**34, load=97, power=212.5)
Values = dict[str, float]


async def get(port: int | None, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def scrape(port: int | None) -> Values:
    """Every sample by its name and labels; parsing fails as promtool's does."""
    status, text = await get(port, "/metrics")
    assert status == 200
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families), "a name comes twice"
    for family in families:
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
    samples = [sample for family in families for sample in family.samples]
    return {f"{sample.name}{sorted(sample.labels.items())}": sample.value for sample in samples}


def moved(before: Values, after: Values) -> set[str]:
    """Names, without the prefix and a histogram's endings, of which a sample has another value."""
    changed = {sample.partition("[")[0] for sample, value in after.items() if value != before.get(sample, 0.0)}
    return {re.sub(r"^kiln_|_(count|sum|bucket)$", "", name) for name in changed}


@asynccontextmanager
async def serving(folder: Path, watched: Watched, **settings: Any) -> AsyncIterator[tuple[Stage, int | None]]:
    async with (
        open_web("127.0.0.1:0", watched) as port,
        open_stage(folder, watched=watched, **settings) as stage,
        open_service(stage.settings, stage.bot, watched, on_hung=lambda: None, read=lambda: HOT),
    ):
        try:
            yield stage, port
        finally:
            stage.generator.release.set()  # else a test that fails would wait for a stuck one


async def test_every_name_moves_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAG_EVERY", 0.01)
    await left_running(tmp_path, times=2)
    clock, watched = Clock(), Watched()
    clock.time = watched.now()
    watched.now = clock
    async with open_web("127.0.0.1:0", watched) as port:
        before = await scrape(port)
    async with serving(tmp_path, watched, burst=3) as (stage, port):
        stage.detach()
        await stage.imagine("a red house")
        await eventually(lambda: len(stage.pictures()) == 1)
        await stage.imagine("stuck")
        await eventually(lambda: len(stage.generator.begun) == 2)
        await stage.kiln.queue.submit(new_job(99, user_id=5))
        await stage.imagine("a boat")
        assert "a lot of pictures" in said(await stage.imagine("one too many"))
        (running,) = [job for job in await stage.kiln.queue.active_jobs(stage.alice.id) if job.attempts]
        assert not await stage.kiln.queue.record_failed(replace(running, attempt_token="old"), reason="late")
        clock.move(7)
        found = before.copy()
        async with asyncio.timeout(10):
            while NAMES - moved(before, found):
                found = await scrape(port)
        assert found["kiln_queue_oldest_age_seconds[]"] >= 7
        assert found["kiln_rejections_total[('reason', 'rate_limited')]"] == 1
        assert found["kiln_jobs_total[('state', 'delivered')]"] == 1
        assert found["kiln_card_temperature_celsius[]"] == 61
        stage.generator.release.set()


async def test_ends_are_counted_once_each_and_begin_at_zero(tmp_path: Path) -> None:
    watched = Watched()
    async with serving(tmp_path, watched) as (stage, port):
        first = await scrape(port)
        assert [first[f"kiln_jobs_total[('state', '{state}')]"] for state in ("delivered", "kept", "failed")] == [0] * 3
        await stage.imagine("a house")
        await stage.imagine("broken")
        await stage.env.settle()
        found = await scrape(port)
    assert found["kiln_jobs_total[('state', 'delivered')]"] == found["kiln_replies_total[('result', 'posted')]"] == 1
    assert found["kiln_jobs_total[('state', 'failed')]"] == 1
    assert found["kiln_job_gpu_seconds_count[]"] == found["kiln_job_e2e_seconds_count[]"] == 1
    assert found["kiln_job_wait_seconds_count[]"] == 2
    assert not any("user" in sample or "guild" in sample for sample in found)


async def test_a_consoles_picture_is_a_job_and_no_reply_and_its_refusals_count(tmp_path: Path) -> None:
    watched = Watched()
    async with serving(tmp_path, watched) as (stage, port):
        console = stage.kiln.console
        job = await console.ask(7, image_request())
        assert [look async for look in console.follow(job.id)]
        await eventually(lambda: watched.metrics.jobs.labels("delivered")._value.get() == 1)
        console.refused(PromptRefused("no"))
        found = await scrape(port)
    assert found["kiln_replies_total[('result', 'posted')]"] == 0
    assert found["kiln_rejections_total[('reason', 'prompt_refused')]"] == 1


async def test_alive_means_the_gpu_thread_gives_signs_and_a_hung_one_is_told(tmp_path: Path) -> None:
    now = [0.0]
    watched = Watched(pulse=Pulse(clock=lambda: now[0]))
    async with serving(tmp_path, watched) as (stage, port):
        stage.detach()
        await stage.imagine("a house")
        await eventually(lambda: len(stage.generator.drawn) == 1)
        assert (await get(port, "/livez"))[0] == 200
        await stage.imagine("stuck")
        await eventually(stage.generator.stuck.is_set)  # its last sign has been given
        now[0] += 29
        status, text = await eventually_status(port, "/livez", 503)
        assert (status, '"fail"' in text, "gpu_thread" in text) == (503, True, True)
        stage.generator.release.set()
        assert (await eventually_status(port, "/livez", 200))[0] == 200


async def eventually_status(port: int | None, path: str, wanted: int) -> tuple[int, str]:
    async with asyncio.timeout(10):
        while (answer := await get(port, path))[0] != wanted:  # noqa: ASYNC110 - a page: nothing to await
            await asyncio.sleep(0.01)
    return answer


async def test_ready_means_a_database_that_takes_a_write_a_gateway_and_a_model(tmp_path: Path) -> None:
    watched = Watched()
    async with open_web("127.0.0.1:0", watched) as port:
        status, text = await get(port, "/readyz")
        assert (status, text.count("not ")) == (503, 3)
    async with serving(tmp_path, watched) as (stage, port):
        assert (await get(port, "/readyz"))[0] == 200
        await stage.kiln.executor.let_go()
        assert "not loaded" in (await get(port, "/readyz"))[1]
        watched.is_resting = lambda: True
        assert (await get(port, "/readyz"))[0] == 200
        watched.is_connected = lambda: False
        assert "not connected" in (await get(port, "/readyz"))[1]


async def test_the_console_alone_is_ready_without_a_gateway() -> None:
    watched = Watched(wants_gateway=False)
    async with open_web("127.0.0.1:0", watched) as port:
        assert "gateway" not in (await get(port, "/readyz"))[1]


async def test_a_database_that_takes_nothing_is_told_and_what_it_holds_is_not_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched()
    async with open_database(tmp_path / "kiln.sqlite3") as database, open_web("127.0.0.1:0", watched) as port:
        watched.database = database

        async def refuse(work: Callable[..., object]) -> object:
            raise QueueUnavailable

        monkeypatch.setattr(database, "write", refuse)
        monkeypatch.setattr(database, "read", refuse)
        assert "takes no write" in (await get(port, "/readyz"))[1]
        assert math.isnan((await scrape(port))["kiln_jobs_waiting[]"])


async def test_the_look_at_readiness_is_a_real_write(tmp_path: Path) -> None:
    watched = Watched()
    path = tmp_path / "kiln.sqlite3"
    async with open_database(path) as database, open_web("127.0.0.1:0", watched) as port:
        watched.database = database
        await get(port, "/readyz")
        before = path.with_name("kiln.sqlite3-wal").stat().st_size
        await get(port, "/readyz")
        assert path.with_name("kiln.sqlite3-wal").stat().st_size > before


async def test_a_port_in_use_is_one_line_that_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            StartError, match=rf"^the address 127.0.0.1:{port} is in use by another program; .*KILN_WEB"
        ):
            async with open_web(f"127.0.0.1:{port}", Watched()):
                pass


@pytest.mark.parametrize("address", ["203.0.113.7:9464", "no-such-host.invalid:9464", "127..0.1:9464"])
async def test_an_address_that_is_not_this_machines_is_one_line(address: str) -> None:
    with pytest.raises(StartError, match=rf"^the address {address} cannot be used: "):
        async with open_web(address, Watched()):
            pass


async def test_off_serves_nothing() -> None:
    async with open_web(OFF, Watched()) as port:
        assert port is None


async def test_other_pages_and_verbs_do_not_exist() -> None:
    async with open_web("127.0.0.1:0", Watched()) as port:
        assert (await get(port, "/"))[0] == 404
        async with aiohttp.ClientSession() as session, session.post(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 405


async def test_a_reader_who_never_finishes_does_not_hold_the_end() -> None:
    async with open_web("127.0.0.1:0", Watched()) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 2
    writer.close()


def test_busy_seconds_never_fall() -> None:
    metrics = Metrics()
    for seconds in (3.0, 2.0, 5.0):
        metrics.worked(seconds)
    assert next(iter(metrics.busy.collect())).samples[0].value == 5.0


async def test_the_owners_wish_is_on_cards_in_the_queue_command_and_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.host.caretaker.LOOK_SECONDS", 0.01)
    watched = Watched()
    async with serving(tmp_path, watched) as (stage, port):
        stage.kiln.pause.begin()
        await eventually(lambda: watched.why_paused())
        await stage.imagine("a house")
        (card,) = stage.messages()
        assert "place 1 of 1. Drawing is paused by the operator." in str([part.to_dict() for part in card.components])
        asked = await stage.alice.slash(stage.channel, "queue")
        assert "Drawing is paused by the operator." in said(asked)
        assert (await scrape(port))["kiln_paused[('why', 'asked')]"] == 1
        stage.kiln.pause.end()
        await eventually(stage.pictures)
        assert not any(sample.startswith("kiln_paused[(") for sample in await scrape(port))


async def test_a_card_that_waits_already_says_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.host.caretaker.LOOK_SECONDS", 0.01)
    async with serving(tmp_path, Watched(), edit_every=timedelta(milliseconds=20)) as (stage, _):
        stage.detach()
        await stage.imagine("stuck")
        await eventually(lambda: stage.generator.begun)
        await stage.imagine("a boat")
        stage.kiln.pause.begin()
        await eventually(lambda: "paused by the operator" in str([m.components for m in stage.messages()]), seconds=5)
        stage.generator.release.set()
