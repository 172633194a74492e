"""What people were shown and what was lost: whether a job's end was shown, and how often its picture was lost.

Revision 0003. Ends of before count as shown: their cards are as true as they will get. Imports no live code: it must
do the same in ten years.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OVER = "status IN ('delivered', 'cancelled', 'failed', 'quarantined')"


def upgrade() -> None:
    """Add the columns and the index of what is still to be shown."""
    op.add_column("jobs", sa.Column("end_shown", sa.Boolean(), server_default=sa.text("0"), nullable=False))
    op.add_column("jobs", sa.Column("pictures_lost", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.execute(f"UPDATE jobs SET end_shown = 1 WHERE {OVER}")
    op.create_index("jobs_unshown", "jobs", ["id"], sqlite_where=sa.text(f"end_shown = 0 AND {OVER}"))


def downgrade() -> None:
    """There is no way down: restore the copy that the upgrade made."""
    raise NotImplementedError("restore the copy of the database that the upgrade made")
