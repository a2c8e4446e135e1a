"""Run a command that the kernel kills as soon as the process that started it is gone (Linux; elsewhere, just run it).

A script of its own, because a `preexec_fn` is not safe in a parent that has threads, as every Kafka client has.
Usage: python die_with_parent.py PARENT_PID COMMAND [ARGUMENT...]
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel was asked
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - there is no shell to want here
