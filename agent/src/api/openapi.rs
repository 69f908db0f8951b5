//! The OpenAPI v3 documents: what `kubectl explain` reads, and where `kubectl apply` looks whether the server
//! validates fields itself. Made from the types and the table of [`discovery`](super::discovery) when asked for: a
//! client keeps them under their hash, so that they are asked for once.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Path;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Status};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::discovery::{self, Resource, resources_of};
use super::status::Failure;

/// Where the schemas stand in a document, and what references begin with.
const SCHEMAS: &str = "/components/schemas";

/// `/openapi/v3`: the documents, each under a hash of what it says.
pub(crate) async fn documents() -> Json<Value> {
    let mut groups = vec![("", "v1")];
    groups.extend(discovery::named_groups());
    let paths: Map<String, Value> = groups
        .into_iter()
        .map(|(group, version)| {
            let path = path_of(group, version);
            let hash = Sha256::digest(document_of(group, version).to_string());
            let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02X}")).collect();
            let url = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")});
            (path, url)
        })
        .collect();
    Json(json!({ "paths": paths }))
}

/// `/openapi/v3/api/v1`.
pub(crate) async fn core_document() -> Json<Value> {
    Json(document_of("", "v1"))
}

/// `/openapi/v3/apis/GROUP/VERSION`.
pub(crate) async fn group_document(
    Path((group, version)): Path<(String, String)>,
) -> Result<Json<Value>, Failure> {
    if resources_of(&group, &version).is_empty() {
        return Err(Failure::no_such_path(&format!(
            "/openapi/v3/apis/{group}/{version}"
        )));
    }
    Ok(Json(document_of(&group, &version)))
}

/// `api/v1` or `apis/GROUP/VERSION`.
fn path_of(group: &str, version: &str) -> String {
    let group_version = discovery::group_version(group, version);
    if group.is_empty() {
        format!("api/{group_version}")
    } else {
        format!("apis/{group_version}")
    }
}

fn document_of(group: &str, version: &str) -> Value {
    let schemas = schemas_of(group);
    let mut paths = Map::new();
    for resource in resources_of(group, version) {
        // The schema of a kind of ours is not published: the form of an answer is not what clients need to know.
        let schema = schemas
            .keys()
            .find(|name| name.ends_with(&format!(".{}", resource.kind)));
        for (path, operations) in paths_of(resource, schema.map(String::as_str)) {
            paths.insert(path, operations);
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "debuglet", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// The schemas of a group's objects, and of all that they are made of, by name.
fn schemas_of(group: &str) -> BTreeMap<String, Value> {
    let mut settings = SchemaSettings::openapi3();
    settings.definitions_path = SCHEMAS.into();
    settings.transforms.clear();
    let mut generator = settings.into_generator();
    if group.is_empty() {
        kind::<Pod>(&mut generator);
        kind::<Event>(&mut generator);
        kind::<Namespace>(&mut generator);
        kind::<Node>(&mut generator);
    }
    kind::<DeleteOptions>(&mut generator);
    kind::<Status>(&mut generator);
    let schemas = generator.take_definitions(true);
    schemas
        .into_iter()
        .map(|(name, mut schema)| {
            to_openapi(&mut schema);
            let own_kind = name.strip_prefix("io.k8s.api.core.v1.");
            if let Some(kind) = own_kind.filter(|kind| is_served(kind)) {
                schema["x-kubernetes-group-version-kind"] =
                    json!([{"group": "", "version": "v1", "kind": kind}]);
            }
            (name, schema)
        })
        .collect()
}

fn kind<T: JsonSchema>(generator: &mut SchemaGenerator) {
    let _ = generator.subschema_for::<T>();
}

fn is_served(kind: &str) -> bool {
    resources_of("", "v1")
        .iter()
        .any(|resource| kind == resource.kind)
}

/// What OpenAPI 3.0 writes otherwise than JSON Schema: a reference stands alone, and what is either a number or a
/// string says so.
fn to_openapi(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(to_openapi);
            if fields.len() > 1
                && let Some(reference) = fields.remove("$ref")
            {
                fields.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            }
            if fields.remove("x-kubernetes-int-or-string").is_some() {
                fields.insert("format".to_owned(), json!("int-or-string"));
                fields.insert(
                    "oneOf".to_owned(),
                    json!([{"type": "integer"}, {"type": "string"}]),
                );
            }
        }
        Value::Array(items) => items.iter_mut().for_each(to_openapi),
        _ => {}
    }
}

/// The paths of a resource, each with what can be done there.
fn paths_of(resource: &Resource, schema: Option<&str>) -> Vec<(String, Value)> {
    let base = format!("/{}", path_of(resource.group, resource.version));
    let collection = if resource.namespaced {
        format!("{base}/namespaces/{{namespace}}")
    } else {
        base
    };
    let (parent, subresource) = match resource.name.split_once('/') {
        Some((parent, subresource)) => (parent, format!("/{subresource}")),
        None => (resource.name, String::new()),
    };
    let object = format!("{collection}/{parent}/{{name}}{subresource}");
    let collection = subresource.is_empty().then(|| format!("{collection}/{parent}"));
    let object_of_a_subresource = collection.is_none();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for verb in resource.verbs {
        let (method, at_collection) = match *verb {
            "create" => ("post", !object_of_a_subresource),
            "delete" => ("delete", false),
            "get" => ("get", false),
            "list" => ("get", true),
            "patch" => ("patch", false),
            "update" => ("put", false),
            // A parameter of get and list.
            _ => continue,
        };
        let path = match &collection {
            Some(collection) if at_collection => collection.clone(),
            _ => object.clone(),
        };
        let operations = paths.entry(path).or_default();
        operations.insert(method.to_owned(), operation(resource, verb, schema));
    }
    let with_names = |(path, mut operations): (String, Map<String, Value>)| {
        let named = ["namespace", "name"]
            .into_iter()
            .filter(|name| path.contains(&format!("{{{name}}}")));
        let parameters: Vec<Value> = named.map(|name| parameter(name, "path", "string")).collect();
        operations.insert("parameters".to_owned(), json!(parameters));
        (path, Value::Object(operations))
    };
    paths.into_iter().map(with_names).collect()
}

fn operation(resource: &Resource, verb: &str, schema: Option<&str>) -> Value {
    let writes = matches!(verb, "create" | "patch" | "update");
    let mut parameters = Vec::new();
    if writes || verb == "delete" {
        parameters.push(parameter("dryRun", "query", "string"));
    }
    if writes {
        parameters.push(parameter("fieldManager", "query", "string"));
        parameters.push(parameter("fieldValidation", "query", "string"));
    }
    let content = match schema {
        Some(schema) if verb != "list" => json!({"schema": {"$ref": format!("#{SCHEMAS}/{schema}")}}),
        _ => json!({}),
    };
    let mut operation = json!({
        "operationId": format!("{verb} {}", resource.name),
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {"application/json": content}}},
        "x-kubernetes-action": verb,
        "x-kubernetes-group-version-kind": {
            "group": resource.group,
            "version": resource.version,
            "kind": resource.kind,
        },
    });
    // Not said of patches: where a client reads that strategic merge patches are taken, it looks for the merge keys of
    // lists in the schemas too, which these do not have, instead of in its own.
    if matches!(verb, "create" | "update") {
        operation["requestBody"] = json!({"required": true, "content": {"application/json": content}});
    }
    operation
}

fn parameter(name: &str, place: &str, of_type: &str) -> Value {
    let mut parameter = json!({"name": name, "in": place, "schema": {"type": of_type, "uniqueItems": true}});
    if place == "path" {
        parameter["required"] = json!(true);
    }
    parameter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference in a document.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        let document = document_of("", "v1");
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100, "{}", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn the_way_of_explain_from_pods_to_ephemeral_containers_is_there() {
        let document = document_of("", "v1");
        let get = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["get"];
        assert_eq!(get["x-kubernetes-group-version-kind"]["kind"], "Pod");
        let schemas = &document["components"]["schemas"];
        let pod = &schemas["io.k8s.api.core.v1.Pod"];
        assert_eq!(pod["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
        let spec = &pod["properties"]["spec"]["allOf"][0]["$ref"];
        assert_eq!(*spec, "#/components/schemas/io.k8s.api.core.v1.PodSpec");
        let list = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["ephemeralContainers"];
        assert_eq!(
            list["items"]["$ref"],
            "#/components/schemas/io.k8s.api.core.v1.EphemeralContainer"
        );
    }

    #[test]
    fn writes_of_pods_say_that_fields_are_validated_here() {
        let document = document_of("", "v1");
        let pods = "/api/v1/namespaces/{namespace}/pods";
        for (path, method) in [(pods.to_owned(), "post"), (format!("{pods}/{{name}}"), "patch")] {
            let operation = &document["paths"][&path][method];
            let parameters = operation["parameters"].as_array().expect("parameters");
            assert!(
                parameters
                    .iter()
                    .any(|parameter| parameter["name"] == "fieldValidation"),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn a_document_says_the_same_each_time() {
        assert_eq!(
            document_of("", "v1").to_string(),
            document_of("", "v1").to_string()
        );
    }
}
