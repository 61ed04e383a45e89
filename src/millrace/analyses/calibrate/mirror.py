"""The study where Optuna's own tools see it: SQLite, a journal file, PostgreSQL. A copy, never the truth.

Trials are added when they are told, in that order, so that a dashboard is live. A study of the same name that an earlier run
of the same question left is gone on with: what it has is not added again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millrace.analyses.calibrate.sampling import frozen, optuna_library, quiet
from millrace.analyses.calibrate.spec import Spec
from millrace.analyses.calibrate.trials import Trial
from millrace.run.errors import WrongQuestion

MARK = "millrace"
AT_ONCE = 20


@dataclass(slots=True)
class Mirror:
    """study: of the other storage. has: how many of our trials it has already."""

    spec: Spec
    study: Any
    distributions: Any
    has: int
    told: int = 0
    waiting: list[Trial] = field(default_factory=list)

    def tell(self, trial: Trial) -> None:
        self.told += 1
        if self.told <= self.has:
            return
        self.waiting.append(trial)
        if len(self.waiting) >= AT_ONCE:
            self.flush()

    def flush(self) -> None:
        with quiet():
            self.study.add_trials([frozen(self.spec, self.distributions, trial) for trial in self.waiting])
        self.waiting.clear()


def open_mirror(spec: Spec, distributions: Any, identity: str) -> Mirror | None:
    """The study in the storage that the question names; None for one that is in memory only."""
    if spec.storage == "memory":
        return None
    optuna = optuna_library()
    with quiet():
        storage = storage_of(spec.storage)
        study = optuna.create_study(
            storage=storage, study_name=spec.study_name, direction="minimize", load_if_exists=True
        )
        mark, has = study.user_attrs.get(MARK), len(study.get_trials(deepcopy=False))
        if has and mark is None:
            raise WrongQuestion(
                f"The study {spec.study_name!r} in {spec.storage} is not of millrace's making: give another study_name, or start "
                "from it with warm_start."
            )
        if has and (mark != identity or not identity):  # of another question: the copy is made anew
            optuna.delete_study(study_name=spec.study_name, storage=storage)
            study, has = optuna.create_study(storage=storage, study_name=spec.study_name, direction="minimize"), 0
        study.set_user_attr(MARK, identity)
    return Mirror(spec, study, distributions, has)


def storage_of(url: str, must_exist: bool = False) -> Any:
    """Optuna's storage of a URL, or of a journal file's path."""
    optuna = optuna_library()
    if "://" in url:
        if must_exist and url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
            raise WrongQuestion(f"There is no file {url.removeprefix('sqlite:///')} of the storage {url}.")
        from sqlalchemy import NullPool

        # A pool would keep connections to the server open as long as the process; a copy is written every 20 trials.
        pool = {} if url.startswith("sqlite") else {"poolclass": NullPool}
        try:
            return optuna.storages.RDBStorage(_with_driver(url), engine_kwargs=pool)
        except Exception as e:
            raise WrongQuestion(f"Optuna cannot open the storage {url}: {type(e).__name__}: {e}.") from e
    path = Path(url)
    if must_exist and not path.exists():
        raise WrongQuestion(f"There is no journal file {path}.")
    if not path.absolute().parent.is_dir():
        raise WrongQuestion(f"The folder of the journal file {path} is not there.")
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    return optuna.storages.JournalStorage(backend)


def _with_driver(url: str) -> str:
    """SQLAlchemy takes psycopg2 for PostgreSQL unless told otherwise; where only its successor is installed, that is meant."""
    from importlib.util import find_spec

    scheme, _, rest = url.partition("://")
    if scheme in ("postgresql", "postgres") and find_spec("psycopg2") is None and find_spec("psycopg") is not None:
        return f"postgresql+psycopg://{rest}"
    return url
