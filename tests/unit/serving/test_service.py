import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving import service
from serving.errors import NotReady, UnknownModel, Unsupported
from serving.models import loading
from serving.models.catalog import Catalog
from serving.models.rows import Clocks
from serving.scheduling import Admission, ModelQueue
from serving.service import Service
from serving.settings import Settings
from serving.telemetry.metrics import ModelCounters


async def test_a_server_that_knows_models_by_name_only_has_no_statistics_of_them(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(
        json.dumps([{"name": "digits", "version": "1", "state": "READY", "reason": ""}])
    )
    catalog = Catalog(tmp_path / "index.json")
    catalog.tick(0)
    of = Service(catalog)

    with pytest.raises(Unsupported) as refused:
        await of.statistics("", "")
    assert str(refused.value) == (
        "each model's own server counts for itself; ask for one at /v2/models/NAME/stats (/v2/models lists them)"
    )
    for version in ("", "1"):
        with pytest.raises(NotReady):
            await of.statistics("digits", version)
    with pytest.raises(UnknownModel):
        await of.statistics("nope", "")


async def test_a_models_configuration_has_one_form_whether_or_not_joining_was_measured_to_gain(tmp_path: Path) -> None:
    path = tmp_path / "m.identity.json"
    path.write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}')

    def configuration(spent_s: Callable[[int], float]) -> dict[str, Any]:
        clocks = Clocks(wall=itertools.count(step=1e-6).__next__, processor=map(spent_s, itertools.count()).__next__)
        loaded = loading.load(path, Settings(), clocks)
        return service.configuration(ModelQueue("m", "1", loaded, ModelCounters(), Settings(), Admission(1, 1)))

    gains, gains_nothing = configuration(lambda look: look * 1e-6), configuration(lambda look: 2**look * 1e-6)

    assert gains_nothing == {
        "name": "m",
        "platform": "penstock_identity",
        "backend": "penstock",
        "max_batch_size": 32,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
        "output": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
    }
    assert gains == {**gains_nothing, "dynamic_batching": {"max_queue_delay_microseconds": 0}}
