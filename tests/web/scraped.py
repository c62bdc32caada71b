"""A scrape of /metrics, read with the library's own parser."""

from __future__ import annotations

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as as_openmetrics
from prometheus_client.parser import text_string_to_metric_families as as_text

from tests.web.support import Answer, Door

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


def scrape(web: Door, accept: str = "*/*") -> Answer:
    """What a Prometheus that accepts this gets."""
    answer = web.ask("GET", "/metrics", f"Accept: {accept}")
    assert answer.status == 200
    return answer


def families(answer: Answer) -> dict[str, Metric]:
    """By their names."""
    read = as_openmetrics if "openmetrics" in answer.headers["content-type"] else as_text
    return {family.name: family for family in read(answer.body)}


def value(web: Door, name: str, **labels: str) -> float | None:
    """A sample of a fresh scrape; None: there is none."""
    found = [
        sample.value
        for family in families(scrape(web)).values()
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found[0] if found else None
