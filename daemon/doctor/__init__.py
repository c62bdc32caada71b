"""`optoutd doctor`: everything tried for real, whether the daemon runs or not, and what to do about what fails.

    examine -> a thread for each probe, all at once -> their findings, in the order of the list of probes

A probe is a function from a `Look` (the config, the moment, what may be left behind) to findings. It asks the parts what
they know of themselves; what it cannot find out in time is a finding, too. Nothing is changed, unless `traces` is asked for.
"""

from daemon.doctor.findings import Finding, State
from daemon.doctor.rounds import examine, has_failed

__all__ = ["Finding", "State", "examine", "has_failed"]
