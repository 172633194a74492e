"""What a classifier finds goes behind a spoiler, is heard in the log channel, and is posted once all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.servers.server import Act
from gen.request import StepReport
from tests.bot.conftest import Stage, open_stage
from tests.bot.keepers import enter
from tests.fakes import new_job


class Eye:
    """A classifier of our protocol that says what it was told to."""

    def __init__(self, label: str | None, *, broken: bool = False) -> None:
        self.label, self.broken, self.seen = label, broken, 0

    def found(self, png: bytes) -> str | None:
        """As told."""
        assert png.startswith(b"\x89PNG")
        self.seen += 1
        if self.broken:
            raise RuntimeError("as asked")
        return self.label


@pytest.mark.parametrize(("eye", "label"), [(Eye("nsfw"), "nsfw"), (Eye(None, broken=True), r"?")])
async def test_what_is_found_or_cannot_be_looked_at_is_hidden_and_heard(tmp_path: Path, eye: Eye, label: str) -> None:
    async with open_stage(tmp_path / "data") as stage:
        stage.kiln.keepers.looking.use(eye)
        keepers = enter(stage)
        await keepers.change(log_channel_id=keepers.log.id)
        await stage.imagine("a red house")
        (picture,) = stage.pictures()
        assert picture.attachments[0].filename.startswith("SPOILER_kiln-1-")
        heard = keepers.posts()[-1]
        assert f"hidden behind a spoiler. The classifier found: {label}" in heard
        assert "a red house" in heard


async def test_what_is_harmless_is_shown_as_it_is(tmp_path: Path) -> None:
    eye = Eye(None)
    async with open_stage(tmp_path / "data") as stage:
        stage.kiln.keepers.looking.use(eye)
        await stage.imagine()
        (picture,) = stage.pictures()
        assert picture.attachments[0].filename.startswith("kiln-1-")
        acts = await stage.kiln.keepers.audit.of_server(stage.guild.id, limit=9)
        assert (eye.seen, [entry.act for entry in acts]) == (1, [])


@pytest.mark.parametrize(("eye", "previews"), [(None, True), (Eye(None), False)])
async def test_no_preview_is_shown_of_what_was_not_looked_at(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, eye: Eye | None, previews: bool
) -> None:
    stage.kiln.keepers.looking.use(eye)
    shown = list[bool]()
    monkeypatch.setattr(
        stage.kiln.delivery._showing, "show", lambda job, *, report: shown.append(report.preview is not None)
    )
    job = await stage.kiln.queue.submit(new_job(1))
    stage.kiln.delivery.progress(job, StepReport(step=1, steps=2, seconds=0.1, preview=b"JPEG"))
    assert shown == [previews]


async def test_a_hidden_picture_is_found_again_by_its_name(tmp_path: Path) -> None:
    async with open_stage(tmp_path / "data") as stage:
        stage.kiln.keepers.looking.use(Eye("nsfw"))
        await stage.imagine()
        job = await stage.kiln.queue.job(1)
        assert job is not None
        ladder = stage.kiln.delivery._ladder
        assert ladder is not None
        found = await ladder._poster.find(job, channel_id=stage.channel.id)
        assert found is not None
        assert found.message_id == stage.pictures()[0].id
        acts = await stage.kiln.keepers.audit.of_server(stage.guild.id, limit=9)
        assert [entry.act for entry in acts] == [Act.SEEN]
