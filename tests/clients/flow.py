"""What the flows share: `held` says what was read back and ends the flow at the first thing that is not so.

A flow that came to its end prints `HELD n`; the test looks for that line.
"""

import os
import sys
import time
import traceback
from enum import Enum

_count = 0


def held(what, condition, seen=None):
    """Counts a fact that was read back; ends the whole process where it does not hold."""
    global _count
    if not condition:
        sys.stdout.flush()
        print(f"NOT HELD: {what}: {repr(seen)[:2000]}", file=sys.__stderr__, flush=True)
        traceback.print_stack(file=sys.__stderr__)
        # No exit handler of the SDK may delay or replace this.
        os._exit(1)
    _count += 1


def same(what, seen, expected):
    """`held` for two values that should be equal."""
    if isinstance(seen, Enum):
        seen = seen.value
    held(f"{what} should be {expected!r}", seen == expected, seen)


# Deadlines are written as on a quiet machine; one that others use too gets so many times as long.
PATIENCE = 3


def eventually(what, probe, seconds=30):
    """Asks until there is a value, with a deadline."""
    seconds *= PATIENCE
    until = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            held(what, True)
            return value
        if time.monotonic() > until:
            held(f"{what}, within {seconds} s", False, value)
        time.sleep(0.2)


def refused(what, call, *words):
    """The call should fail with these words in its error."""
    try:
        answer = call()
    except Exception as error:  # the SDK has no common error class
        for word in words:
            held(f"{what}: the error names {word!r}", word in str(error), str(error))
        return
    held(f"{what} should be refused", False, answer)


def done():
    """The flow came to its end. The SDK's own exit handlers run after this, and may fail the flow still."""
    held("something was read back", _count > 0)
    print(f"HELD {_count}", flush=True)
