"""/imagine, from the option to the picture."""

from __future__ import annotations

from tests.bot.conftest import Stage, text_of


async def test_imagine_brings_a_picture_that_mentions_its_author_alone(stage: Stage) -> None:
    result = await stage.imagine("a red house", seed=42)
    assert result.response is not None
    print(text_of(result.response))
    (picture,) = stage.pictures()
    print(picture.content, picture.attachments[0].filename, picture.attachments[0].description)
    assert [user.id for user in picture.mentions] == [stage.alice.id]
