//! Reviews as kubectl sends them: in Kubernetes' protobuf form, as far as their questions need it. The field numbers
//! are those of `generated.proto` in k8s.io/apimachinery/pkg/runtime and k8s.io/api/authorization/v1.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
    SelfSubjectRulesReview, SelfSubjectRulesReviewSpec,
};
use prost::Message;
use serde::de::DeserializeOwned;

use super::super::request::Body;
use super::super::status::Failure;

/// The media type of the protobuf form.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What an object in that form begins with.
const MAGIC: &[u8] = b"k8s\0";

/// `runtime.Unknown`: the envelope of every object.
#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeMeta {
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct AccessReview {
    #[prost(message, optional, tag = "2")]
    spec: Option<AccessSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct AccessSpec {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, optional, tag = "2")]
    non_resource: Option<NonResource>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    verb: String,
    #[prost(string, tag = "3")]
    group: String,
    #[prost(string, tag = "4")]
    version: String,
    #[prost(string, tag = "5")]
    resource: String,
    #[prost(string, tag = "6")]
    subresource: String,
    #[prost(string, tag = "7")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct NonResource {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(string, tag = "2")]
    verb: String,
}

#[derive(Clone, PartialEq, Message)]
struct RulesReview {
    #[prost(message, optional, tag = "2")]
    spec: Option<RulesSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct RulesSpec {
    #[prost(string, tag = "1")]
    namespace: String,
}

/// A review that can be read from both forms.
pub(super) trait Review: DeserializeOwned {
    /// Its kind.
    const KIND: &'static str;

    /// The object of an envelope.
    fn from_protobuf(raw: &[u8]) -> Result<Self, prost::DecodeError>;
}

impl Review for SelfSubjectAccessReview {
    const KIND: &'static str = "SelfSubjectAccessReview";

    fn from_protobuf(raw: &[u8]) -> Result<Self, prost::DecodeError> {
        let spec = AccessReview::decode(raw)?.spec.unwrap_or_default();
        let resource_attributes = spec.resource.map(|resource| ResourceAttributes {
            group: Some(resource.group),
            name: Some(resource.name),
            namespace: Some(resource.namespace),
            resource: Some(resource.resource),
            subresource: Some(resource.subresource),
            verb: Some(resource.verb),
            version: Some(resource.version),
            ..ResourceAttributes::default()
        });
        let non_resource_attributes = spec.non_resource.map(|path| NonResourceAttributes {
            path: Some(path.path),
            verb: Some(path.verb),
        });
        Ok(SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes,
                non_resource_attributes,
            },
            ..SelfSubjectAccessReview::default()
        })
    }
}

impl Review for SelfSubjectRulesReview {
    const KIND: &'static str = "SelfSubjectRulesReview";

    fn from_protobuf(raw: &[u8]) -> Result<Self, prost::DecodeError> {
        let spec = RulesReview::decode(raw)?.spec.unwrap_or_default();
        Ok(SelfSubjectRulesReview {
            spec: SelfSubjectRulesReviewSpec {
                namespace: Some(spec.namespace),
            },
            ..SelfSubjectRulesReview::default()
        })
    }
}

impl Review for SelfSubjectReview {
    const KIND: &'static str = "SelfSubjectReview";

    /// It asks nothing but who asks.
    fn from_protobuf(_: &[u8]) -> Result<Self, prost::DecodeError> {
        Ok(SelfSubjectReview::default())
    }
}

/// The review in a request's body.
pub(super) fn read<R: Review>(body: &Body) -> Result<R, Failure> {
    let unreadable = |reason: &dyn std::fmt::Display| {
        Failure::bad_request(format!("the body is not a {}: {reason}", R::KIND))
    };
    match body.media_type.as_str() {
        PROTOBUF => {
            let envelope = body.bytes.strip_prefix(MAGIC);
            let envelope =
                envelope.ok_or_else(|| unreadable(&"it does not begin as Kubernetes' protobuf form does"))?;
            let envelope = Unknown::decode(envelope).map_err(|error| unreadable(&error))?;
            let kind = envelope.type_meta.unwrap_or_default().kind;
            if kind != R::KIND {
                return Err(unreadable(&format!("it is a {kind:?}")));
            }
            R::from_protobuf(&envelope.raw).map_err(|error| unreadable(&error))
        }
        "" | "application/json" => serde_json::from_slice(&body.bytes).map_err(|error| unreadable(&error)),
        other => Err(Failure::unsupported_media_type(format!(
            "{other:?} is not read here; send application/json or {PROTOBUF}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `kubectl auth can-i get pods --subresource=log -n shop` of v1.36 sends.
    const ACCESS: &[u8] = b"k8s\0\n2\n\x17authorization.k8s.io/v1\x12\x17SelfSubjectAccessReview\x12<\n\x10\n\0\
        \x12\0\x1a\0\"\0*\x002\x008\0B\0\x12\x1e\n\x1c\n\x04shop\x12\x03get\x1a\0\"\0*\x04pods2\x03log:\0\x1a\x08\x08\0\
        \x12\0\x1a\0 \0\x1a\0\"\0";
    /// What `kubectl auth can-i get /metrics` sends.
    const PATH: &[u8] = b"k8s\0\n2\n\x17authorization.k8s.io/v1\x12\x17SelfSubjectAccessReview\x12/\n\x10\n\0\
        \x12\0\x1a\0\"\0*\x002\x008\0B\0\x12\x11\x12\x0f\n\x08/metrics\x12\x03get\x1a\x08\x08\0\x12\0\x1a\0 \0\x1a\0\"\0";
    /// What `kubectl auth can-i --list -n shop` sends.
    const RULES: &[u8] =
        b"k8s\0\n1\n\x17authorization.k8s.io/v1\x12\x16SelfSubjectRulesReview\x12 \n\x10\n\0\
        \x12\0\x1a\0\"\0*\x002\x008\0B\0\x12\x06\n\x04shop\x1a\x04\x18\0\"\0\x1a\0\"\0";
    /// What `kubectl auth whoami` sends.
    const SUBJECT: &[u8] =
        b"k8s\0\n-\n\x18authentication.k8s.io/v1\x12\x11SelfSubjectReview\x12\x1a\n\x10\n\0\
        \x12\0\x1a\0\"\0*\x002\x008\0B\0\x12\x06\n\x04\n\0\x12\0\x1a\0\"\0";

    fn body(media_type: &str, bytes: &'static [u8]) -> Body {
        Body::small(media_type, bytes)
    }

    #[test]
    fn what_kubectl_sends_is_read() {
        let access: SelfSubjectAccessReview = read(&body(PROTOBUF, ACCESS)).expect("a review");
        let json = br#"{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":
            {"resourceAttributes":{"namespace":"shop","verb":"get","resource":"pods","subresource":"log",
            "group":"","version":"","name":""}}}"#;
        assert_eq!(
            access,
            read(&body("application/json", json)).expect("JSON"),
            "both forms say the same"
        );
        let path: SelfSubjectAccessReview = read(&body(PROTOBUF, PATH)).expect("a review");
        let attributes = path.spec.non_resource_attributes.expect("a path");
        assert_eq!(
            (attributes.path.as_deref(), attributes.verb.as_deref()),
            (Some("/metrics"), Some("get"))
        );
        assert_eq!(path.spec.resource_attributes, None);
        let rules: SelfSubjectRulesReview = read(&body(PROTOBUF, RULES)).expect("a review");
        assert_eq!(rules.spec.namespace.as_deref(), Some("shop"));
        let _: SelfSubjectReview = read(&body(PROTOBUF, SUBJECT)).expect("a review");
    }

    #[test]
    fn what_is_no_review_is_refused() {
        for (media_type, bytes) in [
            (PROTOBUF, &ACCESS[..20]),
            (PROTOBUF, b"{}"),
            (PROTOBUF, b""),
            // Another kind's.
            (PROTOBUF, RULES),
            ("application/json", b"[]"),
            ("application/json", br#"{"kind":"Pod","apiVersion":"v1"}"#),
            ("text/plain", b"{}"),
        ] {
            let read = read::<SelfSubjectAccessReview>(&body(media_type, bytes));
            assert!(read.is_err(), "{media_type} {bytes:?}");
        }
    }
}
