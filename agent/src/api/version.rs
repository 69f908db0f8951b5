//! What this server is: its version, and that it lives.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Context;
use crate::pod::node_object::architecture;

/// The Kubernetes release whose API this is a part of.
const KUBERNETES: (&str, &str) = ("1", "36");

/// `/version`: Kubernetes' release, with debuglet's own in the build metadata.
pub(crate) async fn version() -> Json<Value> {
    let (major, minor) = KUBERNETES;
    Json(json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+debuglet.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    }))
}

/// `/livez`: an agent that answers is alive.
pub(crate) async fn alive() -> &'static str {
    "ok"
}

/// `/readyz`: fails while something keeps the agent from its work. It answers as kube-apiserver's does, and like that
/// one without the reasons: users of the cluster may read it. The reasons are in the node report.
pub(crate) async fn ready(State(context): State<Arc<Context>>) -> (StatusCode, String) {
    let unready = context.store.unready();
    if unready.is_empty() {
        return (StatusCode::OK, "ok".to_owned());
    }
    let mut text = "[+]ping ok\n".to_owned();
    for kind in unready {
        text += &format!(
            "[-]{} failed: \"debuglet ps\" on the node says why\n",
            kind.name()
        );
    }
    (StatusCode::INTERNAL_SERVER_ERROR, text + "readyz check failed\n")
}
