//! A real authoritative name server, Knot DNS, on a loopback port of the system's choice, with one zone that a test
//! writes.

use super::{DEADLINE, until};
use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub struct Knot {
    folder: TempDir,
    zone: String,
    serial: u32,
    child: Child,
    pub address: SocketAddr,
}

impl Knot {
    /// Serves `zone`, with nothing in it, and nothing else.
    #[track_caller]
    pub fn start(zone: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("trackpost-knot-").tempdir().unwrap();
        let address = free_port();
        let path = folder.path().display();
        let (ip, port) = (address.ip(), address.port());
        let config = format!(
            "server:\n  rundir: \"{path}\"\n  listen: {ip}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\ncontrol:\n  listen: \"{path}/control\"\ndatabase:\n  storage: \"{path}\"\n\
             template:\n  - id: default\n    storage: \"{path}\"\n    journal-content: none\n    zonefile-load: whole\n    \
             zonefile-sync: -1\nzone:\n  - domain: {zone}\n    file: zone\n"
        );
        fs::write(folder.path().join("knot.conf"), config).unwrap();
        write_zone(folder.path(), 1, &[]);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = knot("knotd");
        command.arg("-c").arg(folder.path().join("knot.conf")).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().expect("knotd (Debian: knot) is there; tests/run installs it");
        let knot = Self { folder, zone: zone.to_owned(), serial: 1, child, address };
        until("knotd to answer", || knot.control(&["zone-status", &knot.zone]).then_some(()));
        knot
    }

    /// Writes the zone anew; `records` are lines as a zone file has them. Returns when it is served.
    #[track_caller]
    pub fn write(&mut self, records: &[&str]) {
        self.serial += 1;
        write_zone(self.folder.path(), self.serial, records);
        let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        assert!(self.control(&["-b", "zone-reload", &self.zone]), "{}", log());
    }

    fn control(&self, arguments: &[&str]) -> bool {
        let mut command = knot("knotc");
        command.arg("-s").arg(self.folder.path().join("control")).arg("-t").arg(DEADLINE.as_secs().to_string());
        command.args(arguments).stdin(Stdio::null()).output().is_ok_and(|ran| ran.status.success())
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_zone(folder: &Path, serial: u32, records: &[&str]) {
    let soa = format!("$TTL 1\n@ SOA ns.invalid. hostmaster.invalid. {serial} 3600 600 86400 1\n@ NS ns.invalid.\n");
    fs::write(folder.join("zone"), soa + &records.join("\n") + "\n").unwrap();
}

/// Where Debian has it: not on everybody's path.
fn knot(program: &str) -> Command {
    let there = ["/usr/sbin", "/usr/bin"].iter().map(|folder| Path::new(folder).join(program)).find(|p| p.exists());
    Command::new(there.unwrap_or_else(|| program.into()))
}

/// One that is free for UDP and TCP at this moment.
fn free_port() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
