"""Instructions of the hot paths, beside benches/baseline: more than 3 % over it fails.

    python3 -m unittest                     compares what the tests' own build does, which is there already
    python3 test_instructions.py --update   writes the baselines anew

PROFILE=counted counts an optimised build, as `tests/campaign instructions` does; that takes minutes to build.

Counts are the same on a busy machine, and differ between processors, since libraries choose their code by what the
processor can do. So the baseline names what it was made with, and on another machine nothing is compared.
"""
import json, os, pathlib, re, shutil, subprocess, sys, unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROFILE = os.environ.get("PROFILE", "dev")
MORE = 0.03
# What code is chosen by, in the standard library, memchr, ring, sha2 and the C library, as far as valgrind lets it through.
FEATURES = "aes avx avx2 bmi1 bmi2 erms fma lzcnt abm movbe pclmulqdq popcnt sha_ni sse4_1 sse4_2 ssse3".split()


def baseline(profile):
    return ROOT / f"benches/baseline/{profile}.json"


def said(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def machine():
    """What the counts depend on beside our own code."""
    flags = set()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.split(":", 1)[1].split())
            break
    return {
        "architecture": os.uname().machine,
        "features": sorted(flags.intersection(FEATURES)),
        "rustc": said("rustc", "--version"),
        "valgrind": said("valgrind", "--version"),
        "libc": " ".join(os.confstr("CS_GNU_LIBC_VERSION").split()),
    }


def as_written():
    """The environment without what changes a profile: debug information alone takes up to 30 % more in a build that
    is not optimised, since every variable is then kept where a debugger finds it."""
    changes = ("CARGO_PROFILE_", "CARGO_INCREMENTAL", "CARGO_BUILD_RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(changes)}


def counted(profile):
    """Instructions by step. Each is counted once."""
    words = ["cargo", "bench", "--locked", "--profile", profile, "--bench", "instructions", "--", "--output-format=json"]
    done = subprocess.run(words, cwd=ROOT, env=as_written(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-4000:])
    return dict(read(done.stdout))


def read(text):
    decoder, at = json.JSONDecoder(), 0
    while (at := text.find("{", at)) >= 0:
        summary, at = decoder.raw_decode(text, at)
        name = f'{summary["function_name"]}/{summary["id"]}'
        yield name, instructions(summary)


def instructions(summary):
    for profile in summary["profiles"]:
        if profile["tool"] == "Callgrind":
            return profile["data"]["total"]["metrics"]["Ir"]["values"]["new"]
    raise KeyError("no profile by callgrind")


class Instructions(unittest.TestCase):
    def test_the_hot_paths_take_no_more_than_they_did(self):
        kept = json.loads(baseline(PROFILE).read_text())
        here = machine()
        if kept["machine"] != here:
            differs = [f"{name}: {kept['machine'][name]} there, {here[name]} here" for name in here
                       if kept["machine"].get(name) != here[name]]
            print("instructions: NOT COMPARED, the baseline was made with another machine:", "; ".join(differs))
            return
        now = counted(PROFILE)
        self.assertEqual(sorted(now), sorted(kept["instructions"]), "the baseline names other steps: write it anew")
        for name, before in kept["instructions"].items():
            print(f"  {name:44} {before:>12,} {now[name]:>12,} {now[name] / before - 1:+8.2%}")
        slower = {name: now[name] for name, before in kept["instructions"].items() if now[name] > before * (1 + MORE)}
        self.assertEqual(slower, {}, "these take over 3 % more instructions; if that is meant, write the baseline anew")

    def test_reading_fails_loudly(self):
        with self.assertRaises(KeyError):
            instructions({"profiles": []})


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        for profile in [os.environ["PROFILE"]] if "PROFILE" in os.environ else ["dev", "counted"]:
            kept = {"machine": machine(), "instructions": counted(profile)}
            baseline(profile).write_text(json.dumps(kept, indent=1) + "\n")
    else:
        unittest.main()
