"""The operator's commands about the data folder, on real files."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bot.__main__ import main
from bot.settings import Settings, variable
from bot.storage.database import lock


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without settings; the data folder in it."""
    for field in Settings.model_fields:
        monkeypatch.delenv(variable(field), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def note(data: Path, words: str) -> None:
    """Leave a mark in the database, in its log only."""
    with closing(sqlite3.connect(data / "kiln.sqlite3")) as connection, connection:
        connection.execute("INSERT INTO dead_channels VALUES (1, '2026-01-01', ?)", [words])


def marks(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [words for (words,) in connection.execute("SELECT error FROM dead_channels")]


def test_a_pause_is_a_file_and_may_be_asked_for_and_ended_twice(data: Path) -> None:
    assert main(["db", "upgrade"]) == 0
    assert [main(["pause"]), main(["pause"]), (data / "paused").exists()] == [0, 0, True]
    assert [main(["resume"]), main(["resume"]), (data / "paused").exists()] == [0, 0, False]


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_folder_without_a_kiln_is_told_so_instead_of_a_pause_that_nobody_sees(
    data: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command]) == 1
    assert f"no Kiln has its data in {data}: set KILN_DATA" in capsys.readouterr().err
    assert not data.exists()


def test_a_restored_copy_is_what_was_copied_and_what_was_there_is_kept(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["db", "upgrade"]) == 0
    assert main(["db", "backup", "copy.sqlite3"]) == 0
    note(data, "after the copy")
    assert main(["db", "restore", "copy.sqlite3"]) == 0
    assert marks(data / "kiln.sqlite3") == []
    (kept,) = data.glob("kiln-replaced-*.sqlite3")
    assert marks(kept) == ["after the copy"]
    assert str(kept.name) in capsys.readouterr().out
    assert main(["db", "check"]) == 0


def test_what_stood_only_in_the_log_of_the_old_file_does_not_come_into_the_restored_one(data: Path) -> None:
    main(["db", "upgrade"])
    main(["db", "backup", "copy.sqlite3"])
    with closing(sqlite3.connect(data / "kiln.sqlite3")) as held:  # as after a kill: the log is not folded in
        held.execute("SELECT count(*) FROM jobs").fetchone()
        note(data, "in the log")
        assert (data / "kiln.sqlite3-wal").stat().st_size > 0
        assert main(["db", "restore", "copy.sqlite3"]) == 0
        assert marks(data / "kiln.sqlite3") == []


def test_a_restore_while_kiln_runs_is_refused_and_changes_nothing(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["db", "upgrade"])
    main(["db", "backup", "copy.sqlite3"])
    note(data, "here")
    with lock(data / "kiln.sqlite3"):
        assert main(["db", "restore", "copy.sqlite3"]) == 1
    assert "is in use by another Kiln" in capsys.readouterr().err
    assert marks(data / "kiln.sqlite3") == ["here"]


@pytest.mark.parametrize("copy", ["missing.sqlite3", "text.sqlite3"])
def test_a_copy_that_is_none_is_refused_and_changes_nothing(
    copy: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.sqlite3").write_text("not a database" * 500)
    main(["db", "upgrade"])
    note(data, "here")
    assert main(["db", "restore", copy]) == 1
    assert copy in capsys.readouterr().err
    assert marks(data / "kiln.sqlite3") == ["here"]
    assert list(data.glob("*replaced*")) == list(data.glob("*.restoring")) == []


def test_a_copy_can_be_restored_into_an_empty_folder(data: Path) -> None:
    main(["db", "upgrade"])
    main(["db", "backup", "copy.sqlite3"])
    (data / "kiln.sqlite3").rename(data / "elsewhere")
    assert main(["db", "restore", "copy.sqlite3"]) == 0
    assert list(data.glob("*replaced*")) == []
