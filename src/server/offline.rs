//! `check`: what lies in the files that the configuration names, and what is wrong with it. Nothing is written and
//! nobody asked, so that it may run beside a server and before the first start.

use super::parts;
use crate::acme;
use crate::clock;
use crate::config::{CertificateFiles, Config, Fault, TrackingTls};
use crate::keys::Keys;
use crate::tls::ServerTls;
use std::fmt::Display;
use std::path::Path;

/// What is wrong with certificates and keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// A start would be refused, or something would not be served.
    pub faults: Vec<Fault>,
    pub warnings: Vec<Fault>,
}

/// Reads the certificates and keys that the configuration rests on.
pub fn check_files(config: &Config) -> Findings {
    let mut findings = Findings::default();
    let fault = |key: &str, message: &dyn Display| Fault {
        file: config.file.clone(),
        line: None,
        key: key.to_owned(),
        message: message.to_string(),
    };
    let submission = config.smtp.certificate.as_ref().filter(|_| parts::speaks_tls(config));
    for (section, files) in [("smtp", submission), ("api", config.api.certificate.as_ref())] {
        findings.faults.extend(pair(files).map(|(key, why)| fault(&format!("{section}.{key}"), &why)));
    }
    match Keys::exposed(&config.data_dir) {
        Ok(exposed) => findings.faults.extend(exposed.iter().map(|why| fault("data_dir", why))),
        // Those of the service are not everybody's to look at.
        Err(why) => findings.warnings.push(fault("data_dir", &format_args!("its keys were not looked at: {why}"))),
    }
    if let TrackingTls::Files(folder) = &config.tracking.tls {
        let doubts = doubts(folder, config);
        findings.warnings.extend(doubts.iter().map(|why| fault("tracking.certificates_dir", why)));
    }
    findings
}

/// The key at fault and what is wrong, where a pair of files cannot be used.
fn pair(files: Option<&CertificateFiles>) -> Option<(&'static str, String)> {
    let files = files.filter(|files| files.are_here())?;
    let error = ServerTls::open(files).err()?;
    let key = if error.path == files.key { "key_file" } else { "certificate_file" };
    Some((key, error.to_string()))
}

/// What in a folder of certificates leaves a host without one.
fn doubts(folder: &Path, config: &Config) -> Vec<String> {
    let pairs = match acme::judge_folder(folder) {
        Ok(pairs) => pairs,
        Err(e) => return vec![format!("{}: {e}", folder.display())],
    };
    let (mut doubts, now) = (Vec::new(), clock::unix_ms());
    for (host, pair) in &pairs {
        match pair {
            Err(why) => doubts.push(format!("no certificate for {host}: {why}")),
            Ok(pair) if pair.usable_until() <= now => doubts.push(format!("the certificate of {host} has ended")),
            Ok(pair) if now < pair.not_before => doubts.push(format!("the certificate of {host} is not valid yet")),
            Ok(pair) if pair.is_self_signed => {
                doubts.push(format!("the certificate of {host} is signed by itself: browsers refuse the links to it"));
            }
            Ok(_) => {}
        }
    }
    let target = &config.tracking.cname_target;
    if !pairs.contains_key(target) {
        doubts.push(format!("no pair for {target}, the cname_target: a proxy that asks for it over https is refused"));
    }
    doubts
}
