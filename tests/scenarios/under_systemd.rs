//! What systemd is told, and the sockets that it passes. systemd itself is not here; its two protocols are.

use crate::common::{Client, Setup, Smarthost, until};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Service {
    child: Child,
    told: UnixDatagram,
}

impl Service {
    /// Starts the program as systemd does, with these sockets from descriptor 3 on.
    fn start(config: &Path, folder: &Path, sockets: &[&TcpListener]) -> Self {
        let path = folder.join("notify");
        let told = UnixDatagram::bind(&path).unwrap();
        told.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The shell is replaced by the program, so its process id is the program's.
        let script =
            format!("LISTEN_PID=$$ exec {} serve --config {}", env!("CARGO_BIN_EXE_trackpost"), config.display());
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env("NOTIFY_SOCKET", &path).env("LISTEN_FDS", sockets.len().to_string());
        command.env("WATCHDOG_USEC", "400000").stdin(Stdio::null()).stderr(Stdio::piped());
        let descriptors: Vec<i32> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
        // SAFETY: between fork and exec only dup2 is called, which is safe there.
        unsafe {
            command.pre_exec(move || {
                // Out of the way first: what is passed may itself be number 3.
                for (place, descriptor) in descriptors.iter().enumerate() {
                    libc::dup2(*descriptor, 200 + place as i32);
                }
                for place in 0..descriptors.len() {
                    libc::dup2(200 + place as i32, 3 + place as i32);
                    libc::close(200 + place as i32);
                }
                Ok(())
            });
        }
        Self { child: command.spawn().unwrap(), told }
    }

    /// Waits to be told this; other words come in between.
    #[track_caller]
    fn wait_for(&self, word: &str) -> String {
        let mut buffer = [0; 4096];
        until(word, || {
            let read = self.told.recv(&mut buffer).expect("something is told in time");
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            text.lines().any(|line| line == word).then_some(text)
        })
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a plain system call on a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(i32::try_from(self.child.id()).unwrap(), signal) }, 0);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn it_is_told_of_every_turn() {
    let smarthost = Smarthost::start();
    let setup = Setup::new(smarthost.address);
    let config = setup.write();
    let mut service = Service::start(&config, config.parent().unwrap(), &[]);
    service.wait_for("READY=1");
    service.wait_for("WATCHDOG=1");
    service.wait_for("WATCHDOG=1");
    service.signal(libc::SIGHUP);
    assert!(service.wait_for("RELOADING=1").contains("MONOTONIC_USEC="));
    service.wait_for("READY=1");
    service.signal(libc::SIGTERM);
    assert!(service.wait_for("STOPPING=1").contains("EXTEND_TIMEOUT_USEC="));
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
}

#[test]
fn its_sockets_take_the_place_of_listeners() {
    let smarthost = Smarthost::start();
    let ((smtp, smtp_address), (web, web_address)) = (listener(), listener());
    let setup = Setup::new(smarthost.address)
        .with("listener.address", &format!("\"{smtp_address}\""))
        .with("tracking.http", &format!("[\"{web_address}\"]"));
    let config = setup.write();
    let service = Service::start(&config, config.parent().unwrap(), &[&web, &smtp]);
    service.wait_for("READY=1");
    // The program has its own descriptors by now; a bind of its own would have failed.
    drop((smtp, web));
    Client::greeted(smtp_address);
    drop(service);
}

#[test]
fn a_socket_that_the_configuration_does_not_know_is_named() {
    let smarthost = Smarthost::start();
    let (other, address) = listener();
    let setup = Setup::new(smarthost.address);
    let config = setup.write();
    let mut service = Service::start(&config, config.parent().unwrap(), &[&other]);
    assert_eq!(service.child.wait().unwrap().code(), Some(1));
    let said = std::io::read_to_string(service.child.stderr.take().unwrap()).unwrap();
    assert!(said.contains(&format!("{address} is no listener of the configuration")), "{said}");
    assert!(fs::metadata(config).is_ok());
}
