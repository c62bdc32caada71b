"""Of which cause a bounce or a complaint is: a name that a brake can be pulled on, whatever a report says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.intake import causes
from daemon.mail.reading import Failed
from storage import brake


def bounce(host: str, status: str = "5.1.1", recipient: str = "ann@customer.example") -> str:
    return causes.of_bounce(Failed(recipient, True, "address", status, host))


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("gmail-smtp-in.l.google.com", "google.com"),
        ("company-com.mail.protection.outlook.com", "outlook.com"),
        ("MX.Example.NET.", "example.net"),
        ("mx1.mail.example.co.uk", "example.co.uk"),
        ("mx.co.uk", "mx.co.uk"),
        ("example.net", "example.net"),
        ("", "customer.example"),
        ("localhost", "customer.example"),
        ("[192.0.2.7]", "customer.example"),
        ("192.0.2.7", "customer.example"),
        ("mx.exämple.net", "customer.example"),
        ("a@b.example", "customer.example"),
        ("-.example", "customer.example"),
        ("x." * 200 + "example", "customer.example"),
    ],
)
def test_a_bounce_is_of_whose_server_said_no_else_of_the_recipients_domain(host: str, domain: str) -> None:
    assert bounce(host) == f"bounces:{domain}/5.1.1"


def test_the_recipients_domain_is_its_organisations() -> None:
    assert bounce("", recipient="ann@mail.customer.example") == "bounces:customer.example/5.1.1"
    assert bounce("", recipient="ann@münchen.example") == "bounces:xn--mnchen-3ya.example/5.1.1"
    assert bounce("", recipient="ann@[192.0.2.7]") == "bounces:unknown/5.1.1"
    assert bounce("", recipient="nobody") == "bounces:unknown/5.1.1"


def test_a_report_without_a_status_has_a_name_too() -> None:
    assert bounce("mx.example.net", "") == "bounces:example.net/none"


@pytest.mark.parametrize("reporter", ["fbl@reports.provider.example", "FBL@Provider.example", "<x>@provider.example"])
def test_a_complaint_is_of_who_reports_it(reporter: str) -> None:
    expected = "complaints:unknown" if reporter.startswith("<") else "complaints:provider.example"
    assert causes.of_complaint(reporter) == expected


def test_what_several_have_in_common() -> None:
    one, other = "bounces:a.example/5.1.1", "bounces:a.example/5.1.2"
    assert causes.together({one}) == one
    assert causes.together({one, other}) == "bounces:a.example"
    assert causes.together({one, other, "bounces:b.example/5.1.1"}) == "bounces"


ANYTHING = st.text(max_size=300) | st.from_regex(r"[a-zA-Z0-9.@/:-]{0,200}", fullmatch=True)


@given(host=ANYTHING, status=ANYTHING, recipient=ANYTHING)
def test_whatever_a_report_says_its_cause_has_a_brake(host: str, status: str, recipient: str) -> None:
    for cause in (bounce(host, status, recipient), causes.of_complaint(recipient)):
        assert brake.is_name(cause)
        assert all(brake.is_name(wide) for wide in brake.wider(cause))
        assert brake.wider(cause)[-1] in brake.WHAT
