//! `leftovers` of the group `debuglet.io`: the sandboxes and containers that debuglet made and this agent has no record of.
//! They are listed among the problems of the node report; here they are ended, one by one, by whoever asks for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Context;
use super::extension::Object;
use super::identity::Identity;
use super::status::Failure;
use crate::pod::leftover::{Leftover, NotNamed, named};
use crate::runtime::error::RuntimeError;
use crate::runtime::own::{own_containers, own_sandboxes};
use crate::store::problems::ProblemKind;

/// The resource's name.
const RESOURCE: &str = "leftovers";

/// What was ended.
#[derive(Serialize)]
struct Ended {
    /// The runtime's id.
    id: String,
    /// `namespace/name` of its pod, as its labels say.
    pod: String,
    /// The container's name; none for a sandbox.
    container: Option<String>,
}

/// Stops and removes what is left over under an id, or under the beginning of one; answers when that is done.
pub(crate) async fn delete(
    State(context): State<Arc<Context>>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    // What it belongs to is not known here, so no right of the cluster says who may see or end it.
    if identity.of_cluster.is_some() {
        return Err(Failure::forbidden(
            "what is left over can be ended only on the node itself: over debuglet's socket, or with root's certificate",
        ));
    }
    let ended = end(&context, &identity, &id).await?;
    Ok(Json(Object::new("Leftover", ended)).into_response())
}

async fn end(context: &Context, identity: &Identity, id: &str) -> Result<Ended, Failure> {
    let leftover = find(context, id).await?;
    let pod = leftover.pod().to_string();
    tracing::info!(user = %identity.user, id = leftover.id(), pod, "stops and removes what is left over");
    let ended = context.runtime.end_leftover(&leftover).await;
    ended.map_err(|error| not_done(&error))?;
    context.store.solved(ProblemKind::Leftover, leftover.id());
    Ok(Ended {
        id: leftover.id().to_owned(),
        pod,
        container: match leftover {
            Leftover::Sandbox { .. } => None,
            Leftover::Container(container) => Some(container.name),
        },
    })
}

/// What has the id, as the runtime and the store know it at this moment.
async fn find(context: &Context, id: &str) -> Result<Leftover, Failure> {
    let sandboxes = context.runtime.list_sandboxes().await;
    let sandboxes = sandboxes.map_err(|error| not_done(&error))?;
    let containers = context.runtime.list_all_containers().await;
    let containers = containers.map_err(|error| not_done(&error))?;
    let leftovers = context
        .store
        .left_over(own_sandboxes(&sandboxes), own_containers(&containers));
    named(&leftovers, id).cloned().map_err(|error| match error {
        NotNamed::None => Failure::not_found(RESOURCE, id, error.to_string()),
        NotNamed::Several => Failure::conflict(RESOURCE, id, error.to_string()),
    })
}

fn not_done(error: &RuntimeError) -> Failure {
    Failure::internal(format!("what is left over was not ended: {error}"))
}
