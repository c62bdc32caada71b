"""The API does what its description (OpenAPI) says, whatever it is asked: by schemathesis, against a real door."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from tests.ledgers import Books
from tests.web.program import API, Program, called
from tests.web.test_api_callers import OPERATIONS, PUBLIC

EXAMPLES: Final = 50  # of each operation, in each way
ANYTHING: Final = ("show", "stats")  # of which a description can say nothing that would be wrong to ask
CHECKS: Final = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
    checks.allow_header_conformance,
    checks.ignored_auth,
]


@pytest.fixture
def program(ledger: Books) -> Iterator[Program]:
    """A program that may do all, at a ledger in which there is something."""
    for n in range(20):
        ledger.suppress(f"p{n}@customer.example", "offers" if n % 2 else None)
    with called(ledger) as it:
        yield it


def _described(program: Program) -> Any:
    config = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})  # no made up tokens
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{program.web.port}{API}/openapi.json", config=config)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        *((operation, schemathesis.GenerationMode.POSITIVE) for operation in (*OPERATIONS, *PUBLIC)),
        *((operation, schemathesis.GenerationMode.NEGATIVE) for operation in OPERATIONS if operation not in ANYTHING),
    ],
)
def test_it_does_what_its_description_says(program: Program, operation: str, mode: schemathesis.GenerationMode) -> None:
    described = _described(program).find_operation_by_id(operation)
    headers = {} if operation in PUBLIC else {"Authorization": f"Bearer {program.token}"}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=described.as_strategy(generation_mode=mode))
    def asked(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS)

    asked()


def test_the_description_is_there_for_everybody(program: Program) -> None:
    told = Program(program.web, "").get("/openapi.json")
    assert (told.status, told.fact["openapi"][:3]) == (200, "3.1")
    assert told.fact["servers"] == [{"url": API}]
    for path in told.fact["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["description"]
            for status, response in operation["responses"].items():
                good = "text/csv" if operation["operationId"] == "showRejects" else "application/json"
                assert list(response["content"]) == [good if status < "400" else "application/problem+json"]
            if "requestBody" in operation and operation["operationId"] != "importList":  # a list is no JSON
                (content,) = operation["requestBody"]["content"].values()
                name = content["schema"]["$ref"].rpartition("/")[2]
                assert told.fact["components"]["schemas"][name]["examples"]
    assert "HTTPValidationError" not in json.dumps(told.fact)
