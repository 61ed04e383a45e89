"""An ONNX document as a function of rows, through onnxruntime on one thread.

Takes documents with one input, a matrix of float or double. Of several outputs the last that is a tensor of floats is
explained (of a classifier: its probabilities). The trees inside are not read: estimates, by the kernel method.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millrace.run.errors import NotSupported

_FLOATS = {"tensor(float)": "float32", "tensor(double)": "float64"}


@dataclass(frozen=True)  # no slots: the session is made on the first call, in the process that calls
class OnnxFunction:
    """content: the document. takes: name and type of its input; gives: name of the output. n_features_in_: columns,
    None when the document does not say."""

    content: bytes
    takes: tuple[str, str]
    gives: str
    n_features_in_: int | None

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        name, kind = self.takes
        found = self._session.run([self.gives], {name: np.ascontiguousarray(rows, kind)})[0]
        return np.asarray(found).reshape(len(rows), -1)

    @cached_property
    def _session(self) -> Any:
        return _session(self.content)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_session"}


def open_onnx(content: bytes) -> OnnxFunction:
    """The function of a document; `NotSupported` when it is not one matrix to numbers. Errors are onnxruntime's."""
    session = _session(content)
    inputs = session.get_inputs()
    outputs = [output.name for output in session.get_outputs() if output.type in _FLOATS]
    if len(inputs) != 1 or inputs[0].type not in _FLOATS or len(inputs[0].shape) != 2:
        raise NotSupported(
            f"The ONNX model takes {[(i.name, i.type, i.shape) for i in inputs]}; one matrix of float or double is "
            "supported. Convert the model with a single input, or give a function that calls it."
        )
    if not outputs:
        raise NotSupported(
            f"The ONNX model gives {[(o.name, o.type) for o in session.get_outputs()]}, and no tensor of floats. Convert "
            "classifiers with the option zipmap=False."
        )
    columns = inputs[0].shape[1]
    known = columns if isinstance(columns, int) else None
    return OnnxFunction(content, (inputs[0].name, _FLOATS[inputs[0].type]), outputs[-1], known)


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
