"""Puts the folders whose modules are reused here on the path: tests/domains for DNS, REST and the relay, and what those
reuse themselves."""

import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[1:1] = [str(TESTS / name) for name in ("domains", "peers", "faults")]
