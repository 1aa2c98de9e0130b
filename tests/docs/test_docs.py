"""README.md, docs/ and the pages beside README.md are true in what a program can check: links, settings and commands.
Standard library only.

`python3 -m unittest` in this folder. With `TRACKPOST_BIN=PROGRAM`, subcommands and options are looked up in its --help
as well; without it, commands alone, in src/cli/mod.rs.
"""

import functools
import os
import pathlib
import re
import shlex
import subprocess
import tomllib
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
README, DOCS, CONFIG = ROOT / "README.md", ROOT / "docs", ROOT / "config" / "trackpost.toml"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = [README, CONTRIBUTING, ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
PROGRAM = os.environ.get("TRACKPOST_BIN")


def fences(page):
    """(language, text) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)


def prose(page):
    """What is outside of fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)


def anchors(page):
    """Of its headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.M):
        name = base = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        number = 0
        while name in found:
            number += 1
            name = f"{base}-{number}"
        found.add(name)
    return found


def settings():
    """Section → setting → default of config/trackpost.toml. A section in comments has what its parent has."""
    text = CONFIG.read_text()
    known = {}

    def add(section, table):
        for name, value in table.items():
            first = value[0] if isinstance(value, list) and value else value
            if isinstance(first, dict):
                add(f"{section}.{name}".lstrip("."), first)
            else:
                known.setdefault(section, {})[name] = value

    add("", tomllib.loads(text))
    for section in re.findall(r"^# \[\[?([\w.]+)\]", text, re.M):
        known[section] = known[section.rpartition(".")[0]]
    return known


def unknown(table, known, section=""):
    """What a table names that is no setting."""
    for name, value in table.items():
        inner = f"{section}.{name}".lstrip(".")
        if isinstance(value, dict):
            yield from unknown(value, known, inner)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for one in value:
                yield from unknown(one, known, inner)
        elif name not in known.get(section, {}):
            yield inner


def console(page):
    """The words after `trackpost` in each command of the page's console blocks and scripts."""
    for language, text in fences(page):
        if language in ("console", "sh"):
            lines = text.replace("\\\n", " ").splitlines()
            for line in lines if language == "sh" else [line[2:] for line in lines if re.match(r"[$#] ", line)]:
                for words in re.findall(r"(?:^|[|;(]|&&)\s*(?:[\w./-]*/)?trackpost(?= )([^|;)>&]*)", line):
                    yield line, shlex.split(words, comments=True)


@functools.cache
def usage(*commands):
    ended = subprocess.run([PROGRAM, *commands, "--help"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, f"trackpost {commands}: {ended.stderr}"
    return ended.stdout


def subcommands(*commands):
    if PROGRAM:
        listed = re.search(r"^Commands:\n(.*?)\n\n", usage(*commands), re.M | re.S)
        return set(re.findall(r"^  ([\w-]+)", listed[1], re.M)) if listed else set()
    if commands:
        return set()
    listed = re.search(r"^enum Command \{\n(.*?)^\}", (ROOT / "src/cli/mod.rs").read_text(), re.M | re.S)[1]
    return {name.lower() for name in re.findall(r"^    ([A-Z]\w+)", listed, re.M)}


class Docs(unittest.TestCase):
    def test_the_readme_is_short(self):
        self.assertLessEqual(len(README.read_text().splitlines()), 150)

    def test_every_page_is_in_the_index(self):
        linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", (DOCS / "README.md").read_text()))
        self.assertEqual(linked, {page.name for page in DOCS.glob("*.md")} - {"README.md"})

    def test_links_lead_somewhere(self):
        for page in PAGES:
            # A line may end inside the text of a link.
            for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page))):
                if re.match(r"https?:|mailto:", target):
                    continue
                with self.subTest(page=page.name, link=target):
                    path, _, anchor = target.partition("#")
                    file = (page.parent / path).resolve() if path else page
                    self.assertTrue(file.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(file))

    def test_files_exist(self):
        """What contributors are told to run and to read, by path, target or campaign."""
        told = CONTRIBUTING.read_text()
        paths = re.findall(r"(?<![\w/.-])(?:src|tests|fuzz|benches|fixtures|docs|config)/[\w./-]*\w", told)
        self.assertGreater(len(paths), 40)
        for path in {path for path in paths if path != "fuzz/artifacts"}:
            with self.subTest(path=path):
                self.assertTrue((ROOT / path).exists())
        for target in re.findall(r"--test (\w+)", told):
            with self.subTest(target=target):
                self.assertTrue((ROOT / f"tests/{target}.rs").exists() or (ROOT / f"tests/{target}/main.rs").exists())
        for bench in re.findall(r"--bench (\w+)", told):
            with self.subTest(bench=bench):
                self.assertTrue((ROOT / f"benches/{bench}.rs").exists())
        for module in re.findall(r"`(?:cargo test --lib )?([a-z]\w*)::`", told):
            with self.subTest(module=module):
                self.assertTrue(any((ROOT / "src" / name).exists() for name in (module, f"{module}.rs")))
        listed = re.findall(r"^#   tests/campaign ([\w-]+)", (ROOT / "tests/campaign").read_text(), re.M)
        for campaign in re.findall(r"tests/campaign ([a-z-]+)(?= [0-9]|`)", told):
            with self.subTest(campaign=campaign):
                self.assertIn(campaign, listed)

    def test_contributors_are_told_of_every_test_and_fuzz_target(self):
        table = CONTRIBUTING.read_text().partition("## How the tests are laid out\n")[2]
        told = set(re.findall(r"`tests/([\w.]+)`", table))
        entries = {entry.name for entry in (ROOT / "tests").iterdir() if entry.is_dir() or entry.suffix == ".rs"}
        self.assertEqual(entries - {"__pycache__"} - told, set())
        targets = {target.stem for target in (ROOT / "fuzz/fuzz_targets").glob("*.rs")}
        self.assertEqual(targets - set(re.findall(r"`(\w+)`", table)), set())

    def test_settings_exist(self):
        known = settings()
        for page in PAGES:
            for language, text in fences(page):
                if language == "toml":
                    with self.subTest(page=page.name, text=text):
                        self.assertEqual(list(unknown(tomllib.loads(text), known)), [])

    def test_the_page_of_settings_has_each_with_its_default(self):
        section, told = "", {}
        for line in prose(DOCS / "configuration.md").splitlines():
            if heading := re.match(r"#+ (.*)", line):
                section = name[1] if (name := re.match(r"`\[+([\w.]+)\]+`", heading[1])) else ""
            elif row := re.match(r"\| (`\w+`(?:, `\w+`)*) \| `([^`]*)` \| ", line):
                for name in re.findall(r"\w+", row[1]):
                    told.setdefault(section, {})[name] = tomllib.loads(f"x = {row[2]}")["x"]
        known = settings()
        # It has no table of its own.
        del known["smarthost.fallback"]
        self.assertEqual(told, known)

    def test_commands_exist(self):
        seen = 0
        for page in PAGES:
            for line, words in console(page):
                with self.subTest(page=page.name, line=line):
                    if words and words[0] == "--config":
                        words = words[2:]
                    path = []
                    while words and subcommands(*path):
                        self.assertIn(words[0], subcommands(*path))
                        path.append(words.pop(0))
                    self.assertTrue(path, "a command")
                    if PROGRAM:
                        for option in (word for word in words if word.startswith("--")):
                            self.assertRegex(usage(*path), rf"(?m)^\s+(-\w, )?{option.partition('=')[0]}\b")
                    seen += 1
        self.assertGreater(seen, 20)

    def test_commands_in_sentences_exist(self):
        for page in PAGES:
            for name in re.findall(r"`trackpost(?: --config FILE)? ([a-z][\w-]*)", re.sub(r"\s+", " ", prose(page))):
                with self.subTest(page=page.name, command=name):
                    self.assertIn(name, subcommands())

    def test_reasons_are_all_there(self):
        listed = re.search(r"^pub enum SkipReason \{\n(.*?)^\}", (ROOT / "src/rewrite/report.rs").read_text(), re.M | re.S)
        names = re.findall(r"^    ([A-Z]\w+),$", listed[1], re.M)
        words = {re.sub(r"(?<!^)([A-Z])", r"-\1", name).lower() for name in names}
        self.assertGreater(len(words), 40)
        for page, heading in (("rewriting.md", "## Reasons"), ("troubleshooting.md", "## Mail is not tracked")):
            part = prose(DOCS / page).partition(heading + "\n")[2].partition("\n## ")[0]
            rows = re.findall(r"^\| (`[^|]*) \|", part, re.M)
            self.assertEqual({word for row in rows for word in re.findall(r"`([\w-]+)`", row)}, words, page)


if __name__ == "__main__":
    unittest.main()
