"""Servers and their keepers: settings, bans, the audit log, rules, and jobs that are held.

Revision 0007. Imports no live code: it must do the same in ten years.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, and find held jobs by person."""
    _create_servers()
    _create_bans()
    _create_audit()
    op.create_table(
        "rules",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("guild_id", sa.BigInteger(), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("place", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("id", name="rules_pk"),
        sa.UniqueConstraint("guild_id", "words", "place", name="rules_guild_id_unique"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "held",
        sa.Column("job_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("why", sa.String(length=16), nullable=False),
        sa.Column("rule", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", name="held_pk"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="held_job_id_to_jobs"),
    )
    op.create_index("jobs_held_by_user", "jobs", ["user_id", "id"], sqlite_where=sa.text("status = 'held'"))


def downgrade() -> None:
    """There is no way down: restore the copy that the upgrade made."""
    raise NotImplementedError("restore the copy of the database that the upgrade made")


def _create_servers() -> None:
    op.create_table(
        "servers",
        sa.Column("guild_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("standing", sa.String(length=16), server_default="open", nullable=False),
        sa.Column("channel_ids", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("log_channel_id", sa.BigInteger(), nullable=True),
        sa.Column("default_style", sa.Text(), nullable=True),
        sa.Column("size_max", sa.String(length=16), nullable=True),
        sa.Column("steps_max", sa.Integer(), nullable=True),
        sa.Column("lora_access", sa.String(length=16), server_default="everyone", nullable=False),
        sa.Column("lora_role_ids", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("private_allowed", sa.Boolean(), server_default=sa.text("1"), nullable=False),
        sa.Column("default_rules", sa.Boolean(), server_default=sa.text("1"), nullable=False),
        sa.Column("waiting_per_user", sa.Integer(), nullable=True),
        sa.Column("pictures_per_hour", sa.Integer(), nullable=True),
        sa.Column("burst", sa.Integer(), nullable=True),
        sa.Column("gpu_seconds_per_day", sa.Double(), nullable=True),
        sa.Column("server_gpu_seconds_per_day", sa.Double(), nullable=True),
        sa.Column("budget_day", sa.Date(), nullable=True),
        sa.Column("budget_seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("guild_id", name="servers_pk"),
    )


def _create_bans() -> None:
    op.create_table(
        "bans",
        sa.Column("guild_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(), nullable=True),
        sa.Column("by_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("guild_id", "user_id", name="bans_pk"),
    )


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("guild_id", sa.BigInteger(), nullable=False),
        sa.Column("act", sa.String(length=16), nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("channel_id", sa.BigInteger(), nullable=True),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("values", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("posted", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="audit_pk"),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_of_server", "audit", ["guild_id", "id"])
    op.create_index("audit_unposted", "audit", ["id"], sqlite_where=sa.text("posted = 0"))
    op.create_index("audit_of_message", "audit", ["message_id"], sqlite_where=sa.text("message_id IS NOT NULL"))
