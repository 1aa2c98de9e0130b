"""Puts the folders whose modules are reused here on the path: tests/domains for DNS and domains, tests/peers for
Postfix and the relay, tests/faults for a smarthost.

Other folders have modules of these names too; those of the first folder in this order are meant.
"""

import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[1:1] = [str(TESTS / "domains"), str(TESTS / "peers"), str(TESTS / "faults")]
