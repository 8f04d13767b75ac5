"""What the fork server of a sweep sets, by importing this, before runs are forked from it.

The server outlives a signal to the process group or the terminal of the sweep, since the exit codes
of the runs, which save their state then, come through it. It ends when the sweep and all runs have
ended.
"""

import os
import signal

os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
