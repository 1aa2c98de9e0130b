#!/usr/bin/env python3
"""Runs a program under the system call rules of a unit, without systemd.

    sandbox.py UNIT PROGRAM [ARGUMENT…]

Owns the reading of a unit's [Service] section and the making of the same seccomp filters that systemd makes of
SystemCallFilter, RestrictAddressFamilies, MemoryDenyWriteExecute and RestrictNamespaces. What the groups of system
calls hold is asked of `systemd-analyze syscall-filter`. Folders, users and capabilities are left as they are: those
need root. Needs libseccomp, which systemd brings along.
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys

ALLOW = 0x7FFF0000
NOT_EQUAL, LESS, EQUAL, GREATER, MASKED_EQUAL = 1, 2, 4, 6, 7
PR_SET_NO_NEW_PRIVS = 38
PROT_WRITE, PROT_EXEC = 2, 4
FAMILIES = range(socket.AF_UNIX, 48)


def refuse(code):
    return 0x00050000 | code


class Condition(ctypes.Structure):
    """An argument of a system call, as libseccomp compares it; for MASKED_EQUAL `a` is the mask."""

    _fields_ = [("argument", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class Filter:
    """One seccomp filter. The kernel takes the strictest answer of all that a process has loaded."""

    def __init__(self, default):
        self.library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.library.seccomp_init(ctypes.c_uint32(default)))
        if not self.context:
            raise OSError("seccomp_init gave nothing")

    def rule(self, action, name, *conditions):
        number = self.library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            # Of another architecture, or newer than the library.
            return
        array = (Condition * len(conditions))(*conditions)
        self.check(
            self.library.seccomp_rule_add_array(self.context, ctypes.c_uint32(action), number, len(array), array)
        )

    def load(self):
        self.check(self.library.seccomp_load(self.context))

    def check(self, result):
        if result != 0:
            raise OSError(-result, os.strerror(-result))


def service(path):
    """The [Service] section: every value of each key, in order; an empty one takes back those before it."""
    section, keys = None, {}
    with open(path, encoding="utf-8") as lines:
        for line in map(str.strip, lines):
            if line.startswith("["):
                section = line
            elif section == "[Service]" and line and line[0] not in "#;":
                key, value = (part.strip() for part in line.split("=", 1))
                keys[key] = keys.get(key, []) + [value] if value else []
    return keys


def groups():
    """The groups of system calls that systemd knows: name to members, which may be groups."""
    # On stderr it may miss the kernel's own list, for which there is no need here.
    told = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    found, members = {}, []
    for line in told.splitlines():
        if line.startswith("@"):
            members = found[line.strip()] = []
        elif line.startswith(" ") and not line.strip().startswith("#"):
            members.append(line.strip())
        elif line.startswith("#"):
            # What follows belongs to no group.
            members = []
    return found


def allowed(keys):
    """The system calls that the unit permits."""
    known = groups()

    def expand(name):
        return set().union(*map(expand, known[name])) if name.startswith("@") else {name}

    # systemd adds what no program can do without.
    permitted = expand("@default") | {"execve", "exit", "exit_group", "rt_sigreturn", "sigreturn", "time"}
    lines = keys["SystemCallFilter"]
    if lines[0].startswith("~"):
        raise ValueError("the filter of this unit does not begin with what is allowed")
    for line in lines:
        names = set().union(*map(expand, line.removeprefix("~").split()))
        permitted = permitted - names if line.startswith("~") else permitted | names
    return permitted


def yes(keys, name):
    return keys.get(name, ["no"])[-1] in ("yes", "true", "on", "1")


def confine(keys):
    """Loads the filters into this process, for good. The list of permitted calls comes last: it forbids loading."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    code = getattr(errno, keys["SystemCallErrorNumber"][-1])
    permitted = allowed(keys)
    rest = Filter(ALLOW)
    named = {getattr(socket, name).value for name in " ".join(keys["RestrictAddressFamilies"]).split()}
    for family in set(FAMILIES) - named:
        rest.rule(refuse(errno.EAFNOSUPPORT), "socket", Condition(0, EQUAL, family, 0))
    rest.rule(refuse(errno.EAFNOSUPPORT), "socket", Condition(0, GREATER, FAMILIES[-1], 0))
    if yes(keys, "MemoryDenyWriteExecute"):
        both = PROT_WRITE | PROT_EXEC
        rest.rule(refuse(errno.EPERM), "mmap", Condition(2, MASKED_EQUAL, both, both))
        for name in ("mprotect", "pkey_mprotect"):
            rest.rule(refuse(errno.EPERM), name, Condition(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
    if yes(keys, "RestrictNamespaces"):
        # The flags of clone3 lie in memory, where no filter sees them: libc is to fall back to clone.
        rest.rule(refuse(errno.ENOSYS), "clone3")
        for name in ("unshare", "setns"):
            rest.rule(refuse(errno.EPERM), name)
    main = Filter(refuse(code))
    for name in permitted | {"seccomp", "prctl"}:
        main.rule(ALLOW, name)
    rest.load()
    main.load()


if __name__ == "__main__":
    confine(service(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
