"""What people have chosen for themselves and posted again, and an index of everybody's pictures.

Revision 0006. Imports no live code: it must do the same in ten years.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and the index."""
    op.create_table(
        "preferences",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.String(length=20), nullable=True),
        sa.Column("style", sa.Text(), nullable=True),
        sa.Column("steps", sa.Integer(), nullable=True),
        sa.Column("guidance", sa.Double(), nullable=True),
        sa.Column("locale", sa.String(length=16), nullable=True),
        sa.Column("private", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("user_id", name="preferences_pk"),
    )
    op.create_table(
        "reposts",
        sa.Column("message_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("channel_id", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("message_id", name="reposts_pk"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="reposts_job_id_to_jobs", ondelete="CASCADE"),
    )
    op.create_index("reposts_of_job", "reposts", ["job_id"])
    op.create_index("jobs_pictures", "jobs", ["user_id", "id"], sqlite_where=sa.text("picture IS NOT NULL"))


def downgrade() -> None:
    """There is no way down: restore the copy that the upgrade made."""
    raise NotImplementedError("restore the copy of the database that the upgrade made")
