"""Secrets that cannot be read, or by too many; lists and notices as they should be; names; systemd."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from daemon.doctor import files, running
from tests.doctor.patient import Patient, failures

UPSTREAM = '\n[upstream]\nusername = "us"\npassword_file = "secret"\n'


def test_secrets_that_are_well(patient: Patient) -> None:
    patient.file("secret", "hush\n")
    assert patient.told("secrets", UPSTREAM) == ["ok secrets: 1 file readable, closed to others, not empty"]
    assert patient.told("secrets") == ["ok secrets: none are named"]


def test_the_site_key_is_told_elsewhere(patient: Patient) -> None:
    assert patient.told("secrets", '[storage]\nkey_file = "none-such.key"') == ["ok secrets: none are named"]


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("", 0o600, "FAIL secrets: upstream.password_file: {} is empty -> put the secret into it"),
        ("\n", 0o600, "FAIL secrets: upstream.password_file: {} is empty -> put the secret into it"),
        ("hush \n", 0o600, "warn secrets: upstream.password_file: {} begins or ends with a blank"),
        ("hush\n\n", 0o600, "warn secrets: upstream.password_file: {} begins or ends with a blank"),
        ("hush\n", 0o644, "warn secrets: upstream.password_file: everybody on this machine can get at {} -> run: chmod o="),
        ("hush\n", 0o640, ""),
    ],
)  # fmt: skip
def test_a_secret_with_a_fault(patient: Patient, text: str, mode: int, said: str) -> None:
    file = patient.file("secret", text, mode)
    bad = [x for x in patient.told("secrets", UPSTREAM) if x[:2] != "ok"]
    assert len(bad) == bool(said)
    assert not said or bad[0].startswith(said.format(file))
    assert not any("hush" in x for x in bad)


def test_a_secret_that_is_no_text(patient: Patient) -> None:
    file = patient.file("secret", "")
    file.write_bytes(b"\xff\xfe")
    (failure,) = failures(patient.told("secrets", UPSTREAM))
    assert "not UTF-8" in failure


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_secret_that_the_daemons_user_cannot_read(patient: Patient) -> None:
    home = patient.directory / "state"
    home.mkdir()
    os.chown(home, 65534, 65534)
    file = patient.file("secret", "hush\n")
    more = f'{UPSTREAM}\n[storage]\nurl = "sqlite:///{home.relative_to(patient.directory)}/optoutd.db"\n'
    (failure,) = failures(patient.told("secrets", more))
    assert f"nobody, whom the database belongs to, cannot read {file} -> run: chown nobody {file}" in failure
    os.chown(file, 65534, 65534)
    for directory in (patient.directory, *patient.directory.parents):
        if not files.may_read(65534, directory):
            return  # pytest keeps its directories to itself
    assert failures(patient.told("secrets", more)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_who_may_read_what(tmp_path: Path) -> None:
    where = Path(f"/var/tmp/optoutd-doctor-{os.getpid()}")
    where.mkdir(mode=0o755)
    try:
        where.chmod(0o755)
        file = where / "secret"
        file.write_text("x")
        for mode, owner, group, may in (
            (0o600, 0, 0, False),
            (0o604, 0, 0, True),
            (0o600, 65534, 0, True),
            (0o640, 0, 65534, True),
            (0o044, 65534, 65534, False),
        ):
            os.chown(file, owner, group)
            file.chmod(mode)
            assert files.may_read(65534, file) is may, (oct(mode), owner, group)
        assert files.may_read(0, file)
        file.chmod(0o604)
        where.chmod(0o700)
        assert not files.may_read(65534, file)
    finally:
        shutil.rmtree(where)


# ------------------------------------------------------------------ lists, notices, names


def test_lists(patient: Patient) -> None:
    assert patient.told("lists") == ["ok lists: no [[list]]: all opt-outs are of everything"]
    one = '\n[[list]]\nid = "news"\nlist_id = "news.quillpdf.example"\nsender = "news@quillpdf.example"\n'
    assert patient.told("lists", one) == ["ok lists: 1 list: news"]
    two = '\n[[list]]\nid = "offers"\nlist_id = "NEWS.quillpdf.example"\n'
    lines = patient.told("lists", one + two)
    assert any("FAIL lists: list_id news.quillpdf.example is that of news, offers" in x for x in lines)
    assert any(x.startswith("warn lists: no sender: offers.") for x in lines)
    bare = '\n[[list]]\nid = "offers"\nsender = "offers@quillpdf.example"\n'
    assert any(
        "offers has no list_id, and no listener or credential names it" in x for x in patient.told("lists", bare)
    )
    assert patient.told("lists", bare + '[postfix]\nlist = "offers"\n') == ["ok lists: 1 list: offers"]


def test_notices(patient: Patient) -> None:
    sending = "\n[upstream]\n"
    assert patient.told("notices", sending)[0] == "ok notices: people are told, from support@quillpdf.example"
    assert "nobody is told by mail when something is wrong -> set house.operators_mail" in patient.told("notices")[1]
    assert "there is no [upstream]" in patient.told("notices")[0]
    assert "(notices.confirm = false)" in patient.told("notices", f"{sending}[notices]\nconfirm = false\n")[0]
    patient.house = '[house]\nname = "Quill PDF"\n'
    assert patient.told("notices", sending)[0].startswith("warn notices: people are told nothing: there is no address")


def test_names(patient: Patient) -> None:
    def of(name: str) -> str:
        (line,) = patient.told("dns", f'\n[relay]\nhostname = "{name}"\n[upstream]\n')
        return line

    assert of("localhost").endswith("SPF, DKIM and DMARC are not looked at")
    assert of("relay.invalid").startswith("warn dns: relay.invalid (relay.hostname) has no address -> ")
    patient.monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("192.0.2.7", 25))])
    patient.monkeypatch.setattr("socket.gethostbyaddr", lambda _: ("relay.quillpdf.example", [], []))
    assert of("relay.quillpdf.example").startswith("ok dns: relay.quillpdf.example is 192.0.2.7, and back; ")


# ------------------------------------------------------------------ systemd


@pytest.mark.parametrize(("enabled", "active"), [(True, True), (False, True), (True, False)])
def test_systemd(patient: Patient, enabled: bool, active: bool) -> None:
    run, units = patient.directory / "run", patient.directory / "units"
    (run / "system").mkdir(parents=True)
    (run / "units").mkdir()
    (units / "multi-user.target.wants").mkdir(parents=True)
    patient.monkeypatch.setattr(running, "_SYSTEMD", run)
    patient.monkeypatch.setattr(running, "_UNIT_FILES", (str(units),))
    assert "no optoutd.service is installed" in patient.told("systemd")[0]
    (units / "optoutd.service").write_text("[Service]\n")
    if active:
        (run / "units/invocation:optoutd.service").symlink_to("0123")
    if enabled:
        (units / "multi-user.target.wants/optoutd.service").symlink_to("../optoutd.service")
    lines = patient.told("systemd")
    assert lines[0].endswith(
        f": {'runs' if active else 'does not run'}, {'starts' if enabled else 'does not start'} at boot"
    )
    assert any("systemctl enable optoutd" in x for x in lines) == (not enabled)
