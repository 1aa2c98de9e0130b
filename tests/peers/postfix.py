"""A Postfix of its own: private configuration, queue, log and mailboxes in one folder, nothing of the system's touched.

Needs root, as Postfix does. Mail is delivered into Maildirs that belong to an unprivileged user; whoever has none here
is refused at RCPT. What is neither for a mailbox here nor routed by the test is returned, so that nothing ever leaves
this machine.
"""

import json
import os
import pathlib
import shutil
import signal

from support import LOGS, last_lines, local, run, succeed, until

OWNER = 65534
DELIVERED = (b"return-path", b"x-original-to", b"delivered-to")

MAIN = """compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
myhostname = {hostname}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
default_transport = {transport}
relayhost = {relayhost}
transport_maps = texthash:{folder}/etc/transport
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = {mailboxes}
virtual_uid_maps = static:{owner}
virtual_gid_maps = static:{owner}
# No brake when mail comes in faster than it leaves.
in_flow_delay = 0
"""

MASTER = """127.0.0.1:{port} inet n - n - - smtpd
pickup   unix n - n 60 1 pickup
{pickup}cleanup  unix n - n - 0 cleanup
qmgr     unix n - n 300 1 qmgr
tlsmgr   unix - - n 1000? 1 tlsmgr
rewrite  unix - - n - - trivial-rewrite
bounce   unix - - n - 0 bounce
defer    unix - - n - 0 bounce
trace    unix - - n - 0 bounce
flush    unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp     unix - - n - - smtp
relay    unix - - n - - smtp
virtual  unix - n n - - virtual
showq    unix n - n - - showq
error    unix - - n - - error
retry    unix - - n - - error
anvil    unix - - n - 1 anvil
scache   unix - - n - 1 scache
postlog  unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """`domain` is the one that it has mailboxes for: those of `users`, or everyone's in one mailbox, `all`.
    `more` is added to main.cf, `services` to master.cf, `pickup` to its entry of that name."""

    def __init__(self, folder, port, hostname, domain, users=None, relayhost="", routes="", more="", services="",
                 pickup=""):
        if os.geteuid():
            raise AssertionError("only root can start a Postfix")
        self.folder, self.port, self.config = pathlib.Path(folder), port, pathlib.Path(folder) / "etc"
        for part in ("etc", "spool", "data", "mail"):
            (self.folder / part).mkdir(parents=True)
        shutil.chown(self.folder / "data", "postfix")
        os.chown(self.folder / "mail", OWNER, OWNER)
        mailboxes = "static:all/"
        if users is not None:
            mailboxes = f"texthash:{self.config}/mailboxes"
            lines = (f"{user}@{domain} {user}/\n" for user in users)
            (self.config / "mailboxes").write_text("".join(lines), encoding="utf-8")
        (self.config / "transport").write_text(routes)
        text = MAIN.format(
            folder=self.folder, hostname=hostname, relayhost=relayhost, domain=domain, mailboxes=mailboxes,
            owner=OWNER, transport="smtp" if relayhost else "error:5.4.4 there is no way out of this machine",
        )
        (self.config / "main.cf").write_text(text + more)
        (self.config / "master.cf").write_text(MASTER.format(port=port, pickup=pickup) + services)
        self.log = self.folder / "mail.log"
        ended = run("postfix", "-c", self.config, "start", env=environment())
        if ended.returncode:
            raise AssertionError(f"Postfix does not start: {ended.stderr}\n{last_lines(self.log)}")
        LOGS.append(self.log)
        self.master = int((self.folder / "spool/pid/master.pid").read_text())

    def stop(self):
        LOGS.remove(self.log)
        os.kill(self.master, signal.SIGTERM)
        until("Postfix to end", lambda: not alive(self.master))

    def sendmail(self, message, recipients, *options, sender):
        """As programs send mail on this machine; the message has CRLF here, and LF on the way in."""
        command = ("sendmail", "-C", self.config, "-i", "-f", sender, *options, "--", *recipients)
        succeed(*command, input=local(message), text=False, env=environment())

    def mailbox(self, user):
        """The messages there, in no order."""
        return [Delivered(path) for path in sorted((self.folder / "mail" / user / "new").glob("*"))]

    def delivered(self, user):
        """How many there are."""
        folder = self.folder / "mail" / user / "new"
        return len(os.listdir(folder)) if folder.exists() else 0

    def wait_for(self, user):
        """The one message of a mailbox, as soon as it is there."""
        until(f"a message for {user}", lambda: self.delivered(user))
        found = self.mailbox(user)
        if len(found) > 1:
            raise AssertionError(f"{len(found)} messages for {user}")
        return found[0]

    def queue(self):
        """What waits, as `postqueue` says it."""
        lines = succeed("postqueue", "-c", self.config, "-j", env=environment()).splitlines()
        return [json.loads(line) for line in lines]


class Delivered:
    """A file of a Maildir: the message with CRLF, without what the last server noted for itself, and these notes."""

    def __init__(self, path):
        self.notes, rest = {}, path.read_bytes().replace(b"\n", b"\r\n")
        while (name := rest.split(b":", 1)[0].lower()) in DELIVERED:
            line, rest = rest.split(b"\r\n", 1)
            self.notes[name.decode()] = line.split(b":", 1)[1].strip().decode()
        self.message = rest


def environment():
    """Without settings of a Postfix elsewhere; its programs are where only root looks."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAIL_")}
    return kept | {"PATH": f"{kept.get('PATH', '')}:/usr/sbin:/sbin"}


def alive(process):
    """A zombie is not: who becomes its parent may take a while to look after it."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
