"""Jobs, and the people who ask for them.

Revision 0001, the first. Imports no live code: it must do the same in ten years.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create `users` and `jobs`."""
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("theoretical_arrival", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="users_pk"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("interaction_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("guild_id", sa.BigInteger(), nullable=False),
        sa.Column("channel_id", sa.BigInteger(), nullable=False),
        sa.Column("card_message_id", sa.BigInteger(), nullable=True),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("guidance", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("attempt_token", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("picture", sa.Text(), nullable=True),
        sa.Column("result_message_id", sa.BigInteger(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("notice", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="jobs_pk"),
        sa.UniqueConstraint("interaction_id", name="jobs_interaction_id_unique"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="jobs_user_id_to_users"),
        sqlite_autoincrement=True,
    )
    _index("jobs_queued", ["id"], where="status = 'queued'")
    _index("jobs_queued_by_user", ["user_id", "id"], where="status = 'queued'")
    _index("jobs_running", ["id"], where="status = 'running'")
    _index("jobs_drawn", ["id"], where="status = 'drawn'")
    _index("jobs_timed", ["finished_at"], where="seconds IS NOT NULL")
    _index("jobs_timed_by_shape", ["width", "height", "steps", "finished_at"], where="seconds IS NOT NULL")


def downgrade() -> None:
    """There is no way down: restore the copy that the upgrade made."""
    raise NotImplementedError("restore the copy of the database that the upgrade made")


def _index(name: str, columns: list[str], *, where: str) -> None:
    op.create_index(name, "jobs", columns, sqlite_where=sa.text(where))
