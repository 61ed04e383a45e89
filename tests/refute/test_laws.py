"""The laws by special functions are those of scipy.stats, and a question does not pay for importing it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scipy import stats

from millrace.analyses.refute import laws


@pytest.mark.parametrize("z", [-8.0, -1.96, 0.0, 0.3, 2.5, 9.0, 30.0])
def test_tails_are_those_of_the_oracle_however_far_out(z: float) -> None:
    assert laws.normal_above(z) == pytest.approx(stats.norm.sf(z), rel=1e-12)
    for df in (1, 3, 40, 99_797, 2.5):
        assert laws.student_above(z, df) == pytest.approx(stats.t.sf(z, df), rel=1e-9)
    for df in (1, 4, 30):
        assert laws.chi2_above(abs(z), df) == pytest.approx(stats.chi2.sf(abs(z), df), rel=1e-12)


@pytest.mark.parametrize("p", [1e-9, 0.001, 0.025, 0.5, 0.9, 0.975, 1 - 1e-9])
def test_points_are_those_of_the_oracle(p: float) -> None:
    assert laws.normal_point(p) == pytest.approx(stats.norm.ppf(p), rel=1e-12, abs=1e-15)
    for df in (1, 3, 40, 99_797, 2.5):
        assert laws.student_point(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-8, abs=1e-12)
    for a, b in ((1, 1000), (20, 31), (1000, 1)):
        assert laws.beta_point(p, a, b) == pytest.approx(stats.beta.ppf(p, a, b), rel=1e-9)


def test_a_refutation_does_not_import_scipy_stats() -> None:
    code = (
        "import sys, numpy, millrace as mr\n"
        "r = numpy.random.default_rng(0); x = r.normal(size=(300, 4)); x[:, 3] += x[:, 2]\n"
        "a = mr.refute(x, 'x2', 'x3', common_causes=['x0', 'x1'], simulations=50, engine='inline')\n"
        "a.summary(), a.as_dict()\n"
        "sys.exit('scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
