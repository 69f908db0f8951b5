//! One file of the manifests folder: YAML or JSON, several documents, each a `Pod` or a list of them.

use std::io::Read;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::document_lines::Lines;
use crate::pod::{creation, decode};
use crate::untrusted_file::regular_file;

/// The largest manifest that is read, in bytes: as much as an API server takes in one request.
pub(crate) const MAX_SIZE: u64 = 3 * 1024 * 1024;

pub(crate) use crate::store::manifests::{ManifestFile, ManifestPod};

/// Reads a file and what is in it.
pub(crate) fn read(path: &Path) -> ManifestFile {
    parse(&text(path)?, is_json(path))
}

/// Reads the documents of a file, whatever they are.
pub(super) fn documents(path: &Path) -> Result<Vec<Value>, String> {
    parse_documents(&text(path)?, is_json(path))
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

fn text(path: &Path) -> Result<String, String> {
    let cannot_be_read = |error: std::io::Error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    let file = regular_file(path).map_err(cannot_be_read)?;
    let size = file.metadata().map_err(cannot_be_read)?.len();
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot_be_read)?;
    if bytes.len() as u64 > MAX_SIZE {
        let size = size.max(MAX_SIZE + 1) as f64 / (1024.0 * 1024.0);
        return Err(format!(
            "is too large: it has {size:.1} MiB, and a manifest may have 3 MiB at most"
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error
            .as_bytes()
            .iter()
            .take(valid)
            .filter(|byte| **byte == b'\n')
            .count();
        format!("line {line}: is not UTF-8 text")
    })
}

/// Reads the documents of a text.
fn parse(text: &str, is_json: bool) -> ManifestFile {
    let documents = parse_documents(text, is_json)?;
    let mut pods = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        read_document(document)
            .map_err(|problem| problem.in_one_line(text, index))
            .map(|found| pods.extend(found))?;
    }
    Ok(pods)
}

fn parse_documents(text: &str, is_json: bool) -> Result<Vec<Value>, String> {
    if is_json { json(text) } else { yaml(text) }
}

fn json(text: &str) -> Result<Vec<Value>, String> {
    serde_json::Deserializer::from_str(text)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| {
            let message = error.to_string();
            format!("line {}: is not JSON: {}", error.line(), without_place(&message))
        })
}

/// A parser's message without the place that it ends with, since that comes first here.
fn without_place(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default();
    line.rsplit_once(" at line ").map_or(line, |(message, _)| message)
}

fn yaml(text: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let line = error.location().map(|location| location.line());
        if let Some(line) = line.and_then(|line| line_indented_by_a_tab(text, line)) {
            return format!("line {line}: is not YAML: a tab cannot indent; use spaces");
        }
        let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let message = without_place(&message);
        match line {
            Some(line) => format!("line {line}: is not YAML: {message}"),
            None => format!("is not YAML: {message}"),
        }
    })
}

/// The line with a tab in its indentation that a parser stumbled over at `line`: it may notice one line early or late.
fn line_indented_by_a_tab(text: &str, line: u64) -> Option<u64> {
    let is_indented_so = |line: &str| {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        line.get(..indent).is_some_and(|indent| indent.contains('\t'))
    };
    let numbered = (1_u64..).zip(text.lines());
    let mut near = numbered.filter(|(number, _)| number.abs_diff(line) <= 1);
    near.find(|(_, line)| is_indented_so(line))
        .map(|(number, _)| number)
}

/// What is wrong with one field of a document.
struct Problem {
    /// The field's path from the document's root; empty for the document itself.
    field: String,
    message: String,
}

impl Problem {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem {
            field: field.into(),
            message: message.into(),
        }
    }

    /// The problem below another field: an entry of a list.
    fn below(mut self, field: &str) -> Problem {
        self.field = match self.field.as_str() {
            "" => field.to_owned(),
            inner => format!("{field}.{inner}"),
        };
        self
    }

    fn in_one_line(&self, text: &str, document: usize) -> String {
        let line = Lines::of(text).and_then(|lines| lines.of_field(document, &self.field));
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        match self.field.as_str() {
            "" => format!("{place}{}", self.message),
            field => format!("{place}{field}: {}", self.message),
        }
    }
}

fn read_document(document: Value) -> Result<Vec<ManifestPod>, Problem> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => Ok(vec![read_pod(document)?]),
        ("v1", kind @ ("List" | "PodList")) => {
            let items = match document.get("items") {
                None | Some(Value::Null) => return Ok(Vec::new()),
                Some(Value::Array(items)) => items,
                Some(_) => return Err(Problem::new("items", "must be a list")),
            };
            let in_list = |item: &Value| {
                let mut item = item.clone();
                // The entries of a PodList need not say what they are.
                if let (true, Some(object)) = (kind == "PodList", item.as_object_mut()) {
                    object.entry("apiVersion").or_insert_with(|| "v1".into());
                    object.entry("kind").or_insert_with(|| "Pod".into());
                }
                read_document(item)
            };
            let pods = items.iter().enumerate().map(|(index, item)| {
                in_list(item).map_err(|problem| problem.below(&format!("items[{index}]")))
            });
            Ok(pods
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .flatten()
                .collect())
        }
        _ if !document.is_object() => Err(Problem::new(
            "",
            "is not a pod: an object with apiVersion and kind is expected",
        )),
        ("", _) => Err(Problem::new("apiVersion", "must be set; a pod's is v1")),
        (_, "") => Err(Problem::new("kind", "must be set; it can be Pod or List")),
        (version, kind) => {
            let message = format!("{kind} of {version} is not taken here; it can be Pod or List of v1");
            Err(Problem::new("kind", message))
        }
    }
}

fn read_pod(document: Value) -> Result<ManifestPod, Problem> {
    let mut fields = document.clone();
    decode::quantities_as_text(&mut fields);
    let (pod, unknown) =
        decode::decode::<Pod>(fields).map_err(|error| Problem::new(error.field, error.problem))?;
    if let Some(field) = unknown.first() {
        return Err(Problem::new(field, "a pod has no such field"));
    }
    if pod.metadata.uid.is_some() {
        let message = "cannot be set: the UID of a manifest's pod is derived from what the manifest says";
        return Err(Problem::new("metadata.uid", message));
    }
    Ok(ManifestPod {
        pod: creation::as_wished(pod),
        document,
    })
}

#[cfg(test)]
#[path = "manifest_file_tests.rs"]
mod tests;
