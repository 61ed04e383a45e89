"""What workers that have left cost: the seconds that they were there, by tier."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "spent",
        sa.Column("tier", sa.Text, primary_key=True),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("worker_s", sa.Double, nullable=False),
    )
