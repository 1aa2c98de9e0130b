"""Runs scripts with node, in a folder where they find the packages of package.json."""

import os
import pathlib
import shutil

from ground import NODE_MODULES
from support import run

SCRIPTS = pathlib.Path(__file__).resolve().parent / "node"


class Node:
    """node looks for packages in the folders above a script, so scripts are put beside a link to them."""

    def __init__(self, folder, scripts=SCRIPTS):
        if not (NODE_MODULES / "resend").is_dir():
            raise AssertionError(f"{NODE_MODULES} has no resend: see node_packages in tests/tools.sh")
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        (self.folder / "node_modules").symlink_to(NODE_MODULES)
        for script in scripts.iterdir():
            shutil.copy(script, self.folder)

    def run(self, script, *arguments, base, key, **variables):
        """A script of this folder to its end; what it printed. It must succeed."""
        given = {"RESEND_BASE_URL": base, "RESEND_API_KEY": key} | variables
        ended = run("node", self.folder / script, *arguments, env=environment() | given)
        if ended.returncode:
            raise AssertionError(f"{script}: exit {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
        return ended.stdout


def environment():
    """Ours, less what would change where the SDK goes or what it says."""
    return {name: value for name, value in os.environ.items()
            if not name.startswith(("RESEND_", "NODE_")) and not name.lower().endswith("_proxy")}
