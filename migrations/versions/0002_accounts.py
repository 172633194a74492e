"""Shares of the GPU: accounts with a virtual time, a daily budget, and jobs that wait for their rate.

Revision 0002. Everybody starts level; queued jobs are counted into their owner's account, and running ones belong to
it, because the start that follows puts them back. Imports no live code: it must do the same in ten years.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

EVERYONE = 1


def upgrade() -> None:
    """Create `accounts`, add the columns, and fill in what waits and runs."""
    _create_accounts()
    op.add_column("users", sa.Column("budget_day", sa.Date(), nullable=True))
    op.add_column("users", sa.Column("budget_seconds", sa.Double(), server_default=sa.text("0"), nullable=False))
    # In SQL, because Alembic would recreate the whole table of jobs for the sake of one reference.
    op.execute(
        "ALTER TABLE jobs ADD COLUMN account_id INTEGER CONSTRAINT jobs_account_id_to_accounts REFERENCES accounts (id)"
    )
    op.add_column("jobs", sa.Column("not_before", sa.DateTime(), nullable=True))
    for name in ("charge", "weight", "reserved"):
        op.add_column("jobs", sa.Column(name, sa.Double(), nullable=True))
    _fill()
    _index("accounts_waiting", "accounts", ["parent_id", "vtime", "ticket", "id"], where="waiting > 0")
    _index("jobs_queued_by_account", "jobs", ["account_id", "id"], where="status = 'queued' AND not_before IS NULL")
    _index("jobs_deferred", "jobs", ["not_before", "id"], where="status = 'queued' AND not_before IS NOT NULL")


def downgrade() -> None:
    """There is no way down: restore the copy that the upgrade made."""
    raise NotImplementedError("restore the copy of the database that the upgrade made")


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("weight", sa.Double(), server_default=sa.text("1"), nullable=False),
        sa.Column("vtime", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("virtual_time", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("waiting", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("ticket", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="accounts_pk"),
        sa.UniqueConstraint("name", name="accounts_name_unique"),
        sa.ForeignKeyConstraint(["parent_id"], ["accounts.id"], name="accounts_parent_id_to_accounts"),
    )


def _fill() -> None:
    op.execute(f"INSERT INTO accounts (id, name) VALUES ({EVERYONE}, 'everyone')")
    op.execute(
        "INSERT INTO accounts (name, parent_id, waiting, ticket) "
        f"SELECT 'user:' || user_id, {EVERYONE}, sum(status = 'queued'), min(id) "
        "FROM jobs WHERE status IN ('queued', 'running') GROUP BY user_id ORDER BY min(id)"
    )
    op.execute(
        "UPDATE jobs SET account_id = (SELECT id FROM accounts WHERE name = 'user:' || jobs.user_id) "
        "WHERE status IN ('queued', 'running')"
    )


def _index(name: str, table: str, columns: list[str], *, where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where))
