//! `pods/portforward`, in the three forms that clients speak:
//!
//! - SPDY, which the runtime speaks itself: passed through.
//! - The same SPDY in the messages of a WebSocket: unpacked and passed through ([`tunnel`]).
//! - A WebSocket with two channels per port, for the ports of the query ([`channels`]).
//!
//! A port that nobody listens on is told on the error stream of its connection; the others go on.

mod channels;
mod tunnel;

use std::sync::Arc;

use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderValue, Uri};
use axum::response::Response;

use super::Context;
use super::channels::Framing;
use super::identity::Identity;
use super::pods::find;
use super::reached::Reached;
use super::status::Failure;
use super::stream_end::StreamEnd;
use super::streams::{Refusal, opened};
use super::upgrade::{Upgrade, WebSocketClient};
use crate::pod::streaming::{PORT_FORWARD, PORT_FORWARD_TUNNEL, V4_BASE64_CHANNEL, V4_CHANNEL};
use crate::runtime::port_forward::PortForward;
use crate::runtime::streaming_server::StreamError;

/// How many ports one client may name in the query. Each is a connection of its own.
const MAX_PORTS: usize = 64;

/// What a WebSocket carries.
#[derive(Clone, Copy)]
enum Form {
    Tunnel,
    Channels(Framing),
}

/// The subprotocols, the best first. No name counts as binary channels.
const FORMS: [(&str, Form); 4] = [
    (PORT_FORWARD_TUNNEL, Form::Tunnel),
    (V4_CHANNEL, Form::Channels(Framing::Binary)),
    (V4_BASE64_CHANNEL, Form::Channels(Framing::Base64)),
    ("", Form::Channels(Framing::Binary)),
];

/// Forwards ports of a pod to the client.
pub(crate) async fn forward(
    State(context): State<Arc<Context>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    Extension(end): Extension<StreamEnd>,
    uri: Uri,
    client: Upgrade,
) -> Result<Response, Failure> {
    let pod = find(&context.store, identity.audience(), &namespace, &name)?;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let external = context.store.sandbox_of_external(uid);
    let ports = ports(&uri)?;
    let opening = async {
        let external = external.as_deref();
        match client {
            Upgrade::Spdy(client) => {
                let url = context.runtime.port_forward_url(uid, external, &ports).await?;
                Ok(client.pass_through(&url, end).await?)
            }
            Upgrade::WebSocket(client) => serve_web_socket(client, &context, uid, external, ports, end).await,
        }
    };
    let response = opened(opening).await.map_err(|refusal| match refusal {
        Refusal::Session(StreamError::NoSandbox) => {
            Failure::conflict("pods", &name, format!("{namespace}/{name} does not run"))
        }
        refusal => refusal.into(),
    })?;
    Ok(Reached::new(identity.audience(), &pod, None).on(response))
}

async fn serve_web_socket(
    client: WebSocketClient,
    context: &Context,
    uid: &str,
    external: Option<&str>,
    ports: Vec<u16>,
    end: StreamEnd,
) -> Result<Response, Refusal> {
    let names = FORMS.map(|(name, _)| name);
    let (place, upgrade) = client
        .choose(&names)
        .ok_or_else(|| Refusal::subprotocol(&names))?;
    let (_, form) = FORMS[place];
    if matches!(form, Form::Channels(_)) && ports.is_empty() {
        return Err(Refusal::Ports("at least one must be named".to_owned()));
    }
    let url = context.runtime.port_forward_url(uid, external, &ports).await?;
    Ok(match form {
        Form::Tunnel => {
            let (_, runtime) = url.open([HeaderValue::from_static(PORT_FORWARD)]).await?;
            upgrade.on_upgrade(move |socket| tunnel::relay(socket, runtime, end))
        }
        Form::Channels(framing) => {
            let forward = PortForward::open(&url, &ports).await?;
            upgrade.on_upgrade(move |socket| channels::relay(socket, forward, ports, framing, end))
        }
    })
}

/// The ports that the query names: `ports=80&ports=443`, or `ports=80,443`.
fn ports(uri: &Uri) -> Result<Vec<u16>, Refusal> {
    let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let Query(pairs) = query.map_err(|error| Refusal::Query(error.body_text()))?;
    let named = pairs.iter().filter(|(name, _)| name == "ports");
    let mut ports = Vec::new();
    for text in named.flat_map(|(_, value)| value.split(',')) {
        match text.parse() {
            Ok(port) if port > 0 => ports.push(port),
            _ => return Err(Refusal::Ports(format!("{text:?} is not a port"))),
        }
    }
    if ports.len() > MAX_PORTS {
        return Err(Refusal::Ports(format!("at most {MAX_PORTS} may be named")));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_named_one_by_one_or_in_a_list() {
        let read = |query: &str| ports(&format!("/portforward{query}").parse().unwrap());
        assert_eq!(read("?ports=80&ports=443,8080").unwrap(), [80, 443, 8080]);
        assert!(read("").unwrap().is_empty());
        for wrong in ["?ports=0", "?ports=", "?ports=http", "?ports=80,", "?ports=65536"] {
            assert!(matches!(read(wrong), Err(Refusal::Ports(_))), "{wrong}");
        }
        let many = format!("?ports={}", vec!["80"; MAX_PORTS + 1].join(","));
        assert!(matches!(read(&many), Err(Refusal::Ports(_))));
    }
}
