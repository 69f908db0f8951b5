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
use crate::pod::visibility::Audience;
use crate::store::Store;
use crate::store::served::Served;

/// A resource of the core group that is served.
pub(crate) trait Resource: Served + ListableResource + Serialize {
    /// What it can be selected by.
    const FIELDS: &'static [Field<Self>];
    /// The columns of its table.
    const COLUMNS: &'static [Column];

    /// The cells of its row, one for each column, ages as of `now`.
    fn cells(&self, now: Timestamp) -> Vec<Value>;

    /// The object of this name, where `audience` sees it.
    fn find(store: &Store, audience: Audience, namespace: Option<&str>, name: &str) -> Option<Arc<Self>> {
        store.object(audience, namespace, name)
    }
}

/// Which objects of a resource are asked for, and by whom.
pub(crate) struct Selection<T> {
    audience: Audience,
    namespace: Option<String>,
    selector: Selector<T>,
}

impl<T: Resource> Selection<T> {
    /// The objects of `namespace`, or of all, that `audience` sees and the options select.
    pub(crate) fn parse(
        audience: Audience,
        namespace: Option<String>,
        options: &ListOptions,
    ) -> Result<Selection<T>, Failure> {
        let selector = Selector::parse(T::FIELDS, &options.field_selector, &options.label_selector)?;
        Ok(Selection {
            audience,
            namespace,
            selector,
        })
    }

    /// Who asks.
    pub(crate) fn audience(&self) -> Audience {
        self.audience
    }

    /// Whether this object, which the audience sees, is asked for.
    pub(crate) fn selects(&self, object: &T) -> bool {
        let metadata = object.metadata();
        let namespace = self.namespace.is_none() || self.namespace == metadata.namespace;
        namespace && self.selector.selects(object, metadata.labels.as_ref())
    }

    /// Whether there is a selector at all.
    pub(crate) fn has_selector(&self) -> bool {
        !self.selector.is_empty()
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
    Parameters(options): Parameters<ListOptions>,
    Extension(duty): Extension<ReadDuty>,
    Extension(identity): Extension<Identity>,
) -> Result<Response, Failure> {
    options.check()?;
    let selection = Selection::<T>::parse(identity.audience(), namespace, &options)?;
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
    Extension(identity): Extension<Identity>,
) -> Result<Response, Failure> {
    representation.fits_an_object()?;
    if let Some(version) = options.version()? {
        reached(version, context.store.version())?;
    }
    let audience = identity.audience();
    let Some(object) = T::find(&context.store, audience, namespace.as_deref(), &name) else {
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
