"""What a worker does with a job: real processes, real limits, real kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from deskwork import Office, alive, serve_until_ended, until

from millrace.folder import page_of
from millrace.jobs.states import Told
from millrace.jobs.worker import process

SHORT = "lease_s = 5\ngrace_s = 3\nslice_s = 1\n[tiers.light]\nsoft_s = {soft}\nhard_s = {hard}\nat_once = {at_once}\n"


def office(folder: Path, soft: float = 30, hard: float = 60, at_once: int = 2, place: str | None = None) -> Office:
    return Office(folder, place, SHORT.format(soft=soft, hard=hard, at_once=at_once))


def test_a_warm_process_serves_one_job_after_another_and_sees_changed_code(tmp_path: Path) -> None:
    made = office(tmp_path, at_once=1)
    warden = made.warden()
    first, second = made.submit("pid", [1]), made.submit("pid", [2])
    one, two = serve_until_ended(made, warden, first.id, second.id)
    assert made.values(one) == made.values(two) != [os.getpid()]
    (tmp_path / "work.py").write_text("def pid(item):\n    return 'changed'\n")
    (three,) = serve_until_ended(made, warden, made.submit("pid", [3]).id)
    assert made.values(three) == ["changed"]
    warden.close()


def test_a_light_job_leaves_the_page_of_its_report_to_who_asks_for_it(tmp_path: Path) -> None:
    made = office(tmp_path, at_once=1)
    warden = made.warden()
    (job,) = serve_until_ended(made, warden, made.submit("square", [3]).id)
    answer = made.desk.answer(job)
    assert {path.name for path in answer.iterdir()} == {"ledger.jsonl", "result.json", "results.jsonl"}
    assert '<section id="s0">' in page_of(answer).read_text()
    warden.close()


def test_a_light_job_waits_for_a_warm_process_and_not_for_a_start(tmp_path: Path) -> None:
    """One process more than there are jobs is kept, and what a job takes is its own: no imports."""
    made = office(tmp_path, at_once=2)
    warden = made.warden()
    until(lambda: any(slot.ready for slot in warden.slots), warden.step)
    first = serve_until_ended(made, warden, made.submit("square", [0]).id)[0]
    assert first.core_s is not None and first.core_s < cold_s() / 2, first
    busy = made.submit("slow", list(range(8)))
    until(lambda: warden.busy, warden.step)
    until(lambda: sum(slot.ready for slot in warden.slots) == 2, warden.step)
    serve_until_ended(made, warden, busy.id)
    assert len(warden.slots) == 2
    warden.close()


def cold_s() -> float:
    """Processor time of a process that imports what a job needs."""
    before = os.times()
    subprocess.run([sys.executable, "-c", "from millrace.warming import warmed_up; warmed_up()"], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no groups by session here")
def test_a_job_gives_way_with_its_whole_session(tmp_path: Path) -> None:
    """Sessions share the processors equally otherwise, whatever the niceness of what is in them."""
    made = office(tmp_path)
    warden = made.warden(warm=False, nice=7)
    job = made.submit("slow", [1, 2])
    until(lambda: warden.busy, warden.step)
    (slot,) = warden.busy
    assert Path(f"/proc/{slot.process.pid}/autogroup").read_text().split()[-2:] == ["nice", "7"]
    serve_until_ended(made, warden, job.id)
    warden.close()


def test_what_a_job_forks_ends_as_any_program_does(tmp_path: Path) -> None:
    made = office(tmp_path, at_once=1)
    warden = made.warden()
    (job,) = serve_until_ended(made, warden, made.submit("forks", [0]).id)
    assert job.state == "succeeded" and made.values(job) == [[signal.SIGTERM]], job
    warden.close()


def test_a_process_is_replaced_after_its_jobs_and_heavy_jobs_have_one_each(tmp_path: Path) -> None:
    made = office(tmp_path, at_once=1)
    for changed in ({"recycle_after": 1}, {"warm": False}):
        warden = made.warden(**changed)
        jobs = serve_until_ended(made, warden, *(made.submit("pid", [i]).id for i in range(2)))
        pids = [made.values(job)[0] for job in jobs]
        assert len(set(pids)) == 2 and not any(alive(pid) for pid in pids)  # type: ignore[arg-type]
        warden.close()


def test_a_job_longer_than_its_slice_ends_in_several_and_computes_nothing_twice(tmp_path: Path) -> None:
    made = office(tmp_path, soft=1, hard=60)
    warden = made.warden()
    (job,) = serve_until_ended(made, warden, made.submit("slow", list(range(12))).id)
    assert job.state == "succeeded" and job.attempt > 1 and job.own_ends == job.losses == 0, job
    assert sorted(map(int, made.calls())) == list(range(12))
    assert made.values(job) == list(range(1, 13))
    warden.close()


def test_a_slice_is_ended_for_who_goes_first(tmp_path: Path) -> None:
    made = office(tmp_path, at_once=1)
    warden = made.warden()
    long = made.submit("slow", list(range(40)), priority=-1)
    until(lambda: made.calls(), warden.step)
    short = made.submit("square", [2])
    (done,) = serve_until_ended(made, warden, short.id)
    assert made.desk.table.get(long.id).ended_at is None
    (ended,) = serve_until_ended(made, warden, long.id)
    assert ended.attempt > 1 and done.ended_at < ended.ended_at
    assert sorted(map(int, made.calls())) == list(range(40))
    warden.close()


def test_a_single_task_longer_than_the_hard_limit_fails_with_that_reason(tmp_path: Path) -> None:
    made = office(tmp_path, soft=0.5, hard=2)
    warden = made.warden()
    (job,) = serve_until_ended(made, warden, made.submit("stuck", [1]).id)
    assert job.state == "failed" and "single task is longer than the hard limit" in job.why, job.why
    warden.close()


def test_private_memory_has_a_ceiling_and_mapped_files_are_not_counted(tmp_path: Path) -> None:
    made = office(tmp_path)
    warden = made.warden(memory=300 << 20)  # two at once: 150 MiB each
    with (tmp_path / "large").open("wb") as file:
        file.truncate(400 << 20)
    maps, grows = made.submit("maps", [1]), made.submit("grows", [1])
    table = made.desk.table
    until(lambda: table.get(maps.id).ended_at and table.get(grows.id).own_ends, warden.step)
    assert table.get(maps.id).state == "succeeded", table.get(maps.id).why
    grown = table.get(grows.id)
    assert grown.ending == "out of memory" and (grown.tier, grown.escalated) == ("medium", True), grown
    warden.close()


def test_temporary_files_have_a_limit_and_go_with_the_job(tmp_path: Path) -> None:
    made = office(tmp_path)
    warden = made.warden(scratch=16 << 20, at_once=1)
    (job,) = serve_until_ended(made, warden, made.submit("litters", [1]).id)
    assert job.state == "failed" and "in temporary files, and may hold 16MiB" in job.why, job.why
    (place,) = made.calls()
    assert Path(place).is_relative_to(made.home / "scratch") and not os.path.exists(place)
    warden.close()
    assert list((made.home / "scratch").iterdir()) == []


def test_temporary_files_of_a_worker_that_was_killed_are_swept(tmp_path: Path) -> None:
    made = office(tmp_path)
    gone = made.home / "scratch" / "job-4194303-aa"
    gone.mkdir(parents=True)
    (gone / "file").touch()
    made.warden().close()
    assert not gone.exists()


def test_who_is_asked_to_leave_goes_if_idle_and_stays_if_busy(tmp_path: Path) -> None:
    made = office(tmp_path)
    warden = made.warden()
    job = made.submit("slow", list(range(6)))
    until(lambda: warden.busy, warden.step)
    warden.leave()
    assert not warden.leaving
    serve_until_ended(made, warden, job.id)
    until(lambda: made.desk.table.workers()[0].state == "idle", warden.step)
    (seen,) = made.desk.table.workers()
    assert made.desk.table.clock() - seen.since < 600
    made.desk.table.ask_to_leave(seen.id)
    warden.serve()
    assert made.desk.table.workers() == []


def test_a_pod_that_was_let_go_tells_so_and_waits_for_its_end(tmp_path: Path) -> None:
    made, told = office(tmp_path), list[str]()
    warden = made.warden()
    warden.stays, warden.told = True, told.append
    until(lambda: told, warden.step)
    warden.leave()
    until(lambda: told[-1] == "draining", warden.step)
    assert not warden._has_left()
    made.submit("square", [1])
    for _ in range(50):
        warden.step()
    assert not warden.busy
    warden.drain()  # SIGTERM
    warden.serve()
    assert set(told) == {"idle", "draining"}


def test_a_crash_is_its_own_end_and_poison_at_last(tmp_path: Path) -> None:
    made = office(tmp_path)
    warden = made.warden()
    (job,) = serve_until_ended(made, warden, made.submit("crash", [1]).id)
    assert job.state == "failed" and job.attempt == 3 and "SIGSEGV" in job.why, job
    warden.close()


def test_what_the_function_raises_is_the_reason_and_its_traceback_is_in_the_log(tmp_path: Path) -> None:
    made = office(tmp_path)
    warden = made.warden()
    (job,) = serve_until_ended(made, warden, made.submit("bad", [1]).id)
    assert (job.state, job.attempt) == ("failed", 1) and "there is no such thing" in job.why
    assert "ValueError" in (made.desk.folder(job.id) / "log.txt").read_text()
    warden.close()


def test_a_killed_job_process_is_gone_on_from_where_it_was(tmp_path: Path) -> None:
    made = office(tmp_path)
    warden = made.warden()
    job = made.submit("once_stuck", list(range(6)))
    until(lambda: len(made.calls()) == 4, warden.step)
    os.kill(warden.busy[0].process.pid, signal.SIGKILL)
    (tmp_path / "go").touch()
    (done,) = serve_until_ended(made, warden, job.id)
    assert done.state == "succeeded" and done.own_ends == 0 and done.attempt == 2, done
    assert made.values(done) == list(range(1, 7))
    calls = Counter(map(int, made.calls()))  # again: what was running, and the value that was not yet written
    assert set(calls) == set(range(6)) and calls[0] == calls[1] == calls[4] == calls[5] == 1, calls
    warden.close()


def test_a_worker_that_has_to_leave_gives_its_job_back(tmp_path: Path) -> None:
    made = office(tmp_path)
    warden = made.warden()
    job = made.submit("slow", list(range(200)))
    until(lambda: len(made.calls()) >= 2, warden.step)
    warden.drain()
    warden.serve()
    given_back = made.desk.table.get(job.id)
    assert (given_back.state, given_back.losses, given_back.own_ends) == ("queued", 0, 0), given_back
    assert made.desk.table.workers() == []


def test_who_does_not_stop_within_the_grace_is_killed_and_it_does_not_count(tmp_path: Path) -> None:
    made = office(tmp_path)
    warden = made.warden()
    job = made.submit("stuck", [1])
    until(lambda: made.calls(), warden.step)
    warden.drain()
    warden.serve()
    given_back = made.desk.table.get(job.id)
    assert (given_back.state, given_back.losses, given_back.own_ends) == ("queued", 1, 0), given_back


def test_a_running_job_is_cancelled_between_two_tasks(tmp_path: Path) -> None:
    made = office(tmp_path)
    warden = made.warden()
    job = made.submit("slow", list(range(500)))
    until(lambda: made.calls(), warden.step)
    made.desk.table.cancel(job.id)
    (ended,) = serve_until_ended(made, warden, job.id)
    assert ended.state == "cancelled"
    warden.close()


def test_a_job_whose_data_has_gone_says_so(tmp_path: Path) -> None:
    made = office(tmp_path)
    warden = made.warden()
    job = made.submit("square", [1, 2])
    for path in made.desk.inputs.iterdir():
        path.unlink()
    (ended,) = serve_until_ended(made, warden, job.id)
    assert ended.state == "failed" and "has gone" in ended.why
    warden.close()


def test_an_attempt_whose_lease_is_gone_is_stopped_and_thrown_away(tmp_path: Path) -> None:
    made = office(tmp_path)
    warden = made.warden()
    job = made.submit("stuck", [1])
    until(lambda: made.calls(), warden.step)
    held = made.desk.table.get(job.id)
    pid = warden.busy[0].process.pid
    made.desk.table.settle(held, Told("raised", "somebody else ended it"))
    until(lambda: not warden.busy, warden.step)
    assert not alive(pid) and made.desk.table.get(job.id).why == "somebody else ended it"
    warden.close()


def test_a_job_process_dies_with_its_warden(tmp_path: Path) -> None:
    made = office(tmp_path)
    pid = os.fork()
    if pid == 0:  # a warden that is killed
        try:
            warden = made.warden()
            made.submit("stuck", [1])
            until(lambda: made.calls(), warden.step)
            (tmp_path / "pid").write_text(str(warden.busy[0].process.pid))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    child = int((tmp_path / "pid").read_text())
    until(lambda: not alive(child))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_the_end_of_a_process_is_told_apart(number: int, tmp_path: Path) -> None:
    slot = process.start(0, tmp_path / "log")
    until(lambda: (process.heard(slot), slot.ready)[1])
    os.kill(slot.process.pid, number)
    slot.process.wait()
    told = process.ended(slot)
    assert told is not None and told.ending == ("crashed" if number == signal.SIGSEGV else "killed")
    process.close(slot)
