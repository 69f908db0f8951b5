//! What every resource has in common: it is read one by one, listed and watched, by the same rules and in the same
//! forms. What is its own stands in its file: [`super::pods`], [`super::events`], [`super::namespaces`],
//! [`super::nodes`].

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use k8s_openapi::ListableResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use super::connection::ReadDuty;
use super::identity::Identity;
use super::list_options::{GetOptions, ListOptions};
use super::page::page;
use super::representation::Representation;
use super::request::Parameters;
use super::selectors::{Field, Selector};
use super::status::Failure;
use super::table::Column;
use super::watch;
use crate::store::Store;
use crate::store::served::Served;

/// How long a user of the cluster may watch without being asked again for a token, in seconds.
const LONGEST_WATCH_OF_CLUSTER: i64 = 1800;

/// A resource of the core group that is served.
pub(crate) trait Resource: Served + ListableResource + Serialize {
    /// What it can be selected by.
    const FIELDS: &'static [Field<Self>];
    /// The columns of its table.
    const COLUMNS: &'static [Column];

    /// The cells of its row, one for each column, ages as of `now`.
    fn cells(&self, now: Timestamp) -> Vec<Value>;

    /// Whether users of the cluster may see it, as far as their rights go.
    fn is_for_cluster_users(&self) -> bool {
        true
    }

    /// The object of this name.
    fn find(store: &Store, namespace: Option<&str>, name: &str) -> Option<Arc<Self>> {
        store.object(namespace, name)
    }
}

/// Which objects of a resource are asked for.
pub(crate) struct Selection<T> {
    namespace: Option<String>,
    selector: Selector<T>,
    /// Whether what is not for users of the cluster is left out.
    of_cluster: bool,
}

impl<T: Resource> Selection<T> {
    /// The objects of `namespace`, or of all, that the options select.
    pub(crate) fn parse(namespace: Option<String>, options: &ListOptions) -> Result<Selection<T>, Failure> {
        let selector = Selector::parse(T::FIELDS, &options.field_selector, &options.label_selector)?;
        Ok(Selection {
            namespace,
            selector,
            of_cluster: false,
        })
    }

    /// The same for a user of the cluster, to whom only what is for such users is shown.
    pub(crate) fn for_whom(self, identity: &Identity) -> Selection<T> {
        Selection {
            of_cluster: identity.of_cluster.is_some(),
            ..self
        }
    }

    /// Whether this object is asked for.
    pub(crate) fn selects(&self, object: &T) -> bool {
        let metadata = object.metadata();
        let namespace = self.namespace.is_none() || self.namespace == metadata.namespace;
        let shown = !self.of_cluster || object.is_for_cluster_users();
        namespace && shown && self.selector.selects(object, metadata.labels.as_ref())
    }

    /// Whether there is a selector at all.
    pub(crate) fn has_selector(&self) -> bool {
        !self.selector.is_empty() || self.of_cluster
    }
}

/// The namespace in the path of a list, where there is one.
#[derive(Deserialize)]
pub(crate) struct ListPlace {
    namespace: Option<String>,
}

/// The namespace, where there is one, and the name in the path of an object.
#[derive(Deserialize)]
pub(crate) struct ObjectPlace {
    namespace: Option<String>,
    name: String,
}

/// GET of many: a list, or a watch.
pub(crate) async fn list<T: Resource>(
    State(context): State<Arc<Context>>,
    Path(ListPlace { namespace }): Path<ListPlace>,
    representation: Representation,
    Parameters(mut options): Parameters<ListOptions>,
    Extension(duty): Extension<ReadDuty>,
    Extension(identity): Extension<Identity>,
) -> Result<Response, Failure> {
    options.check()?;
    let selection = Selection::<T>::parse(namespace, &options)?.for_whom(&identity);
    if identity.of_cluster.is_some() {
        let asked = options.timeout_seconds.filter(|seconds| *seconds > 0);
        options.timeout_seconds = Some(asked.map_or(LONGEST_WATCH_OF_CLUSTER, |asked| {
            asked.min(LONGEST_WATCH_OF_CLUSTER)
        }));
    }
    if options.watch {
        representation.fits_an_object()?;
        let shutdown = context.shutdown.clone();
        return watch::start(
            &context.store,
            selection,
            representation,
            &options,
            duty,
            shutdown,
        );
    }
    representation.fits_a_list()?;
    let page = page(&context.store, &selection, &options)?;
    let objects = page.objects.iter().map(AsRef::as_ref);
    Ok(Json(representation.list(page.metadata, objects, Timestamp::now())).into_response())
}

/// GET of one.
pub(crate) async fn get<T: Resource>(
    State(context): State<Arc<Context>>,
    Path(ObjectPlace { namespace, name }): Path<ObjectPlace>,
    representation: Representation,
    Parameters(options): Parameters<GetOptions>,
) -> Result<Response, Failure> {
    representation.fits_an_object()?;
    if let Some(version) = options.version()? {
        reached(version, context.store.version())?;
    }
    let Some(object) = T::find(&context.store, namespace.as_deref(), &name) else {
        return Err(Failure::no_such(T::URL_PATH_SEGMENT, &name));
    };
    Ok(Json(representation.object(&*object, true, Timestamp::now())).into_response())
}

/// Refuses a version that is yet to come.
pub(crate) fn reached(version: u64, newest: u64) -> Result<(), Failure> {
    if version > newest {
        return Err(Failure::version_too_large(version, newest));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::kubernetes::cluster_users::User;
    use crate::pod::source::Source;

    #[test]
    fn what_the_cluster_does_not_have_is_nothing_for_its_users() {
        let [created, manifest] = [Source::Api, Source::Manifest("a.yaml".into())].map(|source| {
            let mut pod = Pod::default();
            source.annotate(&mut pod.metadata);
            pod
        });
        let user = Identity::of_user(Arc::new(User::default()));
        for (identity, expected) in [(Identity::root(), [true, true]), (user, [true, false])] {
            let selection = Selection::<Pod>::parse(None, &ListOptions::default())
                .unwrap_or_else(|failure| panic!("{failure:?}"))
                .for_whom(&identity);
            assert_eq!([&created, &manifest].map(|pod| selection.selects(pod)), expected);
        }
    }
}
