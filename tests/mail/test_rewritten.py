"""Addresses that mail servers rewrote on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import House
from daemon.mail.rewritten import undone, verp

HOUSE = House(name="Q", domains=("quillpdf.example",))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ann@example.com", "ann@example.com"),
        ("prvs=1234abcdef=ann@example.com", "ann@example.com"),
        ("prvs=ann/1234abcdef@example.com", "ann@example.com"),
        ("btv1==0123456==ann@example.com", "ann@example.com"),
        ("SRS0=abcd=XY=example.com=ann@forward.example", "ann@example.com"),
        ("srs0+abcd=xy=example.com=ann+tag@forward.example", "ann+tag@example.com"),
        ("SRS1=hh=second.example==abcd=XY=example.com=ann@third.example", "ann@example.com"),
        ("SRS0=ab=Z2=example.com=prvs=12=ann@forward.example", "ann@example.com"),
        ("a=b@example.com", "a=b@example.com"),
        ("SRS0=only@example.com", "SRS0=only@example.com"),
    ],
)
def test_batv_and_srs_are_undone(written: str, meant: str) -> None:
    assert undone(written) == meant


@pytest.mark.parametrize(
    ("return_path", "recipient"),
    [
        ("bounces+ann=example.com@news.quillpdf.example", "ann@example.com"),
        ("bounce-ann.b+x=example.com@news.quillpdf.example", "ann.b+x@example.com"),
        ("quill-bounces+ann=example.com@quillpdf.example", "ann@example.com"),
        ("news-ann=example.com@quillpdf.example", "ann@example.com"),
        ("prvs=12=bounces+ann=example.com@quillpdf.example", "ann@example.com"),
        ("bounces+ann=example.com@elsewhere.example", None),
        ("letter@news.quillpdf.example", None),
        ("a=b@quillpdf.example", None),
    ],
)
def test_a_verp_return_path_of_ours_names_its_recipient(return_path: str, recipient: str | None) -> None:
    assert verp(return_path, HOUSE) == recipient


@given(st.text(max_size=200))
def test_anything_else_stands_as_it_is(text: str) -> None:
    assert undone(text) == text or "=" in text
    verp(text, HOUSE)
