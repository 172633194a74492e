"""What a request may hold by now, how a job came about, and several jobs of one interaction.

Revision 0005. One interaction is still one request: its jobs are told apart by a number. SQLite cannot change a
constraint, so the table of jobs is written anew. Imports no live code: it must do the same in ten years.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

PASSES = "steps * (1 + (cfg_scale > 1))"


def upgrade() -> None:
    """Add the columns, number the jobs of an interaction, and know timings by passes through the model."""
    before = op.get_bind().scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'"))
    op.drop_index("jobs_timed_by_shape", table_name="jobs")
    with op.batch_alter_table("jobs", recreate="always", table_kwargs={"sqlite_autoincrement": True}) as jobs:
        for column in _columns():
            jobs.add_column(column)
        jobs.create_foreign_key("jobs_parent_id_to_jobs", "jobs", ["parent_id"], ["id"], ondelete="SET NULL")
        jobs.drop_constraint("jobs_interaction_id_unique", type_="unique")
        jobs.create_unique_constraint("jobs_interaction_id_unique", ["interaction_id", "number"])
    for name, of in (("jobs_cards", "card_message_id"), ("jobs_results", "result_message_id")):
        op.create_index(name, "jobs", [of], sqlite_where=sa.text(f"{of} IS NOT NULL"))
    op.create_index("jobs_children", "jobs", ["parent_id"], sqlite_where=sa.text("parent_id IS NOT NULL"))
    if before is not None:  # an id is never used again, also one whose job is gone
        op.execute("DELETE FROM sqlite_sequence WHERE name = 'jobs'")
        op.execute(f"INSERT INTO sqlite_sequence (name, seq) VALUES ('jobs', {int(before)})")
    op.add_column("jobs", sa.Column("passes", sa.Integer(), sa.Computed(PASSES, persisted=False)))
    shape = ["width", "height", "passes", "cold", "finished_at"]
    op.create_index("jobs_timed_by_shape", "jobs", shape, sqlite_where=sa.text("seconds IS NOT NULL"))


def downgrade() -> None:
    """There is no way down: restore the copy that the upgrade made."""
    raise NotImplementedError("restore the copy of the database that the upgrade made")


def _columns() -> list[sa.Column[object]]:
    return [
        sa.Column("negative", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("cfg_scale", sa.Double(), server_default=sa.text("1"), nullable=False),
        sa.Column("loras", sa.Text(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("variations", sa.Text(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("number", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("count", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("verb", sa.String(length=16), nullable=True),
        sa.Column("style", sa.Text(), nullable=True),
        sa.Column("locale", sa.String(length=16), nullable=True),
        sa.Column("private", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("result_channel_id", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.DateTime(), nullable=True),
    ]
