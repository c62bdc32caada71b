"""Our own doors, while the daemon runs and while it does not; what the world sees of them; the programs that are told."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from storage import hooks
from storage.write import write
from tests.doctor.patient import HOUSE, Patient, failures
from tests.doctor.proxy import Proxy, proxied
from tests.loopback import HOST, free_port
from tests.scenarios.process import Daemon
from tests.servers import Sink, sink
from tests.upstream.certificates import Authority
from tests.webhooks.receiver import SECRET, receiver

RELAY, WEB, POLICY, PUBLIC = free_port(), free_port(), free_port(), free_port()


def doors(upstream: int, more: str = "") -> str:
    """All doors on known ports. `more`: in [relay]."""
    return f"""
[relay]
listen = "{HOST}:{RELAY}"
hostname = "relay.quillpdf.example"
{more}
[upstream]
port = {upstream}
[web]
listen = "{HOST}:{WEB}"
[postfix]
policy = "{HOST}:{POLICY}"
"""


def all_told(patient: Patient, config: str) -> list[str]:
    """Of all doors."""
    return [line for part in ("relay", "web", "postfix") for line in patient.told(part, config)]


def certificate(ca: Authority, name: str = "DNS:relay.quillpdf.example", days: int = 90) -> str:
    """In [relay]."""
    cert, key = ca.files(name, days=days)
    key.chmod(0o600)
    return f'tls = "starttls"\ncert_file = "{cert}"\nkey_file = "{key}"'


# ------------------------------------------------------------------ while the daemon does not run


def test_ports_that_are_free(patient: Patient) -> None:
    lines = all_told(patient, doors(25))
    assert failures(lines) == []
    assert f"ok relay: 127.0.0.1:{RELAY}: free for the daemon, which does not run" in lines
    assert f"ok web: listen 127.0.0.1:{WEB}: free for the daemon, which does not run" in lines
    assert f"ok postfix: 127.0.0.1:{POLICY}: free for the daemon, which does not run" in lines


def test_ports_that_another_program_has(patient: Patient) -> None:
    with socket.create_server((HOST, RELAY)), socket.create_server((HOST, WEB)), socket.create_server((HOST, POLICY)):
        lines = failures(all_told(patient, doors(25)))
    assert len(lines) == 3
    for line, port in zip(lines, (RELAY, WEB, POLICY), strict=True):
        assert f"127.0.0.1:{port}: another program listens there" in line
        assert f"(ss -tlnp 'sport = {port}')" in line


def test_an_address_that_is_not_ours(patient: Patient) -> None:
    (failure,) = failures(patient.told("web", f'[web]\nlisten = "192.0.2.1:{WEB}"\n'))
    assert "this machine has no such address" in failure


def test_a_port_that_was_bound_and_does_not_listen(patient: Patient) -> None:
    with socket.socket() as bound:
        bound.bind((HOST, WEB))
        (failure,) = failures(patient.told("web", f'[web]\nlisten = "{HOST}:{WEB}"\n'))
    assert "another program has it" in failure


def test_what_is_not_configured_is_no_failure(patient: Patient) -> None:
    assert [x[:3] for x in all_told(patient, "")] == ["ok "] * 4
    assert any("any free port will do" in x for x in patient.told("web", f'[web]\nlisten = "{HOST}:0"\n'))


# ------------------------------------------------------------------ certificates


@pytest.mark.parametrize(
    ("name", "days", "said"),
    [
        ("DNS:relay.quillpdf.example", 90, "ok relay: {}: for relay.quillpdf.example, 89 more days"),
        ("DNS:relay.quillpdf.example", 5, "warn relay: {}: ends in 4 days"),
        ("DNS:relay.quillpdf.example", -1, "FAIL relay: {}: ended "),
        ("DNS:other.example", 90, "FAIL relay: {}: Hostname mismatch, certificate is not valid for 'relay.quillpdf"),
    ],
)
def test_the_relays_own_certificate(patient: Patient, ca: Authority, name: str, days: int, said: str) -> None:
    lines = patient.told("relay", doors(25, certificate(ca, name, days)))
    assert any(x.startswith(said.format(ca.files(name, days=days)[0])) for x in lines), lines


# ------------------------------------------------------------------ while it runs


@pytest.fixture(scope="module")
def behind() -> Iterator[Sink]:
    """The upstream of the daemon."""
    with sink() as it:
        yield it


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory, behind: Sink, ca: Authority) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("running"), HOUSE + doors(behind.port, certificate(ca))).running() as it:
        yield it


@pytest.fixture
def running(patient: Patient, _running: Daemon) -> Daemon:
    """The daemon, with all its doors; the patient is its house."""
    patient.directory = _running.directory
    return _running


def test_a_daemon_that_runs(patient: Patient, running: Daemon, behind: Sink, ca: Authority) -> None:
    config = doors(behind.port, certificate(ca))
    lines = all_told(patient, config)
    assert failures(lines) == []
    assert f"ok relay: 127.0.0.1:{RELAY}: answers (refuse, tls starttls, no AUTH)" in lines
    assert f"ok web: listen 127.0.0.1:{WEB}: answers" in lines
    assert f"ok postfix: 127.0.0.1:{POLICY}: listens" in lines
    (line,) = patient.told("daemon", config)
    assert line.startswith("ok daemon: runs, version ")
    assert failures(patient.told("", config)) == []


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_renewed_certificate_that_the_daemon_has_not_read(
    patient: Patient, behind: Sink, ca: Authority, tls: str
) -> None:
    port = free_port()
    cert, key = patient.directory / "cert.pem", patient.directory / "key.pem"
    config = doors(behind.port, f'tls = "{tls}"\ncert_file = "cert.pem"\nkey_file = "key.pem"')
    config = config.partition("[web]")[0].replace(str(RELAY), str(port))
    old, new = (ca.files("DNS:relay.quillpdf.example", days=days) for days in (60, 90))
    for source, target in zip(old, (cert, key), strict=True):
        shutil.copy(source, target)
    with Daemon(patient.directory, HOUSE + config).running():
        assert not [x for x in patient.told("relay", config) if x[:2] != "ok"]
        for source, target in zip(new, (cert, key), strict=True):
            shutil.copy(source, target)
        (warning,) = [x for x in patient.told("relay", config) if x[:2] != "ok"]
    assert f"127.0.0.1:{port}: shows another certificate than " in warning
    assert "systemctl reload optoutd" in warning


def test_a_relay_that_is_not_ours(patient: Patient, running: Daemon, behind: Sink) -> None:
    config = doors(behind.port).replace(f'listen = "{HOST}:{RELAY}"', f'listen = "{HOST}:{behind.port}"', 1)
    config = config.replace(f"port = {behind.port}\n", "port = 25\n", 1)
    (failure,) = failures(patient.told("relay", config))
    assert f"127.0.0.1:{behind.port}: greets with " in failure


def test_a_door_that_the_config_got_after_the_start(patient: Patient, running: Daemon, behind: Sink) -> None:
    config = doors(behind.port).replace(str(WEB), str(free_port()))
    (failure,) = failures(patient.told("web", config))
    assert "the daemon runs, but does not listen there -> was the config changed" in failure


def test_another_version(patient: Patient, running: Daemon, behind: Sink) -> None:
    patient.monkeypatch.setattr("daemon.doctor.running.__version__", "99.0")
    assert any("this command 99.0 -> restart it" in x for x in patient.told("daemon", doors(behind.port)))


def test_what_the_daemon_says_of_its_parts(patient: Patient, running: Daemon, behind: Sink) -> None:
    behind.stop()
    try:
        running.rcpt("ann@example.com")
        lines = patient.told("daemon", doors(behind.port))
    finally:
        behind.start()
    assert any(x.startswith("warn daemon: it says of its upstream: connect: ") for x in lines)


def test_a_daemon_that_does_not_run(patient: Patient) -> None:
    (line,) = patient.told("daemon", doors(25))
    assert line.startswith("warn daemon: it does not run -> start it")


# ------------------------------------------------------------------ what the world sees


@pytest.fixture(scope="module")
def _proxy(ca: Authority) -> Iterator[Proxy]:
    with proxied(ca.issue("DNS:localhost", "IP:127.0.0.1", days=90), PUBLIC) as it:
        yield it


@pytest.fixture
def proxy(_proxy: Proxy, ca: Authority, patient: Patient) -> Proxy:
    """Before the public door, set up well, and trusted by this process."""
    patient.monkeypatch.setenv("SSL_CERT_FILE", str(ca.ca_file))
    vars(_proxy).update(vars(Proxy(PUBLIC, _proxy.port)))
    return _proxy


def seen(proxy: Proxy, path: str = "") -> str:
    """The config."""
    return f'[web]\nlisten = "{HOST}:{PUBLIC}"\npublic_url = "https://127.0.0.1:{proxy.port}{path}"\n'


def of_url(lines: list[str]) -> list[str]:
    """Without the doors themselves."""
    return [x for x in lines if "web: listen" not in x]


@pytest.fixture(scope="module")
def _public(tmp_path_factory: pytest.TempPathFactory, _proxy: Proxy) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("public"), HOUSE + seen(_proxy)).running() as it:
        yield it


@pytest.fixture
def public(patient: Patient, _public: Daemon) -> Daemon:
    """The daemon behind it; the patient is its house."""
    patient.directory = _public.directory
    return _public


def test_links_work_from_outside(patient: Patient, public: Daemon, proxy: Proxy) -> None:
    assert of_url(patient.told("web", seen(proxy))) == [
        f"ok web: https://127.0.0.1:{proxy.port}: reached, TLS (certificate for 89 more days)",
        "ok web: a link of ours is shown, and POST comes through (what is no link of ours was refused)",
    ]
    with sqlite3.connect(public.directory / "optoutd.db") as db:
        assert db.execute("SELECT count(*) FROM audit").fetchone() == (0,)
    db.close()


def test_a_proxy_that_passes_no_posts(patient: Patient, public: Daemon, proxy: Proxy) -> None:
    proxy.takes_posts = False
    (failure,) = failures(patient.told("web", seen(proxy)))
    assert "POST to a link: HTTP 405, and not from optoutd: nobody can opt out with one click" in failure


def test_a_proxy_that_answers_itself(patient: Patient, public: Daemon, proxy: Proxy) -> None:
    proxy.answers = 200
    (failure,) = failures(patient.told("web", seen(proxy)))
    assert "/healthz: HTTP 200, and not from optoutd -> links in mail lead to another site" in failure


def test_a_proxy_that_does_not_reach_the_daemon(patient: Patient, public: Daemon, proxy: Proxy) -> None:
    proxy.backend = free_port()
    (failure,) = failures(patient.told("web", seen(proxy)))
    assert f"HTTP 502: the proxy does not reach optoutd -> let it pass requests on to http://{HOST}:{PUBLIC}" in failure


def test_another_optoutd_behind_the_proxy(patient: Patient, public: Daemon, proxy: Proxy) -> None:
    at = public.directory / "site.key"
    key = at.read_text()
    patient.file("site.key", "ab" * 32 + "\n")
    try:
        (failure,) = failures(patient.told("web", seen(proxy)))
    finally:
        at.write_text(key)
    assert "a link of ours is answered HTTP 400 -> is it another optoutd" in failure


def test_a_proxy_with_another_clock(patient: Patient, public: Daemon, proxy: Proxy) -> None:
    proxy.ahead = timedelta(minutes=7)
    (line,) = [x for x in patient.told("web", seen(proxy)) if " clock: " in x]
    assert line.startswith("warn clock: the clock of web.public_url and ours differ by 4")


def test_while_the_daemon_does_not_run_the_proxy_is_tried(patient: Patient, proxy: Proxy) -> None:
    proxy.backend = free_port()
    (line,) = of_url(patient.told("web", seen(proxy)))
    assert line.startswith(f"ok web: https://127.0.0.1:{proxy.port}: reached, ")
    assert line.endswith("HTTP 502, what is behind it can be tried when the daemon runs")


def test_a_public_certificate_that_is_not_trusted(patient: Patient, proxy: Proxy) -> None:
    patient.monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    (failure,) = failures(of_url(patient.told("web", seen(proxy))))
    assert "tls: unable to get local issuer certificate" in failure


def test_without_a_public_url_no_one_click_link_is_stamped(patient: Patient) -> None:
    assert any(x.startswith("warn web: web.public_url is not set") for x in patient.told("web", doors(25)))


# ------------------------------------------------------------------ webhooks


def hook(url: str, more: str = "") -> str:
    """A [[webhook]] section."""
    return f'\n[[webhook]]\nname = "crm"\nurl = "{url}"\nsecret_file = "hook-secret"\n{more}\n'


def test_a_receiver_that_works_hears_nothing(patient: Patient, ca: Authority) -> None:
    patient.file("hook-secret", SECRET)
    with receiver(tls=ca.issue("IP:127.0.0.1", days=90)) as crm:
        (line,) = patient.told("webhook", hook(crm.url, f'ca_file = "{ca.ca_file}"'))
        assert line.endswith("reached, TLS (certificate for 89 more days); no POST was made")
        assert crm.heard == []
        (failure,) = patient.told("webhook", hook(crm.url))
    assert failure.startswith(f"FAIL webhook crm: 127.0.0.1:{crm.port}: tls: unable to get local issuer certificate")
    (failure,) = patient.told("webhook", hook(crm.url))
    assert f"FAIL webhook crm: 127.0.0.1:{crm.port}: connect: Connection refused" in failure


def test_a_receiver_that_refuses_what_it_is_told(patient: Patient) -> None:
    patient.file("hook-secret", SECRET)
    books = patient.books()
    now = datetime.now(UTC)
    with write(books.ledger, now, "test") as w:
        hooks.begin(w, "crm")
    with write(books.ledger, now, "test") as w:
        hooks.failed(w, "crm", 0, 3, now, "HTTP 500 for ann@customer.example")
    books.close()
    with receiver() as crm:
        lines = patient.told("webhook", hook(crm.url))
    (failure,) = failures(lines)
    assert "3 failures in a row, 0 changes waiting: HTTP 500 for <address> -> look at the receiver" in failure
