//! Who looks at the dashboard: signs in with a key, and finds what the reader did on the message's page.

use super::tour::{Failure, within};
use reqwest::redirect::Policy;
use reqwest::{Client, header};
use std::net::SocketAddr;

/// The page of a message, as somebody sees it who has signed in with `key`.
pub async fn page_of(address: SocketAddr, key: &str, message: &str) -> Result<String, Failure> {
    let client = Client::builder().no_proxy().redirect(Policy::none()).build()?;
    let form: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("key", key).finish();
    let signing_in = client
        .post(format!("http://{address}/dashboard/sign-in"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form);
    let answer = within(signing_in.send()).await??;
    let cookie = answer.headers().get(header::SET_COOKIE).ok_or("the dashboard did not take the key")?;
    let cookie = cookie.to_str()?.split(';').next().unwrap_or_default().to_owned();
    let asked = client.get(format!("http://{address}/dashboard/emails/{message}")).header(header::COOKIE, cookie);
    let answer = within(asked.send()).await??.error_for_status()?;
    Ok(within(answer.text()).await??)
}
