//! `ConfigMaps` and `Secrets`, read one by one by their names: the rights of a node's credential reach no further (Node
//! authorizer). What is read is held by who asked for it, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Resource;
use kube::api::GetParams;
use kube::core::request::Request;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::api_server::ApiServer;
use crate::pod::objects::{Data, ObjectKind, ObjectReference};

/// How long the API server may take for one object.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the rights that are missing by default are written down.
const ROLE_FILE: &str = "systemd/role-secrets.yaml";

/// Why an object was not read. No variant carries what is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The credential's rights do not reach.
    #[error(
        "{kind} {namespace}/{name} cannot be read: debuglet's credential for the kube-apiserver lacks the right to get \
         {} in namespace {namespace:?} ({ROLE_FILE} gives it)",
        kind.resource()
    )]
    Forbidden {
        /// What it is.
        kind: ObjectKind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// No answer that could be used.
    #[error("{kind} {namespace}/{name} cannot be read: {reason}")]
    NoAnswer {
        /// What it is.
        kind: ObjectKind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
}

impl ApiServer {
    /// What these objects of a namespace hold; `None` for those that there are not.
    pub(crate) async fn objects(
        &self,
        namespace: &str,
        wanted: BTreeSet<ObjectReference>,
    ) -> Result<BTreeMap<ObjectReference, Option<Data>>, ReadError> {
        let mut read = BTreeMap::new();
        for reference in wanted {
            let name = &reference.name;
            let data = match reference.kind {
                ObjectKind::ConfigMap => {
                    let object = self.object(ObjectKind::ConfigMap, namespace, name).await?;
                    object.map(|object: ConfigMap| object.data.unwrap_or_default())
                }
                ObjectKind::Secret => self.secret(namespace, name).await?.map(secret_data),
            };
            read.insert(reference, data);
        }
        Ok(read)
    }

    /// A Secret; `None` where there is none of this name.
    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ReadError> {
        self.object(ObjectKind::Secret, namespace, name).await
    }

    /// GET of one object. Its text is read here, because the client library logs what it cannot read.
    async fn object<K>(&self, kind: ObjectKind, namespace: &str, name: &str) -> Result<Option<K>, ReadError>
    where
        K: DeserializeOwned + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let (in_namespace, of_name) = (namespace.to_owned(), name.to_owned());
        let no_answer = |reason: &dyn fmt::Display| ReadError::NoAnswer {
            kind,
            namespace: in_namespace.clone(),
            name: of_name.clone(),
            reason: reason.to_string(),
        };
        let request = Request::new(K::url_path(&(), Some(namespace)))
            .get(name, &GetParams::default())
            .map_err(|error| no_answer(&error))?;
        let answer = async {
            let client = self.client().await.map_err(|error| no_answer(&error))?;
            match self.heard(client.request_text(request).await) {
                Ok(text) => Ok(Some(text)),
                Err((kube::Error::Api(status), _)) if status.code == 404 => Ok(None),
                Err((kube::Error::Api(status), _)) if status.code == 403 => Err(ReadError::Forbidden {
                    kind,
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                }),
                Err((_, reason)) => Err(no_answer(&reason)),
            }
        };
        let text = timeout(READ_TIMEOUT, answer)
            .await
            .map_err(|_| no_answer(&"the kube-apiserver does not answer"))??;
        text.map(|text| serde_json::from_str(&text).map_err(|_| no_answer(&"the answer is no such object")))
            .transpose()
    }
}

fn secret_data(secret: Secret) -> Data {
    let data = secret.data.unwrap_or_default().into_iter();
    data.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
        .collect()
}
