"""`python -m docs.catalogue`: bring every catalogue in `bot/locales` to the texts of the code.

New texts come in without a translation, texts that are gone go, the rest stays; sorted and without line numbers, so
that merges are easy. Texts are what `say("…")`, `say.many("…", "…")` and `msg("…")` name, and the commands' options.
"""

from __future__ import annotations

import ast
import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from bot.client import create_bot
from bot.language import CATALOGUES

ROOT = Path(__file__).parents[1]
WORDS = {"say": (1,), "msg": (1,), "many": (1, 2)}  # functions that take texts, and as which arguments
HEADER = """\
# Kiln's words. Terms: 提示词 prompt, 种子 seed, 步数 steps, 引导 guidance, 尺寸 size, 队列 queue, 任务 job,
# 图片 picture, 风格 style, 服务器 server, 管理员 moderator, 机主 host, 额度 budget, 显卡 GPU,
# 暂缓 held, 搁置 set aside, 排队 waiting (in the queue), 等待 only for a review (等待审核).
# `python -m docs.catalogue` sorts and completes this file.
msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"
"Language: {locale}\\n"
"Plural-Forms: {plural}\\n"

"""

Text = str | tuple[str, str]  # with its plural


def texts() -> set[Text]:
    """Every text that the bot may say."""
    found: set[Text] = set(_names(asyncio.run(create_bot().payloads())))
    for folder in ("bot", "gen"):
        method = [("**.py", "docs.catalogue:extract")]
        for _, _, text, _, _ in extract_from_dir(ROOT / folder, method, keywords=WORDS):
            found.add(text if isinstance(text, str) else (text[0], text[1]))
    return found


def extract(file: IO[bytes], *_: Any, **__: Any) -> Iterator[tuple[int, str, tuple[Any, ...], list[str]]]:
    """Babel's way to read a file, by its syntax: its own overlooks calls within f-strings and within other calls."""
    for call in calls(file.read()):
        taken = call.args[: len(WORDS[called(call)])]
        found = tuple(argument.value for argument in taken if isinstance(argument, ast.Constant))
        if len(found) == len(WORDS[called(call)]):
            yield call.lineno, called(call), found, []


def calls(source: bytes) -> Iterator[ast.Call]:
    """Every call in a file that may name a text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and called(node) in WORDS:
            yield node


def called(call: ast.Call) -> str:
    """The name of what is called; `self._say("…")` and `say_in(locale)("…")` are `say`, `other.say` is not."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name) if name != "say" or isinstance(call.func, ast.Name):
            return name.lstrip("_")
        case ast.Call(func=ast.Name(id=name)) if name.startswith("say_"):
            return "say"
    return ""


def update(path: Path) -> int:
    """Bring one catalogue to the code and return how many texts have no translation."""
    with path.open("rb") as source:
        old = read_po(source, locale=path.stem)
    new = Catalog(locale=path.stem)
    for text in texts():
        known = old.get(text if isinstance(text, str) else text[0])
        kept = known.string if known is not None and known.id == text else ""
        new.add(text, kept).flags.clear()  # `python-brace-format` says nothing that a test does not
    written = io.BytesIO()
    write_po(written, new, width=110, no_location=True, omit_header=True, sort_output=True)
    header = HEADER.format(locale=path.stem, plural=new.plural_forms)
    path.write_text(header + written.getvalue().decode("utf-8").rstrip() + "\n", encoding="utf-8")
    return sum(1 for entry in new if entry.id and not is_translated(entry.string))


def is_translated(string: Any) -> bool:
    """Whether every form of an entry's translation is there."""
    return all(string) if isinstance(string, tuple) else bool(string)


def _names(payloads: list[dict[str, Any]]) -> Iterator[str]:
    """What the commands' options are called; and entries of context menus, which have no description."""
    for payload in payloads:
        yield from _names(payload.get("options", []))
        is_option = "required" in payload or payload.get("type", 1) > 3
        if is_option or not payload.get("description"):
            yield payload["name"]


def main() -> None:
    """Update every catalogue."""
    for path in sorted(CATALOGUES.glob("*.po")):
        print(f"{path.relative_to(ROOT)}: {update(path)} texts without a translation")  # noqa: T201


if __name__ == "__main__":
    main()
