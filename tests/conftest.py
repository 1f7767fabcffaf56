"""What holds for all tests."""

import signal

# A shell starts its background jobs with Ctrl-C ignored; tests that interrupt a command need one that hears it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
