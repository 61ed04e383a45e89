"""The example notebook runs as it stands: its comparisons with shap hold."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "explain_shap" / "explain_shap.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's own libraries
def test_the_notebook_that_was_moved_from_shap_runs() -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    said = [o.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert any("mean error" in text for text in said)
