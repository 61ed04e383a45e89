"""Opens what a client sent, in a process of its own: `python -m millrace.service.checking KIND FORM FILE BYTES`.

0: it can be read; 2: not, and stdout says why. A crash of a reader ends this process and nothing else.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from millrace.run.errors import MillraceError, WrongQuestion

PICKLED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def main(kind: str, form: str, path: Path, most_bytes: int) -> int:
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
    try:
        with path.open("rb") as file:
            if file.read(2) in PICKLED:
                raise WrongQuestion(
                    "What was sent is a pickle, which can execute anything: no pickle of a client is taken."
                )
        (open_model if kind == "model" else open_data)(form, path)
    except MillraceError as e:
        print(e)
        return 2
    except (UnicodeDecodeError, json.JSONDecodeError, MemoryError) as e:
        print(f"What was sent cannot be read as {form}: {type(e).__name__}: {e}.")
        return 2
    return 0


def open_model(form: str, path: Path) -> None:
    from millrace.analyses.explain.models import open_model as opened

    model = opened(path, lambda _: None)
    library = type(model).__module__.partition(".")[0]
    known = {"lightgbm": "lightgbm", "xgboost-json": "xgboost", "xgboost-ubj": "xgboost", "catboost": "catboost"}.get(
        form
    )
    if known is not None and library != known:
        raise WrongQuestion(f"What was sent as {form} is a model of {library}.")


def open_data(form: str, path: Path) -> None:
    if form in ("csv", "parquet", "arrow", "npy"):
        from millrace.run.tables import read_file

        read_file(path)
    elif form == "jsonl":
        for line in path.read_text("utf-8").splitlines():
            if line.strip():
                json.loads(line)
    elif form == "json":
        json.loads(path.read_text("utf-8"))
    else:
        path.read_text("utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))
