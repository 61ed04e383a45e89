"""The tables of jobs as SQLAlchemy Core sees them. What creates and changes them are the migrations beside this file."""

from __future__ import annotations

import sqlalchemy as sa

HEAD = "0003"
"""The migration that this release works with."""

metadata = sa.MetaData()

job = sa.Table(
    "job",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("analysis", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("tier", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("service_key", sa.Double, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("idempotency_key", sa.Text, unique=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("not_before", sa.Double, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("worker", sa.Text),
    sa.Column("lease_until", sa.Double),
    sa.Column("claimed_at", sa.Double),
    sa.Column("first_started_at", sa.Double),
    sa.Column("ended_at", sa.Double),
    sa.Column("attained_s", sa.Double, nullable=False),
    sa.Column("predicted_s", sa.Double),
    sa.Column("predicted_core_s", sa.Double),
    sa.Column("predicted_bytes", sa.BigInteger),
    sa.Column("core_s", sa.Double),
    sa.Column("peak_bytes", sa.BigInteger),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("finished_tasks", sa.BigInteger, nullable=False),
    sa.Column("total_tasks", sa.BigInteger),
    sa.Column("own_ends", sa.Integer, nullable=False),
    sa.Column("losses", sa.Integer, nullable=False),
    sa.Column("escalated", sa.Boolean, nullable=False),
    sa.Column("cancel_asked", sa.Boolean, nullable=False),
    sa.Column("max_total_s", sa.Double, nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("digest", sa.Text),
    sa.Column("ending", sa.Text),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("published_at", sa.Double),
    sqlite_autoincrement=True,  # the number of a pruned job is not given to another
)
waiting = sa.Index(
    "job_waiting", job.c.tier, job.c.service_key, job.c.id,
    sqlite_where=job.c.state == "queued", postgresql_where=job.c.state == "queued",
)  # fmt: skip
leased = sa.Index(
    "job_leased", job.c.lease_until, sqlite_where=job.c.state == "running", postgresql_where=job.c.state == "running"
)

worker = sa.Table(
    "worker",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tier", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # booting, idle, busy, draining
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("memory_bytes", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
    sa.Column("since", sa.Double, nullable=False),  # when it came into its state
    sa.Column("asked", sa.Boolean, nullable=False),  # to leave when it is idle
)

named = sa.Table(
    "named",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),  # model, data, sent (who sent an input)
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("input", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
)

spent = sa.Table(
    "spent",
    metadata,
    sa.Column("tier", sa.Text, primary_key=True),
    sa.Column("since", sa.Double, nullable=False),  # when the first of them came
    sa.Column("worker_s", sa.Double, nullable=False),  # seconds that workers were there which have left
)

office = sa.Table(
    "office",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),  # such as "scaler": held by one at a time
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("until", sa.Double, nullable=False),
)
