"""Puts the folders whose modules are reused here on the path: tests/domains for DNS, REST and the relay, tests/events
for endpoints and mail, and what those reuse themselves.

Several of them have modules of the same name; the order here says which is meant, and what is here comes before all.
"""

import os
import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[1:1] = [str(TESTS / folder) for folder in ("domains", "peers", "events", "faults")]
sys.path.append(str(TESTS / "tls"))
TARGET = (TESTS.parent / os.environ.get("CARGO_TARGET_DIR", "target")).resolve()
# Where tests/tools.sh installs what package.json lists.
NODE_MODULES = TARGET / "tools" / "dashboard" / "node_modules"
# Screenshots, for people to look at.
SHOTS = pathlib.Path(os.environ.get("TRACKPOST_SHOTS", TARGET / "dashboard-shots"))
# Browsers compute more than they wait.
os.environ.setdefault("PARALLEL", str((os.cpu_count() or 2) + 1))
