"""Styles that servers have of their own.

Revision 0009. Imports no live code: it must do the same in ten years.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "styles",
        sa.Column("guild_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("name", "prefix", "suffix", "negative")),
        *(sa.Column(name, sa.Integer(), nullable=True) for name in ("across", "down", "steps")),
        sa.Column("guidance", sa.Double(), nullable=True),
        sa.Column("loras", sa.Text(), server_default=sa.text("'[]'"), nullable=False),
        sa.PrimaryKeyConstraint("guild_id", "key", name="styles_pk"),
    )


def downgrade() -> None:
    """There is no way down: restore the copy that the upgrade made."""
    raise NotImplementedError("restore the copy of the database that the upgrade made")
