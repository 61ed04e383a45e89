"""Workers: since when they are in their state, and whether they were asked to leave."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("worker", sa.Column("since", sa.Double, nullable=False, server_default="0"))
    op.add_column("worker", sa.Column("asked", sa.Boolean, nullable=False, server_default=sa.false()))
