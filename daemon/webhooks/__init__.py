"""Programs that are told of changes of the list: a shop, a CRM.

    the audit log -> storage.hooks.window -> told.compose (what is said, signed) -> wire.Line.post -> hooks.went_well

`told` says what is told and how it is signed, `wire` sends it, `teller` does so in order and does not give up soon;
`standing` says how it is with them, for command line and console.
"""

from daemon.webhooks.standing import standing, untold
from daemon.webhooks.teller import Tellers
from daemon.webhooks.told import Hook, WrongSecret, keys_in

__all__ = ["Hook", "Tellers", "WrongSecret", "keys_in", "standing", "untold"]
