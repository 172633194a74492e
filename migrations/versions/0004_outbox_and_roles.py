"""An outbox of its own for pictures, channels that take none, and what each role may have.

Revision 0004. What is drawn and not posted goes into the outbox as if its posting had begun, because an earlier Kiln
may have begun it. Imports no live code: it must do the same in ten years.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OVER = "status IN ('delivered', 'cancelled', 'failed', 'quarantined', 'kept', 'reply_unknown')"


def upgrade() -> None:
    """Create the tables, add the columns, and make the indexes that say more now."""
    _create_outbox()
    _create_roles()
    op.add_column("jobs", sa.Column("parent_channel_id", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("rate_seconds", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("cold", sa.Boolean(), server_default=sa.text("0"), nullable=False))
    op.drop_index("jobs_timed_by_shape", table_name="jobs")
    shape = ["width", "height", "steps", "cold", "finished_at"]
    op.create_index("jobs_timed_by_shape", "jobs", shape, sqlite_where=sa.text("seconds IS NOT NULL"))
    op.drop_index("jobs_unshown", table_name="jobs")
    op.create_index("jobs_unshown", "jobs", ["id"], sqlite_where=sa.text(f"end_shown = 0 AND {OVER}"))
    op.execute(
        "INSERT INTO outbox (job_id, nonce, state, attempts, tried_channel_id) "
        "SELECT id, id || '-' || (interaction_id % 1000000000000), 'sending', 1, channel_id "
        "FROM jobs WHERE status = 'drawn'"
    )


def downgrade() -> None:
    """There is no way down: restore the copy that the upgrade made."""
    raise NotImplementedError("restore the copy of the database that the upgrade made")


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("job_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("nonce", sa.String(length=25), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tried_channel_id", sa.BigInteger(), nullable=True),
        sa.Column("next_try_at", sa.DateTime(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", name="outbox_pk"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="outbox_job_id_to_jobs"),
    )
    op.create_table(
        "dead_channels",
        sa.Column("channel_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("until", sa.DateTime(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("channel_id", name="dead_channels_pk"),
    )


def _create_roles() -> None:
    op.create_table(
        "roles",
        sa.Column("guild_id", sa.BigInteger(), nullable=False),
        sa.Column("role_id", sa.BigInteger(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=True),
        sa.Column("waiting_per_user", sa.Integer(), nullable=True),
        sa.Column("pictures_per_hour", sa.Integer(), nullable=True),
        sa.Column("burst", sa.Integer(), nullable=True),
        sa.Column("gpu_seconds_per_day", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("guild_id", "role_id", name="roles_pk"),
    )
