"""Puts the folders whose modules are reused here on the path: what runs comes from tests/domains, tests/peers and
tests/faults, shapes of the API's answers and the SDK for Node from tests/sdk.

Several of them have modules of the same name; the order here says which is meant.
"""

import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[1:1] = [str(TESTS / folder) for folder in ("domains", "peers", "faults", "sdk")]
