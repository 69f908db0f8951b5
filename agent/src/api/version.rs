//! What this server is: its version, and that it lives.

use axum::Json;
use serde_json::{Value, json};

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

/// `/livez` and `/readyz`: whoever answers is both. Whether the runtime answers is in the node report.
pub(crate) async fn healthy() -> &'static str {
    "ok"
}
