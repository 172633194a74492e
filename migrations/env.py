"""How Alembic runs Kiln's revisions: on the connection it is given, each revision in a transaction of its own.

Kiln itself is the only caller (bot/storage/schema.py; on the command line `kiln db upgrade`), because an upgrade needs
the lock and a copy of the file first. The connection comes with foreign keys off: SQLite cannot alter a table, Alembic
recreates it, and with foreign keys on that deletes every row that refers to it. They are checked before each commit.
"""

from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.util import CommandError
from sqlalchemy import Connection


def check_foreign_keys(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """Roll the revision back, by raising, if it left a row that refers to nothing."""
    assert ctx.connection is not None
    broken = ctx.connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise CommandError(f"the upgrade would leave {len(broken)} rows that refer to nothing, first {broken[0]}")


def run() -> None:
    """Run what Alembic was asked to run."""
    connection = context.config.attributes.get("connection")
    if not isinstance(connection, Connection):
        raise CommandError("run migrations through `kiln db upgrade`, which locks and copies the database first")
    context.configure(
        connection=connection,
        target_metadata=context.config.attributes.get("metadata"),
        render_as_batch=True,
        transactional_ddl=True,  # true of SQLite itself; the connection begins its transactions explicitly
        transaction_per_migration=True,
        on_version_apply=check_foreign_keys,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
