"""Keys that are made at once by commands, or by two servers that start at once: what signs is what a restart finds."""

import base64
import os
import re
import subprocess
import time
import unittest

from ground import BINARY, DOMAIN, Case, Client, ask, letter

ROUNDS = 20
SELECTOR = "own"


class Keys(Case):
    def ground(self):
        sink = self.sink()
        sink.taken = {}
        return sink, self.relay(sink)

    def link(self, sink, relay, name):
        """The first link of a message that is sent now."""
        with Client(relay.smtp) as client:
            self.assertRegex(client.send(name, letter(name, 1_000)), "^250")
        (body,) = self.eventually(f"{name} arrives", lambda: sink.taken.get(name))
        return re.search(rb"http://[^/]+(/c/[\w-]+)", body.replace(b"=\r\n", b""))[1].decode()

    def redirects(self, relay, link):
        return ask(relay.web, link, headers={"Host": f"links.{DOMAIN}"})[0] in (302, 303, 307)

    def commands(self, relay, *all_arguments):
        """Runs commands at once, each by a process of its own; their exit codes."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = [subprocess.Popen([BINARY, "--config", relay.config, *arguments], **quiet)
                   for arguments in all_arguments]
        return [process.wait(30) for process in running]

    def test_links_signed_between_rotations_at_once_work_after_a_restart(self):
        sink, relay = self.ground()
        relay.start()
        relay.add_domain()
        links = []
        for n in range(ROUNDS):
            self.assertEqual(self.commands(relay, *[("key", "rotate")] * 2), [0, 0])
            links.append(self.link(sink, relay, f"m{n}"))
        files = sorted(os.listdir(os.path.join(relay.data, "keys")))
        self.assertEqual(len([name for name in files if name.startswith("token-")]), 1 + 2 * ROUNDS)
        relay.kill()
        relay.start()
        dead = [n for n, link in enumerate(links) if not self.redirects(relay, link)]
        self.assertEqual(dead, [], "rounds whose links are dead")

    def test_of_two_servers_that_start_at_once_in_a_new_folder_one_works_with_the_keys_on_disk(self):
        for n in range(ROUNDS):
            with self.subTest(n):
                sink, relay = self.ground()
                both = [relay, self.relay(sink, data=relay.data)]
                for one in both:
                    self.serve(one)
                self.eventually("one of them ends", lambda: not all(one.lives() for one in both))
                (lives,) = [one for one in both if one.lives()]
                self.eventually("the other greets", lives.greets)
                subprocess.run([BINARY, "--config", lives.config, "recipient", "opt-out", "out@example.net"],
                               check=True, stdout=subprocess.DEVNULL)
                lives.add_domain()
                link = self.link(sink, lives, "m")
                lives.kill()
                lives.start()
                self.assertTrue(self.redirects(lives, link), "the link is dead")
                with Client(lives.smtp) as client:
                    self.assertRegex(client.send("out", letter("out", 1_000)), "^250")
                (body,) = self.eventually("it arrives", lambda: sink.taken.get("out"))
                self.assertNotIn(b"/c/", body, "the opt-out is forgotten")
                lives.kill()

    def serve(self, relay):
        with open(relay.log, "ab") as log:
            relay.process = subprocess.Popen([BINARY, "--config", relay.config, "serve"], stdout=log, stderr=log)


class Dkim(Case):
    @classmethod
    def setUpClass(cls):
        cls.pems = [subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True).stdout
                    for _ in range(3)]

    def test_keys_brought_at_once_for_one_selector(self):
        relay = self.relay(self.sink())
        relay.start()
        relay.add_domain()
        paths = []
        for n, pem in enumerate(self.pems):
            paths.append(os.path.join(relay.folder, f"{n}.pem"))
            with open(paths[-1], "wb") as file:
                file.write(pem)
        seen = set()
        for n in range(ROUNDS):
            running = [self.imports(relay, path) for path in paths[n % 2:][:2]]
            if n % 2:
                time.sleep(0.003 * n)
                relay.kill()
            for process in running:
                process.wait(30)
            if n % 2:
                relay.start()
            shown = subprocess.run([BINARY, "--config", relay.config, "domain", "show", DOMAIN, "--json"], check=True,
                                   capture_output=True, text=True).stdout
            (named,) = set(re.findall(r"p=([A-Za-z0-9+/=]{300,})", shown)) or {None}
            if named is None:
                continue
            seen.add(named)
            folder = os.path.join(relay.data, "keys")
            files = [name for name in os.listdir(folder) if "dkim" in name]
            self.assertEqual(files, [f"dkim-{DOMAIN}-{SELECTOR}.key"])
            self.assertEqual(public(os.path.join(folder, files[0])), named, f"round {n}: the settings name another")
        self.assertGreater(len(seen), 1)

    def imports(self, relay, path):
        return subprocess.Popen([BINARY, "--config", relay.config, "domain", "dkim", "import", DOMAIN, "--key", path,
                                 "--selector", SELECTOR, "--force"], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)


def public(path):
    der = subprocess.run(["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"], check=True,
                         capture_output=True).stdout
    return base64.b64encode(der).decode()


if __name__ == "__main__":
    unittest.main()
