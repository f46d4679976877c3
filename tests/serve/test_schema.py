"""The service against its own OpenAPI document, with requests that schemathesis makes up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,unsupported_method"
)


def test_no_request_is_answered_as_the_document_does_not_say(address: str, tmp_path: Path) -> None:
    examples = os.environ.get("FLYWEIGHT_EXAMPLES", "12")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"),
            *("--checks", CHECKS, "--max-examples", examples, "--seed", "1", "--no-color"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # it leaves a folder of its own
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Tested: 9" in done.stdout
