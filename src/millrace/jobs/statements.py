"""Every statement over the job table, built once with bound parameters: building costs more than executing.

Each is a transaction by itself. What they mean together is in `table`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import sqlalchemy as sa

from millrace.jobs.schema import job, named, office, spent, worker
from millrace.jobs.states import ASKED_BY_TASK, OPEN

_QUEUED, _RUNNING = (sa.literal_column(f"'{state}'", sa.Text) for state in OPEN)
"""Written into the text: SQLite plans a statement anew at each call whose parameter decides whether a partial index fits."""
_OPEN = job.c.state.in_((_QUEUED, _RUNNING))


def p(name: str, kind: Any = None) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=kind)


@dataclass(frozen=True, slots=True)
class Statements:
    """One per dialect; see the functions below for each."""

    insert: Any
    by_key: Any
    by_id: Any
    claim: Any
    beat: Any
    settle: Any
    expired: Any
    cancel: Any
    again: Any
    outranked: Any
    listed: Any
    open_of: Any
    ended_after: Any
    tallies: Any
    ended_before: Any
    delete: Any
    published: Any
    untold: Any
    load: Any
    workers: Any
    see_worker: Any
    ask_worker: Any
    forget_worker: Any
    forget_workers: Any
    spend: Any
    lives: Any
    name: Any
    find_name: Any
    names: Any
    unname: Any
    mentions: Any
    take_office: Any
    leave_office: Any
    office: Any


def statements(dialect: str) -> Statements:
    """For "sqlite" or "postgresql"."""
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert  # each takes a worker a tenth of its start
    mine = sa.and_(job.c.id == p("b_id"), job.c.worker == p("b_worker"), job.c.attempt == p("b_attempt"))
    running = job.c.state == _RUNNING
    return Statements(
        insert=insert(job).on_conflict_do_nothing(index_elements=[job.c.idempotency_key]).returning(*job.c),
        by_key=sa.select(job).where(job.c.idempotency_key == p("b_key")),
        by_id=sa.select(job).where(job.c.id == p("b_id")),
        claim=_claim(),
        beat=sa.update(job)
        .where(mine, running)
        .values(
            lease_until=p("b_until"), stage=p("b_stage"), finished_tasks=p("b_finished"), total_tasks=p("b_total"),
            peak_bytes=sa.case(
                (p("b_peak", sa.BigInteger) > sa.func.coalesce(job.c.peak_bytes, 0), p("b_peak", sa.BigInteger)),
                else_=job.c.peak_bytes,
            ),
        )
        .returning(job.c.cancel_asked),
        settle=_settle(mine, running),
        expired=sa.select(job).where(running, job.c.lease_until < p("b_now")),
        cancel=_cancel(),
        again=sa.update(job)
        .where(job.c.id == p("b_id"), sa.or_(job.c.state == "failed", job.c.state == "cancelled"))
        .values(
            state="queued", not_before=p("b_now"), service_key=p("b_service_key"), own_ends=0, losses=0, ended_at=None,
            ending=None, cancel_asked=False, published_at=None, why="asked for again",
        )
        .returning(*job.c),
        outranked=sa.select(sa.literal(1))
        .where(
            job.c.tier == p("b_tier"), job.c.state == _QUEUED, job.c.not_before <= p("b_now"),
            job.c.service_key < p("b_service_key"),
        )
        .limit(1),
        listed=sa.select(job)
        .where(
            sa.or_(p("b_state", sa.Text) == "", job.c.state == p("b_state", sa.Text)),
            sa.or_(p("b_tier", sa.Text) == "", job.c.tier == p("b_tier", sa.Text)),
            sa.or_(p("b_of_all", sa.Boolean), job.c.owner == p("b_owner", sa.Text)),
            sa.or_(p("b_before", sa.BigInteger) == 0, job.c.id < p("b_before", sa.BigInteger)),
        )
        .order_by(job.c.id.desc())
        .limit(p("b_limit", sa.Integer)),
        open_of=sa.select(sa.func.count()).where(job.c.owner == p("b_owner"), _OPEN),
        ended_after=sa.select(job)
        .where(sa.or_(job.c.ended_at > p("b_at"), sa.and_(job.c.ended_at == p("b_at"), job.c.id > p("b_id"))))
        .order_by(job.c.ended_at, job.c.id)
        .limit(p("b_limit", sa.Integer)),
        tallies=sa.select(
            sa.func.sum(sa.case((job.c.attempt > 1, job.c.attempt - 1), else_=0)),
            sa.func.sum(sa.case((sa.or_(job.c.escalated, job.c.ending == "out of memory"), 1), else_=0)),
            sa.func.sum(sa.case((sa.and_(job.c.state == "failed", job.c.why.like("poison:%")), 1), else_=0)),
        ),
        ended_before=sa.select(job.c.id).where(job.c.ended_at < p("b_before")),
        delete=sa.delete(job).where(job.c.id == p("b_id"), job.c.ended_at < p("b_before")),
        published=sa.update(job).where(job.c.id == p("b_id")).values(published_at=p("b_now")),
        untold=sa.select(job)
        .where(
            job.c.ended_at < p("b_before"), job.c.ended_at > p("b_since"), job.c.published_at.is_(None),
            job.c.idempotency_key.like(f"{ASKED_BY_TASK}%"),
        )
        .limit(p("b_limit", sa.Integer)),
        load=_load(),
        workers=sa.select(worker).where(worker.c.seen_at >= p("b_since")).order_by(worker.c.started_at, worker.c.id),
        see_worker=_upsert(insert, worker, ["id"], kept=("asked",)).returning(worker.c.asked),
        ask_worker=sa.update(worker).where(worker.c.id == p("b_id")).values(asked=True),
        forget_worker=sa.delete(worker).where(worker.c.id == p("b_id")).returning(*_life),
        forget_workers=sa.delete(worker).where(worker.c.seen_at < p("b_before")).returning(*_life),
        spend=_spend(insert),
        lives=sa.union_all(sa.select(spent.c.tier, spent.c.since, spent.c.worker_s), sa.select(*_life)),
        name=_upsert(insert, named, ["kind", "name"]),
        find_name=sa.select(named.c.input).where(named.c.kind == p("b_kind"), named.c.name == p("b_name")),
        names=sa.select(named).order_by(named.c.kind, named.c.name),
        unname=sa.delete(named).where(named.c.kind == p("b_kind"), named.c.name == p("b_name")),
        mentions=sa.select(job.c.id).where(job.c.question.contains(p("b_text", sa.Text), autoescape=False)).limit(1),
        take_office=_take_office(insert),
        office=sa.select(office.c.holder, office.c.until).where(office.c.name == p("b_name"), office.c.until >= p("b_now")),
        leave_office=sa.delete(office).where(office.c.name == p("b_name"), office.c.holder == p("b_holder")),
    )  # fmt: skip


def _claim() -> Any:
    """The best job of a tier that may go now and fits into what is free. SKIP LOCKED: PostgreSQL's claimers take different
    rows instead of queueing for the first; SQLite has one writer anyway, and leaves the words out."""
    best = (
        sa.select(job.c.id)
        .where(
            job.c.tier == p("b_tier"),
            job.c.state == _QUEUED,
            job.c.not_before <= p("b_now"),
            sa.func.coalesce(job.c.predicted_bytes, p("b_share", sa.BigInteger)) <= p("b_free", sa.BigInteger),
        )
        .order_by(job.c.service_key, job.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return (
        sa.update(job)
        .where(job.c.id == best, job.c.state == _QUEUED)
        .values(
            state="running",
            worker=p("b_worker"),
            attempt=job.c.attempt + 1,
            lease_until=p("b_until"),
            claimed_at=p("b_now"),
            first_started_at=sa.func.coalesce(job.c.first_started_at, p("b_now")),
        )
        .returning(*job.c)
    )


def _settle(mine: Any, running: Any) -> Any:
    """The end of an attempt, only by who holds it. A cancel that came in the meantime wins over going again."""
    dropped = sa.and_(job.c.cancel_asked, p("b_state", sa.Text) == "queued")
    ended = sa.or_(dropped, p("b_state", sa.Text) != "queued")
    return (
        sa.update(job)
        .where(mine, running, sa.or_(p("b_any", sa.Boolean), job.c.lease_until < p("b_now")))
        .values(
            state=sa.case((dropped, "cancelled"), else_=p("b_state", sa.Text)),
            ended_at=sa.case((ended, p("b_now")), else_=None),
            not_before=p("b_not_before"),
            service_key=p("b_service_key"),
            tier=p("b_tier"),
            queue=p("b_queue"),
            lease_until=None,
            attained_s=job.c.attained_s + p("b_seconds", sa.Double),
            core_s=sa.func.coalesce(job.c.core_s, 0.0) + p("b_core_s", sa.Double),
            peak_bytes=sa.func.coalesce(p("b_peak", sa.BigInteger), job.c.peak_bytes),
            own_ends=p("b_own"),
            losses=p("b_losses"),
            escalated=sa.or_(job.c.escalated, p("b_escalated", sa.Boolean)),
            result=p("b_result"),
            digest=p("b_digest"),
            ending=p("b_ending"),
            why=p("b_why"),
            published_at=None,
        )
        .returning(*job.c)
    )


def _cancel() -> Any:
    queued = job.c.state == _QUEUED
    return (
        sa.update(job)
        .where(job.c.id == p("b_id"), _OPEN)
        .values(
            state=sa.case((queued, "cancelled"), else_=job.c.state),
            ended_at=sa.case((queued, p("b_now")), else_=None),
            ending=sa.case((queued, "cancelled"), else_=job.c.ending),
            why=sa.case((queued, p("b_why")), else_=job.c.why),
            published_at=sa.case((queued, sa.null()), else_=job.c.published_at),
            cancel_asked=True,
        )
        .returning(*job.c)
    )


def _load() -> Any:
    """Open jobs by tier, queue and state: how many, since when the oldest waits, and the seconds of work that are left by
    the rule of `run.order.remaining_s`."""
    predicted = sa.func.coalesce(job.c.predicted_s, p("b_unknown_s", sa.Double))
    left = predicted - job.c.attained_s
    half_way = sa.case((job.c.attained_s > 0.67 * predicted, job.c.attained_s / 2), else_=0.0)
    most = sa.case((left >= half_way, left), else_=half_way)
    since = sa.case((job.c.not_before > job.c.created_at, job.c.not_before), else_=job.c.created_at)
    return (
        sa.select(
            job.c.tier, job.c.queue, job.c.state, sa.func.count(), sa.func.min(since),
            sa.func.sum(sa.case((most >= 1.0, most), else_=1.0)),
        )
        .where(_OPEN, sa.or_(job.c.state == _RUNNING, job.c.not_before <= p("b_now")))
        .group_by(job.c.tier, job.c.queue, job.c.state)
    )  # fmt: skip


_life = (worker.c.tier, worker.c.started_at, worker.c.seen_at - worker.c.started_at)
"""Whose it was, since when it was there, and for how long it was seen."""


def _spend(insert: Any) -> Any:
    made = insert(spent)
    return made.on_conflict_do_update(
        index_elements=["tier"], set_={"worker_s": spent.c.worker_s + made.excluded.worker_s}
    )


def _upsert(insert: Any, table: sa.Table, keys: list[str], kept: tuple[str, ...] = ()) -> Any:
    """`kept`: columns that stay as they are in a row that is there."""
    made = insert(table)
    return made.on_conflict_do_update(
        index_elements=keys, set_={c.name: made.excluded[c.name] for c in table.c if c.name not in (*keys, *kept)}
    )


def _take_office(insert: Any) -> Any:
    made = insert(office)
    return made.on_conflict_do_update(
        index_elements=["name"],
        set_={"holder": made.excluded.holder, "until": made.excluded.until},
        where=sa.or_(office.c.holder == made.excluded.holder, office.c.until < p("b_now")),
    ).returning(office.c.holder)
