"""Puts the folders whose modules are reused here on the path: tests/peers for the relay, tests/faults for a smarthost.

Both have a relay.py; that of tests/peers is meant.
"""

import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[1:1] = [str(TESTS / "peers"), str(TESTS / "faults")]
