import json
from pathlib import Path

import pytest

from serving.errors import NotReady, UnknownModel
from serving.models.catalog import Catalog
from serving.service import Service


async def test_a_server_that_knows_models_by_name_only_has_no_statistics_of_them(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(
        json.dumps([{"name": "digits", "version": "1", "state": "READY", "reason": ""}])
    )
    catalog = Catalog(tmp_path / "index.json")
    catalog.tick(0)
    service = Service(catalog)

    assert await service.statistics("", "") == {"model_stats": []}
    for version in ("", "1"):
        with pytest.raises(NotReady):
            await service.statistics("digits", version)
    with pytest.raises(UnknownModel):
        await service.statistics("nope", "")
