"""An IMAP server that offers little, and says what a test wants it to say."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping, Sequence

USUAL: dict[str, Sequence[str]] = {
    "LIST": ['LIST (\\HasNoChildren) "/" INBOX'],
    "STATUS": ["STATUS INBOX (MESSAGES 3)"],
    "NAMESPACE": ['NAMESPACE (("" "/")) NIL NIL'],
    "EXAMINE": ["3 EXISTS", "OK [UIDVALIDITY 1] x", "OK [UIDNEXT 4] x"],
    "UID SEARCH": ["SEARCH"],
}


def imap(capabilities: str, replies: Mapping[str, Sequence[str]] | None = None) -> Callable[[socket.socket], None]:
    """What a server with these capabilities says. `replies`: verb -> untagged lines; one that begins with NO is its answer."""
    known = {**USUAL, "CAPABILITY": [f"CAPABILITY IMAP4rev1 {capabilities}"], **(replies or {})}

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"* OK hello\r\n")
        with connection.makefile("rb") as lines:
            for line in lines:
                tag, verb, *words = re.findall(r"\S+", line.decode())
                verb = f"UID {words[0]}" if verb.upper() == "UID" else verb
                said = list(known.get(verb.upper(), ()))
                refused = said and said[0].startswith("NO")
                told = "" if refused else "".join(f"* {text}\r\n" for text in said)
                connection.sendall(f"{told}{tag} {said[0] if refused else 'OK done'}\r\n".encode())
                if verb.upper() == "LOGOUT":
                    return

    return talk


def port_of(url: str) -> int:
    """Of a server that `tests.webhooks.receiver.raw` made."""
    return int(url.rpartition(":")[2].partition("/")[0])
