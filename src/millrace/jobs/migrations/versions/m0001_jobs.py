"""Jobs, workers, registered names, offices.

The columns are written out, and not taken from `jobs.schema`: a migration stays as it was when the schema moves on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    text, whole, real = sa.Text, sa.BigInteger, sa.Double
    op.create_table(
        "job",
        sa.Column("id", number, primary_key=True),
        *(sa.Column(name, text, nullable=False) for name in ("analysis", "label", "question")),
        sa.Column("seed", whole, nullable=False),
        *(sa.Column(name, text, nullable=False) for name in ("queue", "tier")),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("service_key", real, nullable=False),
        sa.Column("state", text, nullable=False),
        sa.Column("owner", text, nullable=False),
        sa.Column("idempotency_key", text, unique=True),
        *(sa.Column(name, real, nullable=False) for name in ("created_at", "not_before")),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("worker", text),
        *(sa.Column(name, real) for name in ("lease_until", "claimed_at", "first_started_at", "ended_at")),
        sa.Column("attained_s", real, nullable=False),
        *(sa.Column(name, real) for name in ("predicted_s", "predicted_core_s")),
        sa.Column("predicted_bytes", whole),
        sa.Column("core_s", real),
        sa.Column("peak_bytes", whole),
        sa.Column("stage", text, nullable=False),
        sa.Column("finished_tasks", whole, nullable=False),
        sa.Column("total_tasks", whole),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("own_ends", "losses")),
        *(sa.Column(name, sa.Boolean, nullable=False) for name in ("escalated", "cancel_asked")),
        sa.Column("max_total_s", real, nullable=False),
        *(sa.Column(name, text) for name in ("result", "digest", "ending")),
        sa.Column("why", text, nullable=False),
        sa.Column("published_at", real),
        sqlite_autoincrement=True,
    )
    queued, running = sa.text("state = 'queued'"), sa.text("state = 'running'")
    op.create_index("job_waiting", "job", ["tier", "service_key", "id"], sqlite_where=queued, postgresql_where=queued)
    op.create_index("job_leased", "job", ["lease_until"], sqlite_where=running, postgresql_where=running)
    op.create_table(
        "worker",
        sa.Column("id", text, primary_key=True),
        *(sa.Column(name, text, nullable=False) for name in ("tier", "host")),
        sa.Column("pid", sa.Integer, nullable=False),
        *(sa.Column(name, text, nullable=False) for name in ("version", "state")),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("memory_bytes", whole, nullable=False),
        *(sa.Column(name, real, nullable=False) for name in ("started_at", "seen_at")),
    )
    op.create_table(
        "named",
        *(sa.Column(name, text, primary_key=True) for name in ("kind", "name")),
        sa.Column("input", text, nullable=False),
        sa.Column("at", real, nullable=False),
    )
    op.create_table(
        "office",
        sa.Column("name", text, primary_key=True),
        sa.Column("holder", text, nullable=False),
        sa.Column("until", real, nullable=False),
    )
