"""/server: one panel that shows what is so, takes what is allowed, and holds at once; for keepers alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from simcord import InteractionResult

from bot.client import create_bot
from bot.panel.actions import _DO
from bot.queue.roles import RoleTerms
from bot.servers.policy import Action, Rule
from bot.servers.server import Act, LoraAccess, ServerSettings
from tests.bot.conftest import Stage, eventually, open_stage, said, text_of
from tests.bot.keepers import Keepers, allow, enter, press
from tests.bot.test_buttons import forge


@pytest.fixture
def keepers(stage: Stage) -> Keepers:
    return enter(stage)


async def settings(keepers: Keepers) -> ServerSettings:
    return await keepers.stage.kiln.keepers.servers.settings(keepers.stage.guild.id)


def shows(result: InteractionResult) -> str:
    assert result.response is not None
    return text_of(result.response)


# Who may


async def test_members_and_moderators_do_not_get_the_panel(keepers: Keepers) -> None:
    for person in (keepers.stage.alice, keepers.moderator):
        assert "server" not in person.available_commands(keepers.stage.channel)
        await allow(keepers.stage, "server", person)
        result = await person.slash(keepers.stage.channel, "server")
        assert "You need the permission Manage Server" in said(result)


async def test_the_panel_is_for_the_keeper_alone_and_a_stranger_changes_nothing_with_it(keepers: Keepers) -> None:
    shown = await keepers.panel()
    assert shown.response is not None
    assert shown.response.ephemeral


async def test_who_may_not_manage_the_server_any_more_changes_nothing_by_an_open_panel_or_dialog(
    keepers: Keepers,
) -> None:
    shown = await keepers.panel()
    dialog = await keepers.use(shown, "limits")
    member = keepers.stage.env.backend.get_guild(keepers.stage.guild.id).members[keepers.keeper.id]
    member.role_ids.clear()
    assert "You need the permission Manage Server" in said(await keepers.use(shown, "private"))
    typed = fields(dialog, **{"waiting jobs a person": "2"})
    assert "You need the permission" in said(await keepers.keeper.submit_modal(dialog, typed))
    assert await settings(keepers) == ServerSettings(guild_id=keepers.stage.guild.id)


# What it does


async def test_the_panel_shows_what_was_never_touched(keepers: Keepers) -> None:
    words = shows(await keepers.panel())
    assert "**channels**: all" in words
    assert "**pictures an hour for a person**: as the host has it" in words
    assert "⚠️" not in words


async def test_without_a_log_channel_the_panel_says_where_reports_and_held_jobs_are(keepers: Keepers) -> None:
    assert "what a rule holds in /mod held" in shows(await keepers.panel())
    await keepers.change(log_channel_id=keepers.log.id)
    assert "what a rule holds in /mod held" not in shows(await keepers.panel())


async def test_channels_and_log_are_chosen_and_hold_at_once(keepers: Keepers) -> None:
    shown = await keepers.panel()
    changed = await keepers.use(shown, "channels", keepers.log)
    assert f"**channels**: <#{keepers.log.id}>" in shows(changed)
    refused = await keepers.stage.imagine()
    assert f"Kiln draws in other channels: <#{keepers.log.id}>" in said(refused)
    await keepers.use(shown, "channels", keepers.stage.channel, keepers.log)
    await keepers.stage.imagine()
    assert len(keepers.stage.pictures()) == 1


async def test_the_log_channel_hears_of_what_the_keepers_do_and_pings_nobody(keepers: Keepers) -> None:
    await keepers.use(await keepers.panel(), "log", keepers.log)
    (post,) = keepers.log.history()
    assert post.content == f"<@{keepers.keeper.id}> changed log channel: <#{keepers.log.id}> (it was: none)."
    assert keepers.stage.notified(post) == set()


async def test_who_may_use_loras_is_everyone_chosen_roles_or_nobody(keepers: Keepers) -> None:
    role = keepers.stage.guild.create_role("patrons")
    shown = await keepers.panel()
    await keepers.use(shown, "lora_roles", role)
    changed = await keepers.use(shown, "loras", "roles")
    assert f"members of chosen roles (<@&{role.id}>)" in shows(changed)
    found = await settings(keepers)
    assert (found.lora_access, found.lora_role_ids) == (LoraAccess.ROLES, (role.id,))


async def test_private_pictures_are_switched_off_and_on(keepers: Keepers) -> None:
    shown = await keepers.panel()
    assert "**private pictures**: no" in shows(await keepers.use(shown, "private"))
    assert "**private pictures**: yes" in shows(await keepers.use(shown, "private"))


async def test_limits_are_typed_into_a_dialog_and_can_be_taken_back(keepers: Keepers) -> None:
    dialog = await keepers.use(await keepers.panel(), "limits")
    assert dialog.modal is not None
    assert dialog.modal["title"] == "Limits in this server"
    typed = {"waiting jobs a person": "2", "GPU-seconds a day for a person": " 90.5 "}
    changed = await keepers.keeper.submit_modal(dialog, fields(dialog, **typed))
    assert "**waiting jobs a person**: 2" in shows(changed)
    found = await settings(keepers)
    assert (found.waiting_per_user, found.gpu_seconds_per_day, found.burst) == (2, 90.5, None)
    again = await keepers.use(changed, "limits")
    await keepers.keeper.submit_modal(again, fields(again, **{"waiting jobs a person": ""}))
    assert (await settings(keepers)).waiting_per_user is None


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ({"waiting jobs a person": "6"}, "waiting jobs a person: that must be a whole number from 1 to 5; it is 6."),
        ({"waiting jobs a person": "0"}, "from 1 to 5; it is 0"),
        ({"waiting jobs a person": "1.5"}, "whole number from 1 to 5; it is 1.5"),
        ({"pictures in a row": "**many**"}, r"from 1 to 10; it is \*\*many\*\*"),
        ({"GPU-seconds a day for a person": "nan"}, "a number from 0 to 604800; it is nan"),
        ({"GPU-seconds a day for a person": "inf"}, "it is inf"),
        ({"GPU-seconds a day for the whole server": "-1"}, "it is -1"),
    ],
)
async def test_junk_in_the_dialog_is_refused_by_limit_and_value_and_changes_nothing(
    keepers: Keepers, typed: dict[str, str], words: str
) -> None:
    dialog = await keepers.use(await keepers.panel(), "limits")
    result = await keepers.keeper.submit_modal(dialog, fields(dialog, **typed))
    assert words in said(result)
    assert await settings(keepers) == ServerSettings(guild_id=keepers.stage.guild.id)


async def test_pictures_have_a_largest_size_most_steps_and_a_style(keepers: Keepers) -> None:
    dialog = await keepers.use(await keepers.panel(), "pictures")
    typed = {"largest size": "256 x 128", "most steps": "3", "default style": "水墨画"}
    changed = await keepers.keeper.submit_modal(dialog, fields(dialog, **typed))
    assert "**largest size**: 256x128" in shows(changed)
    assert "**default style**: Ink wash" in shows(changed)
    assert "256x128 (32,768 pixels); 256x256 has 65,536" in said(await keepers.stage.imagine())
    assert "may take 3 steps; you asked for 4" in said(await keepers.stage.imagine(size="128x128"))
    dialog = await keepers.use(await keepers.panel(), "pictures")
    assert "A size is width x height" in said(
        await keepers.keeper.submit_modal(dialog, fields(dialog, **{"largest size": "huge"}))
    )
    dialog = await keepers.use(await keepers.panel(), "pictures")
    assert "There is no style 'Baroque'" in said(
        await keepers.keeper.submit_modal(dialog, fields(dialog, **{"default style": "Baroque"}))
    )


async def test_the_servers_style_is_for_whoever_names_none(keepers: Keepers) -> None:
    stage = keepers.stage
    await keepers.change(default_style="Ink wash")
    await stage.imagine("a house")
    for style in ("Anime", "-"):
        await stage.imagine("a house", style=style)
    styles = [(await stage.kiln.queue.job(number)) for number in (1, 2, 3)]
    assert [job and job.style for job in styles] == ["Ink wash", "Anime", None]
    await keepers.change(default_style="gone")
    assert "The default style of this server, gone, no longer exists." in said(await stage.imagine("a house"))


async def test_a_style_that_there_is_not_is_no_servers_style(keepers: Keepers) -> None:
    dialog = await keepers.use(await keepers.panel(), "pictures")
    result = await keepers.keeper.submit_modal(dialog, fields(dialog, **{"default style": "no such"}))
    assert "There is no style 'no such'" in said(result)
    assert (await settings(keepers)).default_style is None


async def test_a_role_gets_its_weight_and_limits_and_loses_them(keepers: Keepers) -> None:
    role = keepers.stage.guild.create_role("patrons")
    dialog = await keepers.use(await keepers.panel(), "role", role)
    changed = await keepers.keeper.submit_modal(dialog, fields(dialog, weight="2.5", **{"pictures in a row": "7"}))
    assert f"- <@&{role.id}>: weight 2.5, pictures in a row 7" in shows(changed)
    terms = RoleTerms(guild_id=keepers.stage.guild.id, role_id=role.id, weight=2.5, burst=7)
    assert await keepers.stage.kiln.keepers.servers.roles(keepers.stage.guild.id) == (terms,)
    dialog = await keepers.use(changed, "role", role)
    changed = await keepers.keeper.submit_modal(dialog, fields(dialog, weight="", **{"pictures in a row": ""}))
    assert f"<@&{role.id}>" not in shows(changed)
    assert await keepers.stage.kiln.keepers.servers.roles(keepers.stage.guild.id) == ()


async def test_a_weight_outside_its_limits_is_refused(keepers: Keepers) -> None:
    role = keepers.stage.guild.create_role("patrons")
    dialog = await keepers.use(await keepers.panel(), "role", role)
    result = await keepers.keeper.submit_modal(dialog, fields(dialog, weight="1000"))
    assert "weight: that must be a number from 0.01 to 100; it is 1000." in said(result)


# Rules


async def add_rule(keepers: Keepers, words: str, *, action: str = "refuse", where: str = "everywhere") -> Any:
    shown = await keepers.use(await keepers.panel(), "rules")
    dialog = await keepers.use(shown, "add_rule")
    return await keepers.keeper.submit_modal(
        dialog, fields(dialog, Words=words, **{"What it does": [action], "Where": [where]})
    )


async def test_a_rule_is_added_shown_enforced_and_removed(keepers: Keepers) -> None:
    shown = await add_rule(keepers, "fox | wolf", where="open")
    assert r"- fox \| wolf: refuse, in channels without age restriction" in shows(shown)
    assert "refuses these words here: fox" in said(await keepers.stage.imagine("a F0X"))
    (rule,) = await keepers.stage.kiln.keepers.servers.rules(keepers.stage.guild.id)
    removed = await press(keepers.keeper, shown, "server:remove_rule:0", str(rule.id))
    assert "There is no rule yet." in shows(removed)


@pytest.mark.parametrize(
    ("words", "refusal"), [("|", "needs words"), ("性", "two characters or more"), ("a | a +", "needs words")]
)
async def test_a_rule_that_is_none_is_refused(keepers: Keepers, words: str, refusal: str) -> None:
    assert refusal in said(await add_rule(keepers, words))


async def test_many_rules_come_in_pages(keepers: Keepers) -> None:
    for number in range(12):
        await add_rule(keepers, f"word{number}", action="flag")
    shown = await keepers.use(await keepers.panel(), "rules")
    assert "page 1 of 2" in shows(shown)
    second = await press(keepers.keeper, shown, "server:rules_next:1")
    assert "word11" in shows(second)
    assert "word9:" not in shows(second)
    back = await press(keepers.keeper, second, "server:back:0")
    assert "Kiln in" in shows(back)


async def test_the_rules_that_kiln_brings_are_switched_off(keepers: Keepers) -> None:
    assert "refuses these words here: nude" in said(await keepers.stage.imagine("a nude"))
    shown = await keepers.use(await keepers.panel(), "rules")
    assert shown.response is not None
    assert "Switch Kiln's rules off" in str(shown.response.components)
    await keepers.use(shown, "usual")
    await keepers.stage.imagine("a nude")
    assert "no sexual pictures of minors" in said(await keepers.stage.imagine("a nude child"))


# What was configured and is gone


async def test_a_deleted_channel_and_role_are_said_to_the_keeper(keepers: Keepers) -> None:
    await keepers.change(channel_ids=(5,), log_channel_id=6, lora_role_ids=(7,))
    words = shows(await keepers.panel())
    assert "All chosen channels were deleted, so Kiln answers nowhere" in words
    assert "The log channel was deleted" in words
    assert "Roles with settings here that were deleted: 1." in words


async def test_what_a_role_had_goes_with_it_and_the_log_channel_hears_of_it(keepers: Keepers) -> None:
    stage, servers = keepers.stage, keepers.stage.kiln.keepers.servers
    kept, role = stage.guild.create_role("kept"), stage.guild.create_role("*patrons*")
    await keepers.change(log_channel_id=keepers.log.id, lora_role_ids=(kept.id, role.id))
    for one in (kept, role):
        await servers.set_role(RoleTerms(guild_id=stage.guild.id, role_id=one.id, weight=2.5), actor_id=1)
    stage.env.backend.delete_role(stage.guild.id, role.id)
    await eventually(lambda: any("was deleted" in post for post in keepers.posts()))
    assert r"The role \*patrons\* was deleted. What it had here is gone too: weight 2.5." in keepers.posts()[-1]
    assert [terms.role_id for terms in await servers.roles(stage.guild.id)] == [kept.id]
    assert (await settings(keepers)).lora_role_ids == (kept.id,)
    assert "were deleted" not in shows(await keepers.panel())


async def test_a_role_that_had_nothing_goes_without_a_word(keepers: Keepers) -> None:
    stage = keepers.stage
    role = stage.guild.create_role("plain")
    await keepers.change(log_channel_id=keepers.log.id)
    stage.env.backend.delete_role(stage.guild.id, role.id)
    await keepers.panel()
    assert [entry.act for entry in await stage.kiln.keepers.audit.of_server(stage.guild.id, limit=9)] == [Act.SETTINGS]


async def test_a_role_that_was_deleted_while_kiln_was_away_is_found_at_its_start(keepers: Keepers) -> None:
    stage, servers = keepers.stage, keepers.stage.kiln.keepers.servers
    everyone = stage.guild.id
    for role_id in (7, everyone):
        await servers.set_role(RoleTerms(guild_id=stage.guild.id, role_id=role_id, weight=2), actor_id=1)
    await stage.env.restart_bot(create_bot(stage.kiln))
    await keepers.panel()
    assert [terms.role_id for terms in await servers.roles(stage.guild.id)] == [everyone]


async def test_a_role_that_is_deleted_under_an_open_dialog_gets_nothing(keepers: Keepers) -> None:
    stage = keepers.stage
    role = stage.guild.create_role("patrons")
    dialog = await keepers.use(await keepers.panel(), "role", role)
    stage.env.backend.delete_role(stage.guild.id, role.id)
    result = await keepers.keeper.submit_modal(dialog, fields(dialog, weight="2"))
    assert "That role was deleted meanwhile." in said(result)
    assert await stage.kiln.keepers.servers.roles(stage.guild.id) == ()


async def test_a_member_hears_that_every_chosen_channel_is_gone(keepers: Keepers) -> None:
    await keepers.change(channel_ids=(5,))
    assert "Its moderators have to choose others" in said(await keepers.stage.imagine())


async def test_a_server_named_with_a_hundred_emoji_and_markup_fits_and_does_nothing(keepers: Keepers) -> None:
    guild = keepers.stage.bot.get_guild(keepers.stage.guild.id)
    assert guild is not None
    guild.name = "**@everyone** " + "🦊" * 86
    words = shows(await keepers.panel())
    assert r"\*\*@" in words
    assert "@everyone" not in words


# Before and after a restart


async def test_a_panel_from_before_a_restart_still_works(tmp_path: Path) -> None:
    async with open_stage(tmp_path / "data") as stage:
        keepers = enter(stage)
        shown = await keepers.panel()
        await stage.env.restart_bot(create_bot(stage.kiln))
        changed = await keepers.use(shown, "private")
        assert "**private pictures**: no" in shows(changed)


def rule(words: str) -> Rule:
    return Rule(words=words, action=Action.FLAG)


PARTS = {
    "channels": ["here"],
    "log": ["here"],
    "loras": ["nobody"],
    "lora_roles": ["role"],
    "role": ["role"],
    "limits": [],
    "pictures": [],
    "private": [],
    "rules": [],
    "rules_next": [],
    "add_rule": [],
    "remove_rule": ["rule"],
    "usual": [],
    "back": [],
}


def test_every_part_of_the_panel_is_tried_after_a_restart() -> None:
    assert set(PARTS) == set(_DO)


@pytest.mark.parametrize("part", PARTS)
async def test_every_part_of_the_panel_works_after_a_restart(keepers: Keepers, part: str) -> None:
    stage, servers = keepers.stage, keepers.stage.kiln.keepers.servers
    rules = [await servers.add_rule(stage.guild.id, rule(f"rule {n}"), actor_id=1) for n in range(11)]
    shown = await keepers.panel()
    if part in ("rules_next", "add_rule", "remove_rule", "usual", "back"):
        shown = await keepers.use(shown, "rules")
    role = stage.guild.create_role("painters")
    await stage.env.restart_bot(create_bot(stage.kiln))
    named = {"here": keepers.log, "role": role, "rule": str(rules[0].id)}
    values = [named.get(value, value) for value in PARTS[part]]
    page = 1 if part == "rules_next" else 0
    answered = await press(keepers.keeper, shown, f"server:{part}:{page}", *values)
    assert answered.modal is not None or "Kiln" in shows(answered) or "Rules of this server" in shows(answered)


async def test_a_dialog_of_the_panel_from_before_a_restart_says_so_and_changes_nothing(keepers: Keepers) -> None:
    dialog = await keepers.use(await keepers.panel(), "limits")
    await keepers.stage.env.restart_bot(create_bot(keepers.stage.kiln))
    typed = fields(dialog, **{"waiting jobs a person": "2"})
    words = said(await keepers.keeper.submit_modal(dialog, typed))
    assert words == "Kiln was restarted meanwhile. Please open this dialog again."
    assert (await settings(keepers)).waiting_per_user is None


async def test_a_part_of_another_version_says_so(keepers: Keepers) -> None:
    await keepers.stage.imagine()
    assert "of another version of Kiln" in said(await forge(keepers.stage, "server:gone:0", by=keepers.keeper))


@pytest.fixture
async def owned(tmp_path: Path) -> AsyncIterator[Keepers]:
    """A stage whose keeper is the host as well."""
    async with open_stage(tmp_path / "data") as first:
        host = enter(first).keeper.id
    async with open_stage(tmp_path / "data", owner_ids=frozenset({host})) as stage:
        keepers = enter(stage)
        assert keepers.keeper.id == host
        yield keepers


async def test_the_hosts_own_people_may_give_more_than_the_host_gives_others(owned: Keepers) -> None:
    dialog = await owned.use(await owned.panel(), "limits")
    await owned.keeper.submit_modal(dialog, fields(dialog, **{"waiting jobs a person": "50"}))
    assert (await settings(owned)).waiting_per_user == 50


def fields(dialog: InteractionResult, **typed: Any) -> dict[str, Any]:
    """What was typed, by the dialog's own names for its fields; what is not named stays as it was."""
    assert dialog.modal is not None
    found = {}
    for label in dialog.modal["components"]:
        control = label["component"]
        if label["label"] in typed:
            found[control["custom_id"]] = typed[label["label"]]
    assert len(found) == len(typed), dialog.modal
    return found
