"""The tutorial notebook runs from top to bottom, and the numbers that it shows are right."""

import json
import math
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "losses.ipynb"
FIGURES = 8

# Run as a last cell of a copy: what the notebook computed, as text for this process.
REPORT = """
import json

print(json.dumps({
    "kl": float(kl),
    "blind_spot": {kernel: float(value) for kernel, value in blind_spot.items()},
    "ways": {method: float(value) for method, (value, _) in ways.items()},
    "encoder": [float(soft_encoder[0]), float(as_encoder(1.0)[0])],
    "decoder": [float(soft_decoder[0]), float(as_decoder(1.0)[0])],
}))
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook with outputs. An exception in a cell ends the test with that cell's traceback."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(REPORT))
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=300,
        # The kernel starts where the package can be imported from, installed or not.
        resources={"metadata": {"path": str(ROOT)}},
    )
    with pytest.MonkeyPatch.context() as patch:
        # Neither the settings nor the history of whoever runs the tests.
        for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(variable, str(tmp_path_factory.mktemp(variable.lower())))
        return client.execute()


@pytest.fixture(scope="module")
def reported(executed):
    return json.loads("".join(output["text"] for output in executed.cells[-1].outputs if output["name"] == "stdout"))


def test_stored_clean():
    """Outputs would go stale, and make every diff unreadable."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    dirty = [cell.id for cell in notebook.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
    assert not dirty


def test_draws_every_figure(executed):
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == FIGURES


def test_kl_by_hand(reported):
    # mean (1, -1), variance (1/4, 1): 0.5 * (1 + 1/4 - 1 + ln 4) + 0.5 * 1.
    assert reported["kl"] == pytest.approx(0.5 * (0.25 + math.log(4)) + 0.5, rel=1e-6)


def test_blind_spot_by_hand(reported):
    # v = 1/4, so S = 1/2. Squared distances are 0 and 8 within a cloud and 4 across, each for half of the pairs or all:
    # D = (1 + e^-8 - 2 e^-4) / (2 pi S) = (1 - e^-4)^2 / pi.
    assert reported["blind_spot"]["product"] == pytest.approx((1 - math.exp(-4)) ** 2 / math.pi, rel=1e-5)
    assert reported["blind_spot"]["per_dim"] == pytest.approx(0, abs=1e-6)
    assert reported["blind_spot"]["prior"] > 0.01


def test_three_ways_one_value(reported):
    ways = reported["ways"]
    assert ways["pairwise"] > 0.01
    assert ways["tiled"] == pytest.approx(ways["pairwise"], rel=5e-5)
    assert ways["grid"] == pytest.approx(ways["pairwise"], rel=5e-5)


@pytest.mark.parametrize("phase", ["encoder", "decoder"])
def test_as_introvae_ends_as_s_introvae(reported, phase):
    """With c = 1 the distance has no weight."""
    soft, adversarial_similarity = reported[phase]
    assert adversarial_similarity == pytest.approx(soft, rel=1e-6)
