"""${message}

Revision ${up_revision}, after ${down_revision | comma,n}. Imports no live code: it must do the same in ten years.
"""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """${message}."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """There is no way down: restore the copy that the upgrade made."""
    raise NotImplementedError("restore the copy of the database that the upgrade made")
