"""Models among the policies that are compared."""

from __future__ import annotations

import numpy as np
import pytest
from penstock_agent.models import Card, load
from penstock_embedded.messages import SchedulerLoad
from penstock_rl.evaluation import policies, runner
from penstock_rl.export import NetworkFile, write

from tests.rl.small import case
from tests.support.models import arrays, metadata, model_file


@pytest.fixture
def file(tmp_path):
    """Write a model that decides as its anchor, `lsq`."""
    described = metadata(use_base=False)
    nothing = arrays(described) | {"limits": np.zeros(2, np.float32)}
    write(tmp_path / "idle.npz", NetworkFile(described, nothing), Card(name="idle"))
    return tmp_path / "idle.npz"


def test_a_model_is_named_after_card_and_digest(file):
    digest = load(file).sha256
    assert policies.named(str(file)).name == f"idle@{digest[:8]}+active"


def test_a_model_is_compared_on_the_counts_it_was_trained_with(tmp_path, file):
    assert [each.name for each in policies.select([str(file)])][:1] == ["lsq+active"]
    (tmp_path / "open.npz").write_bytes(model_file(load="open"))
    chosen = policies.select([f" {tmp_path / 'open.npz'} "])
    assert "lsq" in [each.name for each in chosen]
    assert chosen[-1].load is SchedulerLoad.OPEN


def test_a_model_may_have_a_shared_view(file):
    chosen = policies.named(f"{file}+shared")
    assert chosen.name.endswith("+shared")
    assert chosen.sharing


def test_models_are_run_in_processes_of_their_own(tmp_path, file):
    chosen = [policies.named(str(file)), policies.named("lsq+active")]
    found = runner.evaluate([case()], chosen, [1], out=tmp_path / "out", processes=2)
    model, lsq = found.runs
    assert model.policy.startswith("idle@")
    # Both send each flow where the fewest are active: they differ by ties alone.
    assert model.mean == pytest.approx(lsq.mean, rel=0.25)


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing.npz", "nothing.npz: No such file"), ("damaged.npz", "damaged.npz: file: is not a readable")],
)
def test_a_file_that_is_no_model_is_named(tmp_path, name, message):
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    with pytest.raises(policies.PolicyNameError, match=message):
        policies.select([str(tmp_path / name)])


def test_a_model_of_an_unknown_anchor_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(model_file(anchor="magic"))
    with pytest.raises(policies.PolicyNameError, match="anchor 'magic' is no policy"):
        policies.named(str(tmp_path / "a.npz"))
