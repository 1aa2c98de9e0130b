//! Questions to DNS, and what their answers say of a tracking host or a DKIM key. An answer that says nothing (SERVFAIL, a time-out, a
//! lame server) is never taken for an absence.

use crate::domain::{CaaProperty, CaaSet, CnameFound, NotKnown, TxtFinding, TxtFound};
use crate::mail::DomainName;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Links of a CNAME chain that are followed.
const MAX_CHAIN: usize = 12;
/// For one server to answer one question.
const TIMEOUT: Duration = Duration::from_secs(3);
/// What DNS says is kept for as long as it says itself, but no longer than this.
const MAX_TTL: Duration = Duration::from_secs(3_600);

/// A resolver that keeps what it is told for its time to live. Absences are asked about anew each time: they are what
/// is being mended.
pub struct Dns {
    resolver: TokioResolver,
}

impl Dns {
    /// Asks `servers`, or those of the system where there are none.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|e| format!("the system's name servers cannot be read: {e}"))?
        } else {
            let servers = servers.iter().copied().map(name_server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = TIMEOUT;
        options.attempts = 2;
        options.use_hosts_file = ResolveHosts::Never;
        options.positive_max_ttl = Some(MAX_TTL);
        options.negative_max_ttl = Some(Duration::ZERO);
        options.preserve_intermediates = true;
        Ok(Self { resolver: builder.build().map_err(|e| e.to_string())? })
    }

    /// Forgets what was kept, so that the next questions go out.
    pub fn forget(&self) {
        self.resolver.clear_cache();
    }

    /// What stands at `host`, which should lead to `target`. `domain` is what a provider's form may have added.
    pub async fn tracking(
        &self,
        host: &DomainName,
        domain: &DomainName,
        target: &DomainName,
    ) -> Result<CnameFound, NotKnown> {
        let mut at = host.as_str().to_owned();
        for _ in 0..MAX_CHAIN {
            let Some(next) = self.cname(&at).await? else {
                return if at == host.as_str() {
                    self.no_cname(host, domain, target).await
                } else {
                    Ok(CnameFound::Elsewhere(at))
                };
            };
            if next == target.as_str() {
                return Ok(CnameFound::Target);
            }
            at = next;
        }
        Ok(CnameFound::Endless)
    }

    async fn no_cname(
        &self,
        host: &DomainName,
        domain: &DomainName,
        target: &DomainName,
    ) -> Result<CnameFound, NotKnown> {
        let addresses = self.addresses(host.as_str()).await?;
        if !addresses.is_empty() {
            return Ok(CnameFound::Addresses(addresses));
        }
        // A help and no more: nothing depends on the answer.
        if let Ok(doubled) = domain.with_labels(host.as_str())
            && self.cname(doubled.as_str()).await.is_ok_and(|found| found.as_deref() == Some(target.as_str()))
        {
            return Ok(CnameFound::Doubled(doubled));
        }
        Ok(CnameFound::Nothing)
    }

    /// The CAA set that governs a host (RFC 8659 §3): the first one on the way up, each name asked with its CNAMEs
    /// followed.
    pub async fn caa(&self, host: &DomainName) -> Result<Option<CaaSet>, NotKnown> {
        let mut name = host.as_str();
        loop {
            let parent = name.split_once('.').map(|(_, parent)| parent);
            match self.records(name, RecordType::CAA).await {
                Ok(records) => {
                    if let Some(mut set) = caa_set(&records) {
                        set.at_target = name == host.as_str() && set.name != name;
                        return Ok(Some(set));
                    }
                }
                // Name servers that know their own zones alone refuse to speak of the top; a set there is rarer still.
                Err(why) if parent.is_none() => tracing::debug!(name, "CAA at the top is {why}"),
                Err(why) => return Err(why),
            }
            match parent {
                Some(parent) => name = parent,
                None => return Ok(None),
            }
        }
    }

    /// The TXT records at `name`, where a DKIM key of `domain` should be published; CNAMEs followed. `domain` is what a
    /// provider's form may have added.
    pub async fn key_record(&self, name: &str, domain: &DomainName) -> TxtFinding {
        let found = self.texts(name).await?;
        if !found.is_empty() {
            return Ok(TxtFound::Records(found));
        }
        // A help and no more, as with a CNAME.
        let doubled = format!("{name}.{domain}");
        match self.texts(&doubled).await {
            Ok(found) if !found.is_empty() => Ok(TxtFound::Doubled(doubled)),
            _ => Ok(TxtFound::Nothing),
        }
    }

    /// Each record with its strings joined (RFC 6376 §3.6.2.2).
    async fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, NotKnown> {
        let text = |record: Record| match record.data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        };
        Ok(self.records(name, RecordType::TXT).await?.into_iter().filter_map(text).collect())
    }

    /// All addresses of a name, CNAMEs followed.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, NotKnown> {
        let (v4, v6) = tokio::join!(self.records(name, RecordType::A), self.records(name, RecordType::AAAA));
        let address = |record: Record| match record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        Ok(v4?.into_iter().chain(v6?).filter_map(address).collect())
    }

    async fn cname(&self, name: &str) -> Result<Option<String>, NotKnown> {
        let records = self.records(name, RecordType::CNAME).await?;
        let next = records.into_iter().find_map(|record| match record.data {
            RData::CNAME(next) => Some(plain(&next.0)),
            _ => None,
        });
        Ok(next)
    }

    /// The answer's records; none where the name or the type is not there.
    async fn records(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, NotKnown> {
        let name =
            Name::from_ascii(format!("{name}.")).map_err(|e| NotKnown(format!("{name} cannot be asked for: {e}")))?;
        let asked = format!("{kind} of {}", plain(&name));
        match self.resolver.lookup(name, kind).await {
            Ok(found) => Ok(found.answers().to_vec()),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NXDomain => Ok(Vec::new()),
                // RFC 2308 §2.2: "no data" comes with the zone's SOA; without it, this is a referral or a lame server.
                ResponseCode::NoError if none.soa.is_some() => Ok(Vec::new()),
                _ => Err(NotKnown(format!("the name server has no answer about {asked}"))),
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => {
                Err(NotKnown(format!("the name server answers {code} about {asked}")))
            }
            Err(NetError::Timeout) => Err(NotKnown(format!("no name server answers about {asked} in time"))),
            Err(e) => Err(NotKnown(format!("no answer about {asked}: {e}"))),
        }
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (udp.port, tcp.port) = (address.port(), address.port());
    // An absence that one server reports is believed; the next is asked where one does not answer.
    NameServerConfig::new(address.ip(), true, vec![udp, tcp])
}

fn caa_set(records: &[Record]) -> Option<CaaSet> {
    let mut set: Option<CaaSet> = None;
    for record in records {
        let RData::CAA(caa) = &record.data else { continue };
        let property = CaaProperty { critical: caa.issuer_critical, tag: caa.tag.clone(), value: caa.value.clone() };
        match &mut set {
            Some(set) => set.properties.push(property),
            None => set = Some(CaaSet { name: plain(&record.name), at_target: false, properties: vec![property] }),
        }
    }
    set
}

/// In lower case, without the final dot.
fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}
