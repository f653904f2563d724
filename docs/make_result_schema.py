"""Write docs/result.schema.json from the result's own models: ``python docs/make_result_schema.py``.

A test compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path

from volseg.results.case import CaseResult

PAGE = Path(__file__).with_name("result.schema.json")


def page() -> str:
    """The JSON schema of ``result.json``."""
    schema = CaseResult.model_json_schema(mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=1) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
