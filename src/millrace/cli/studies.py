"""A question that lies in a TOML file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from pydantic import BaseModel


def read_study(named: str, spec: type[BaseModel]) -> dict[str, Any]:
    """The fields of the question in the file. What it names is looked for beside it: data by `spec.beside`, modules too."""
    import tomllib

    path = Path(named)
    if not path.is_file():
        raise WrongQuestion(f"There is no file {path} (the study). Look for a typing error, or give a full path.")
    try:
        said = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise WrongQuestion(f"The study {path} is not TOML: {e}.") from None
    unknown = sorted(set(said) - set(spec.model_fields))
    if unknown:
        raise WrongQuestion(
            f"The study {path} says {unknown[0]!r}, which is no part of the question. There are "
            f"{', '.join(spec.model_fields)}."
        )
    folder = path.absolute().parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    beside = getattr(spec, "beside", None)
    return beside(said, folder) if beside is not None else said
