//! What the reader's mail program and browser do: find the links and the pixel, and ask for them over HTTP.

use super::sink::Received;
use super::tour::{Failure, within};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The addresses of a received copy that lead to the tracking host.
pub struct Page {
    pub links: Vec<String>,
    pub pixel: String,
}

/// An answer of the tracking host.
pub struct Answer {
    pub status: u16,
    pub location: String,
    pub content_type: String,
    /// Bytes of the body.
    pub body: usize,
}

pub struct Browser {
    /// Where the tracking host really is.
    pub address: SocketAddr,
}

impl Page {
    pub fn of(copy: &Received, host: &str) -> Result<Self, Failure> {
        let html = copy.html().ok_or("the copy has no HTML")?;
        let (mut links, mut pixel) = (Vec::new(), None);
        let settings = lol_html::Settings::new()
            .append_element_content_handler(lol_html::element!("a[href]", |a| {
                links.extend(a.get_attribute("href").filter(|href| href.contains(host)));
                Ok(())
            }))
            .append_element_content_handler(lol_html::element!("img[src]", |img| {
                pixel = img.get_attribute("src").filter(|src| src.contains(host)).or(pixel.take());
                Ok(())
            }));
        let mut rewriter = lol_html::HtmlRewriter::new(settings, |_: &[u8]| {});
        rewriter.write(html.as_bytes())?;
        rewriter.end()?;
        let pixel = pixel.ok_or("the copy has no pixel")?;
        if links.len() < 2 { Err("the copy has no tracked links".into()) } else { Ok(Self { links, pixel }) }
    }
}

impl Browser {
    /// Asks for `url`, whose host is looked up nowhere.
    pub async fn get(&self, method: &str, url: &str, agent: &str) -> Result<Answer, Failure> {
        let url = url::Url::parse(url)?;
        let host = url.host_str().ok_or("the link has no host")?;
        let request = format!(
            "{method} {} HTTP/1.1\r\nHost: {host}:{}\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n",
            url.path(),
            self.address.port()
        );
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await??;
        let end = memchr::memmem::find(&answer, b"\r\n\r\n").ok_or("the answer has no end of headers")?;
        let head = String::from_utf8_lossy(&answer[..end]);
        let header = |name: &str| {
            let found = head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            });
            found.unwrap_or_default()
        };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("the answer has no status")?;
        let body = answer.len() - end - 4;
        Ok(Answer { status, location: header("location"), content_type: header("content-type"), body })
    }
}
