"""A small set of demo data, written once a run."""

from pathlib import Path

import pytest

from demo.generate import Parameters, generate


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of demo.generate: 90 valid pairs, 6 evaluation scenes, seed 3."""
    out = tmp_path_factory.mktemp("demo") / "source"
    assert generate(out, Parameters(pairs=90, eval_scenes=6, seed=3), processes=2)
    return out
