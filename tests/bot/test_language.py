"""The bot in two languages: catalogues that lack nothing, and people who are answered in theirs."""

from __future__ import annotations

import ast
import asyncio
import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
import simcord.interactions
from babel.messages.catalog import Message as Entry
from babel.messages.pofile import read_po

from bot.cards.job_card import card
from bot.client import create_bot
from bot.errors import QueueFull, Refusal
from bot.language import CATALOGUES, LOCALE_NAMES, LOCALES, Message, msg, say_in
from bot.queue.job_queue import JobQueue
from docs.catalogue import ROOT, Text, called, calls, is_translated, texts, update
from gen.errors import InvalidRequest
from gen.message import Worded
from gen.request import ImageRequest
from tests.bot.conftest import Stage, said, text_of
from tests.bot.test_cards import JOB
from tests.fakes import new_job

CATALOGUE = CATALOGUES / "zh.po"
OPTION_NAME = re.compile(r"[-_\w]{1,32}")  # Discord's rule, as far as it matters to English and Chinese


def entries() -> list[Entry]:
    with CATALOGUE.open("rb") as source:
        return [entry for entry in read_po(source, locale="zh") if entry.id]


def key(entry: Entry) -> Text:
    return (entry.id[0], entry.id[1]) if isinstance(entry.id, tuple) else str(entry.id)


def forms(string: Any) -> tuple[str, ...]:
    return tuple(string) if isinstance(string, tuple | list) else (str(string),)


def placeholders(text: str) -> dict[str, str]:
    """Each placeholder of a text with how it is written."""
    return {name: f"{conversion}:{spec}" for _, name, spec, conversion in Formatter().parse(text) if name is not None}


def literal(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def sources() -> Iterator[tuple[Path, bytes]]:
    for folder in ("bot", "gen"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), path.read_bytes()


# The catalogue


def test_no_text_lacks_its_translation_and_no_translation_its_text() -> None:
    translated = {key(entry) for entry in entries() if is_translated(entry.string)}
    assert texts() - translated == set()
    assert translated - texts() == set()


def test_every_placeholder_of_a_translation_fits_its_text() -> None:
    for entry in entries():
        wanted = placeholders(forms(entry.id)[-1])
        for form in forms(entry.string):
            assert placeholders(form) == wanted, form


def test_the_catalogue_is_as_the_command_writes_it(tmp_path: Path) -> None:
    copy = tmp_path / "zh.po"
    copy.write_bytes(CATALOGUE.read_bytes())
    assert update(copy) == 0
    assert copy.read_text("utf-8") == CATALOGUE.read_text("utf-8"), "run python -m docs.catalogue"


def test_a_new_text_comes_in_without_a_translation_and_an_old_one_goes(tmp_path: Path) -> None:
    copy = tmp_path / "zh.po"
    copy.write_text(CATALOGUE.read_text("utf-8").replace('msgid "Done"', 'msgid "Gone"'), "utf-8")
    assert update(copy) == 1
    assert 'msgid "Done"\nmsgstr ""\n' in copy.read_text("utf-8")
    assert "Gone" not in copy.read_text("utf-8")


def test_chinese_is_written_with_chinese_punctuation_and_without_stray_blanks() -> None:
    han = "[\u4e00-\u9fff]"
    for entry in entries():
        for form in forms(entry.string):
            assert not re.search(rf"{han}[,;:!?.]|[,;:!?]{han}|{han} +{han}|^ | $", form), form
            assert "您" not in form, form


# The code


def test_what_waits_for_the_gpu_is_called_one_thing_in_chinese() -> None:
    told = [form for entry in entries() for form in forms(entry.string) if "等待" in form]
    assert told, "nothing waits for a review"
    assert [form for form in told if "审核" not in form] == []


def test_every_text_in_the_code_is_a_plain_literal_or_is_marked_elsewhere() -> None:
    """A text that is put together, or chosen, within the call would never be found in the catalogue."""
    for path, source in sources():
        for call in calls(source):
            text = call.args[0] if call.args else ast.Constant("")
            plain = literal(text) is not None or isinstance(text, ast.Name | ast.Attribute | ast.Subscript)
            assert plain or path.name == "message.py", f"{path}:{call.lineno}"


def test_every_call_brings_the_values_of_its_text() -> None:
    for path, source in sources():
        for node in ast.walk(ast.parse(source)):
            marked = _marked(node)
            if marked is None:
                continue
            call, text = marked
            names = {keyword.arg for keyword in call.keywords}
            if None not in names:  # **values: not to be told from here
                assert names == set(placeholders(text)), f"{path}:{call.lineno}"


def _marked(node: ast.AST) -> tuple[ast.Call, str] | None:
    """A call that fills a text: `say("…", …)`, `say.many("…", "…", n, …)`, or `AnyError(msg("…"), …)`."""
    if not isinstance(node, ast.Call) or not node.args:
        return None
    if called(node) in ("say", "many"):
        text = literal(node.args[1 if called(node) == "many" else 0])
        return None if text is None else (node, text)
    inner = node.args[0]
    if isinstance(inner, ast.Call) and called(inner) == "msg" and called(node) != "choice":
        text = literal(inner.args[0])
        return None if text is None else (node, text)
    return None


def test_no_refusal_of_the_bot_has_a_text_that_is_not_marked() -> None:
    shown = {"Message", *_names(Refusal), *_names(InvalidRequest)}
    for path, source in sources():
        if path.parts[0] != "bot" and path.name not in ("request.py", "checks.py", "lora.py", "generator.py"):
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and called(node) in shown and node.args:
                assert not isinstance(node.args[0], ast.Constant | ast.JoinedStr), f"{path}:{node.lineno}"


def _names(kind: type[Exception]) -> set[str]:
    names = {kind.__name__}
    for below in kind.__subclasses__():
        names |= _names(below)
    return names


# One language


@pytest.mark.parametrize(
    ("locales", "spoken"),
    [
        (("en-US",), "en"),
        (("en-GB",), "en"),
        (("zh-CN",), "zh"),
        (("zh-TW",), "zh"),
        (("zh",), "zh"),
        (("de",), "en"),
        (("de", "zh-CN"), "zh"),
        (("en-US", "zh-CN"), "en"),
        ((None,), "en"),
        ((), "en"),
        (("",), "en"),
        (("xx-YY",), "en"),
        (("zhuang", "None"), "en"),
        (("../zh",), "en"),
    ],
)
def test_a_language_is_the_first_that_kiln_speaks_else_english(locales: tuple[str | None, ...], spoken: str) -> None:
    assert say_in(*locales).locale == spoken
    assert spoken in LOCALES


def test_numbers_have_their_plural_forms() -> None:
    steps = ("{n} step", "{n} steps")
    assert [say_in("en").many(*steps, n, n=n) for n in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
    assert [say_in("zh").many(*steps, n, n=n) for n in (0, 1, 2)] == ["0 步", "1 步", "2 步"]


def test_a_text_that_no_catalogue_has_is_said_in_english() -> None:
    unknown, three = "nobody says {this}", "three {n} nobodies"
    assert say_in("zh")(unknown, this="x") == "nobody says x"
    assert say_in("zh").many("a nobody", three, 3, n=3) == "three 3 nobodies"


def test_values_are_never_read_as_texts_and_braces_in_them_stay() -> None:
    value = "{seed} {0} %s {"
    for locale in LOCALES:
        assert value in say_in(locale)("Not drawn. {why}", why=value)
    assert say_in("zh")("no values, {any} braces") == "no values, {any} braces"


# Errors


def test_an_error_is_english_for_the_log_and_can_be_told_in_chinese() -> None:
    error = QueueFull(waiting=5, allowed=5)
    assert str(error).startswith("5 of your jobs wait already")
    assert error.told(say_in("zh")).startswith("你已有 5 个任务在排队")


def test_values_that_are_words_themselves_are_translated_too() -> None:
    with pytest.raises(InvalidRequest) as raised:
        ImageRequest(prompt="x", seed=1, width=128, height=128, steps=0, guidance=1.0)
    assert str(raised.value) == "The steps must be from 1 to 50; it is 0."
    assert raised.value.told(say_in("zh")) == "步数必须在 1 到 50 之间，现在是 0。"
    several = Message("{names}", names=(Message(msg("Send Messages")), Message(msg("Attach Files"))))
    assert (str(several), several.told(say_in("zh"))) == ("Send Messages, Attach Files", "发送消息、添加文件")


def test_an_error_keeps_its_values_over_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(InvalidRequest("{a} and {b}", a=1, b=Message("c"))))
    assert (type(error), str(error)) == (InvalidRequest, "1 and c")
    assert isinstance(error, Worded)


# Discord's menus


def test_the_commands_are_described_in_both_languages() -> None:
    for payload in _every(asyncio.run(create_bot().payloads())):
        if payload.get("description"):
            assert payload["description_localizations"]["zh-CN"] != payload["description"]
            assert len(payload["description_localizations"]["zh-CN"]) <= 100
        for choice in payload.get("choices", []):
            same = choice["name"] in LOCALE_NAMES.values() or not re.search("[A-Za-z]", choice["name"])  # as 16:9
            assert same or "zh-CN" in choice.get("name_localizations", {})
        if payload["type"] > 2:  # not a command in a slash menu
            assert OPTION_NAME.fullmatch(payload.get("name_localizations", {}).get("zh-CN", payload["name"]))


def test_commands_keep_their_names_and_options_have_different_ones() -> None:
    for payload in asyncio.run(create_bot().payloads()):
        assert not payload.get("name_localizations") or payload["type"] > 1
        for parent in _every([payload]):
            named = [option.get("name_localizations", {}).get("zh-CN") for option in parent.get("options", [])]
            given = [name for name in named if name]
            assert len(given) == len(set(given)), parent["name"]


def _every(payloads: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for payload in payloads:
        yield payload
        yield from _every(payload.get("options", []))


# People


@pytest.fixture
def locale(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every interaction come with (the person's locale, the server's); simcord knows en-US alone."""
    user, guild = request.param
    build = simcord.interactions.base_payload

    def localised(*args: Any, **values: Any) -> Any:
        record, payload = build(*args, **values)
        return record, payload | {"locale": user, "guild_locale": guild}

    monkeypatch.setattr(simcord.interactions, "base_payload", localised)


@pytest.mark.parametrize("locale", [("zh-CN", "en-US"), ("de", "zh-CN"), ("xx", "zh-TW")], indirect=True)
@pytest.mark.usefixtures("locale")
async def test_a_person_is_answered_in_their_language_else_in_the_servers(stage: Stage) -> None:
    assert "没有图片在排队" in said(await stage.alice.slash(stage.channel, "queue"))
    assert said(await stage.alice.slash(stage.channel, "cancel", job=5)) == "你没有编号为 5 的任务。"
    assert "提示词是空的" in said(await stage.imagine("seed:42"))
    assert said(await stage.imagine(size="200x200")) == "宽度必须是 16 像素的倍数，现在是 200。"
    sizes = await stage.alice.autocomplete(stage.channel, "imagine", "size", "", prompt="a fox")
    assert {"name": "256x256 · 方图", "value": "256x256"} in sizes


@pytest.mark.parametrize("locale", [("de", "fr"), ("en-GB", "zh-CN"), ("tlh", "")], indirect=True)
@pytest.mark.usefixtures("locale")
async def test_whose_language_kiln_does_not_speak_is_answered_in_english(stage: Stage) -> None:
    assert said(await stage.alice.slash(stage.channel, "cancel", job=5)) == "You have no job 5."


@pytest.mark.parametrize("locale", [("zh-CN", "en-US")], indirect=True)
@pytest.mark.usefixtures("locale")
async def test_card_picture_and_failure_are_in_the_language_of_who_asked(stage: Stage) -> None:
    await stage.imagine("a fox seed:42")
    await stage.imagine("a broken house")
    card_shown, picture, failed = stage.messages()
    assert "已完成，用时" in text_of(card_shown)
    assert "种子 `42` · 256x256 · 4 步" in picture.content
    assert (picture.attachments[0].description or "").startswith("AI 生成的图片：a fox")
    assert "绘制失败" in text_of(failed)


async def test_what_a_row_keeps_for_its_owner_is_in_their_language(queue: JobQueue) -> None:
    await queue.submit(replace(new_job(1), locale="zh"))
    for _ in range(2):
        assert await queue.claim() is not None
        await queue.recover()
    job = await queue.job(1)
    assert job is not None
    assert job.reason == "绘制这张图片时 Kiln 崩溃了 2 次，因此不会再尝试。"


def test_a_card_is_in_one_language_from_head_to_foot() -> None:
    shown = card(say_in("zh"), JOB).to_components()  # type: ignore[no-untyped-call]
    words = "\n".join(part.get("content", "") for part in shown[0]["components"])
    assert "排队中" in words
    assert "种子 `42` · 128x128 · 4 步 · 引导 3.5 · 任务 17" in words
    assert not re.search("[a-z]{3}", words.replace("a red house", ""))
