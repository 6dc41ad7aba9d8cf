"""The OpenAPI document of this version; ``python -m retrieval.serving.openapi`` writes it into ``api_versions/``."""

import json
from pathlib import Path
from typing import Any

from retrieval.files import write_bytes
from retrieval.serving.app import routed_app

KEPT = Path(__file__).parent / "api_versions"


def document() -> dict[str, Any]:
    """Return the OpenAPI document of the routes under /v1, of health and of metrics."""
    return routed_app().openapi()


def as_text(found: dict[str, Any]) -> str:
    """Return a document as it is kept."""
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    described = document()
    write_bytes(KEPT / f"{described['info']['version']}.json", as_text(described).encode())
