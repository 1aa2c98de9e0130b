"""What `restore` says is restored is on the disk, with its name: a power cut right after takes nothing back."""

import os
import re
import subprocess
import tempfile
import unittest

from ground import BINARY, Case

CALLS = "fsync,fdatasync,rename,renameat,renameat2,openat,mkdir,mkdirat"


class Restore(Case):
    def test_every_name_that_was_made_is_synced_in_its_folder(self):
        relay = self.relay(self.sink())
        relay.start()
        relay.add_domain()
        archive = os.path.join(relay.folder, "saved.tar")
        self.ran(relay.config, "backup", archive)
        relay.stop()
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        for name in ("by path", "by name"):
            with self.subTest(name):
                folder = os.path.join(os.path.realpath(place.name), name.replace(" ", "-"))
                os.mkdir(folder)
                config, data = os.path.join(folder, "trackpost.toml"), os.path.join(folder, "deep", "data")
                said = os.path.basename(config) if name == "by name" else config
                trace = os.path.join(relay.folder, "trace")
                self.ran(said, "restore", archive, "--data-dir", data, cwd=folder,
                         under=["strace", "-f", "-y", "-o", trace, "-e", f"trace={CALLS}"])
                with open(trace) as file:
                    calls = file.read().splitlines()
                for made, its_folder in (
                    (rf'openat\(.*"{re.escape(said)}".*O_CREAT', folder),
                    (rf'mkdir(at)?\(.*"{re.escape(os.path.dirname(data))}"', folder),
                    (rf'mkdir(at)?\(.*"{re.escape(data)}"', os.path.dirname(data)),
                    (r'openat\(.*restore.new/keys/token-1.key".*O_CREAT', f"{data}/restore.new/keys"),
                    (rf'rename.*"{re.escape(data)}/keys"', data),
                    (rf'rename.*"{re.escape(data)}/log"', data),
                ):
                    self.assertTrue(synced_after(calls, made, its_folder), f"{made}: {its_folder} is not synced")

    def ran(self, config, *arguments, cwd=None, under=()):
        subprocess.run([*under, BINARY, "--config", config, *arguments], check=True, cwd=cwd, capture_output=True)


def synced_after(calls, made, folder):
    at = max(n for n, call in enumerate(calls) if re.search(made, call))
    return any(re.search(rf"f(data)?sync\(\d+<{re.escape(folder)}>", call) for call in calls[at:])


if __name__ == "__main__":
    unittest.main()
