//! Reviews: who am I (`kubectl auth whoami`), and may I (`kubectl auth can-i`). Whom this node lets in may do
//! everything that is served, so the answer to the second is what discovery lists; for a user of the cluster the API server
//! is asked as well.

mod wire;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule, SelfSubjectAccessReview,
    SelfSubjectRulesReview, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};

use super::Context;
use super::attributes::needed;
use super::discovery::RESOURCES;
use super::identity::Identity;
use super::request::Body;
use super::status::Failure;
use crate::kubernetes::cluster_users::{ClusterUsers, ReviewError, User, Wanted};
use wire::read;

/// What is served beside resources: these paths, and those that begin with one that ends in `*`.
const PATHS: [&str; 10] = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/livez",
    "/metrics",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
];

/// POST of a `SelfSubjectReview`: who asks.
pub(super) async fn subject(
    Extension(identity): Extension<Identity>,
    body: Body,
) -> Result<(StatusCode, Json<SelfSubjectReview>), Failure> {
    let mut review: SelfSubjectReview = body.work(read).await?;
    let user = identity.of_cluster.as_deref();
    review.status = Some(SelfSubjectReviewStatus {
        user_info: Some(UserInfo {
            username: Some(identity.user.into_owned()),
            groups: Some(identity.groups),
            uid: user.map(|user| user.uid.clone()).filter(|uid| !uid.is_empty()),
            extra: user
                .map(|user| user.extra.clone())
                .filter(|extra| !extra.is_empty()),
        }),
    });
    Ok((StatusCode::CREATED, Json(review)))
}

/// POST of a `SelfSubjectAccessReview`: whether one thing may be done.
pub(super) async fn access(
    State(context): State<Arc<Context>>,
    Extension(identity): Extension<Identity>,
    body: Body,
) -> Result<(StatusCode, Json<SelfSubjectAccessReview>), Failure> {
    let mut review: SelfSubjectAccessReview = body.work(read).await?;
    let spec = &review.spec;
    let (mut obstacle, wanted) = match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(wanted), None) => {
            let obstacle = obstacle_to_resource(wanted);
            (obstacle, Wanted::Resource(Box::new(wanted.clone())))
        }
        (None, Some(wanted)) => (obstacle_to_path(wanted), Wanted::Path(wanted.clone())),
        _ => {
            return Err(Failure::bad_request(
                "a review asks about either spec.resourceAttributes or spec.nonResourceAttributes",
            ));
        }
    };
    if let (None, Some(user), Some(users)) = (&obstacle, &identity.of_cluster, &context.cluster_users) {
        obstacle = denied(users, user, wanted).await?;
    }
    review.status = Some(SubjectAccessReviewStatus {
        allowed: obstacle.is_none(),
        reason: obstacle,
        ..SubjectAccessReviewStatus::default()
    });
    Ok((StatusCode::CREATED, Json(review)))
}

/// Why a user of the cluster may not do it, if so.
async fn denied(users: &ClusterUsers, user: &User, wanted: Wanted) -> Result<Option<String>, ReviewError> {
    for wanted in needed(wanted) {
        if !users.may(user, &wanted).await?.allowed {
            let failure = Failure::denied(&user.name, &wanted, "");
            return Ok(failure.status().message.clone());
        }
    }
    Ok(None)
}

/// POST of a `SelfSubjectRulesReview`: everything that may be done, which is the same in every namespace. What a user of
/// the cluster may do is asked of the API server one by one, and it lists that to nobody but the user.
pub(super) async fn rules(
    Extension(identity): Extension<Identity>,
    body: Body,
) -> Result<(StatusCode, Json<SelfSubjectRulesReview>), Failure> {
    let mut review: SelfSubjectRulesReview = body.work(read).await?;
    if identity.of_cluster.is_some() {
        review.status = Some(SubjectRulesReviewStatus {
            incomplete: true,
            evaluation_error: Some(
                "the rights of the cluster's users are not listed here: ask the kube-apiserver, or about one right"
                    .to_owned(),
            ),
            ..SubjectRulesReviewStatus::default()
        });
        return Ok((StatusCode::CREATED, Json(review)));
    }
    let resource_rules = RESOURCES.iter().map(|served| ResourceRule {
        api_groups: Some(vec![served.group.to_owned()]),
        resources: Some(vec![served.name.to_owned()]),
        verbs: served.verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..ResourceRule::default()
    });
    review.status = Some(SubjectRulesReviewStatus {
        resource_rules: resource_rules.collect(),
        non_resource_rules: vec![NonResourceRule {
            non_resource_urls: Some(PATHS.map(str::to_owned).to_vec()),
            verbs: vec!["get".to_owned()],
        }],
        incomplete: false,
        ..SubjectRulesReviewStatus::default()
    });
    Ok((StatusCode::CREATED, Json(review)))
}

/// Why something cannot be done with a resource, if so.
fn obstacle_to_resource(wanted: &ResourceAttributes) -> Option<String> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (group, verb) = (text(&wanted.group), text(&wanted.verb));
    let resource = match text(&wanted.subresource).as_str() {
        "" => text(&wanted.resource),
        subresource => format!("{}/{subresource}", text(&wanted.resource)),
    };
    let found = RESOURCES
        .iter()
        .find(|served| served.group == group && served.name == resource);
    match found {
        None => Some(format!("{resource:?} of API group {group:?} is not served here")),
        Some(found) if found.verbs.contains(&verb.as_str()) => None,
        Some(found) => Some(format!(
            "{verb:?} is not served here for {resource:?}; there are: {}",
            found.verbs.join(", ")
        )),
    }
}

/// Why something cannot be done with a path, if so.
fn obstacle_to_path(wanted: &NonResourceAttributes) -> Option<String> {
    let path = wanted.path.as_deref().unwrap_or_default();
    let verb = wanted.verb.as_deref().unwrap_or_default();
    let is_served = PATHS.iter().any(|served| match served.strip_suffix('*') {
        Some(beginning) => path.starts_with(beginning),
        None => path == *served,
    });
    if !is_served {
        Some(format!("nothing is served at {path:?}"))
    } else if verb != "get" {
        Some(format!("{path:?} can only be read"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_discovery_lists_is_allowed_and_nothing_else() {
        for (group, verb, resource, subresource, allowed) in [
            ("", "get", "pods", "", true),
            ("", "list", "pods", "", true),
            ("", "patch", "pods", "ephemeralcontainers", true),
            ("", "get", "pods", "log", true),
            ("", "create", "pods", "exec", true),
            ("", "create", "secrets", "", false),
            ("", "escalate", "pods", "", false),
            ("apps", "get", "pods", "", false),
            ("*", "*", "*", "", false),
            ("debuglet.io", "get", "node", "", true),
        ] {
            let wanted = ResourceAttributes {
                group: Some(group.to_owned()),
                verb: Some(verb.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: Some(subresource.to_owned()),
                ..ResourceAttributes::default()
            };
            let obstacle = obstacle_to_resource(&wanted);
            assert_eq!(
                obstacle.is_none(),
                allowed,
                "{verb} {resource}/{subresource}: {obstacle:?}"
            );
        }
    }

    #[test]
    fn paths_are_read_and_nothing_else() {
        for (path, verb, allowed) in [
            ("/metrics", "get", true),
            ("/api/v1", "get", true),
            ("/apis/apps", "get", true),
            ("/metrics", "delete", false),
            ("/metrics/cadvisor", "get", false),
            ("/logs", "get", false),
        ] {
            let wanted = NonResourceAttributes {
                path: Some(path.to_owned()),
                verb: Some(verb.to_owned()),
            };
            assert_eq!(obstacle_to_path(&wanted).is_none(), allowed, "{verb} {path}");
        }
    }
}
