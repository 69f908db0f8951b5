//! Strategic merge patches: objects are merged, and lists of named things by their names.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::effort::Effort;
use super::{PatchError, as_object, malformed};

/// The key that tells what to do with an object of a list.
const DIRECTIVE: &str = "$patch";
/// The key that names the fields of an object which stay; all others go.
const RETAIN: &str = "$retainKeys";
/// What a key begins with that gives the order of the list it goes on with.
const ORDER: &str = "$setElementOrder/";

/// What names the entries of a pod's list, where Kubernetes merges it (`patchMergeKey` of its Go types). All other
/// lists are replaced.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "resourceClaims"
        | "schedulingGates" => Some("name"),
        "ports" => Some("containerPort"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "hostAliases" => Some("ip"),
        "topologySpreadConstraints" => Some("topologyKey"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

/// Merges `patch` into the field `name` of `object`.
fn merge_field(object: &mut Value, name: &str, patch: &Value, effort: &mut Effort) -> Result<(), PatchError> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else {
        return Ok(());
    };
    if patch.is_null() {
        // Not by closing up: the order of fields means nothing, and a patch may remove a hundred thousand of them.
        fields.swap_remove(name);
        return Ok(());
    }
    let field = fields.entry(name).or_insert(Value::Null);
    match (patch, merge_key(name)) {
        (Value::Object(patch), _) => merge_object(field, patch, effort),
        (Value::Array(patch), Some(key)) => merge_list(field, name, key, patch, effort),
        _ => {
            *field = patch.clone();
            Ok(())
        }
    }
}

/// Merges `patch` into `object`, which becomes an object where it is none.
pub(super) fn merge_object(
    object: &mut Value,
    patch: &Map<String, Value>,
    effort: &mut Effort,
) -> Result<(), PatchError> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => *object = Value::Null,
        Some("delete") => {
            *object = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => return Err(malformed(format!("there is no {DIRECTIVE}: {other:?}"))),
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (name, value) in patch {
        if name == DIRECTIVE || name == RETAIN || name.starts_with(ORDER) {
            continue;
        }
        if name.starts_with('$') {
            return Err(malformed(format!("{name:?} has no meaning here")));
        }
        merge_field(object, name, value, effort)?;
    }
    if let (Some(retained), Some(fields)) = (patch.get(RETAIN), object.as_object_mut()) {
        let Some(retained) = retained.as_array() else {
            return Err(malformed(format!("{RETAIN} is not a list")));
        };
        effort.spend(retained.len() + fields.len())?;
        let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
        fields.retain(|name, _| retained.contains(name.as_str()));
    }
    for (name, order) in patch {
        if let Some(list) = name.strip_prefix(ORDER) {
            set_order(object, list, order, effort)?;
        }
    }
    Ok(())
}

/// Puts the entries of a list that `order` names into its order; the others keep their places.
fn set_order(object: &mut Value, list: &str, order: &Value, effort: &mut Effort) -> Result<(), PatchError> {
    let Some(order) = order.as_array() else {
        return Err(malformed(format!("{ORDER}{list} is not a list")));
    };
    let (Some(key), Some(entries)) = (
        merge_key(list),
        object.get_mut(list).and_then(Value::as_array_mut),
    ) else {
        return Ok(());
    };
    let ranks = Positions::of(order, key, effort)?;
    let mut ordered = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        if let Some(rank) = ranks.find(entry, key, effort)? {
            ordered.push((rank, place));
        }
    }
    let places: Vec<usize> = ordered.iter().map(|(_, place)| *place).collect();
    ordered.sort_unstable();
    let ordered: Vec<Value> = ordered.iter().map(|(_, place)| entries[*place].take()).collect();
    for (place, entry) in places.into_iter().zip(ordered) {
        entries[place] = entry;
    }
    Ok(())
}

fn merge_list(
    list: &mut Value,
    name: &str,
    key: &str,
    patch: &[Value],
    effort: &mut Effort,
) -> Result<(), PatchError> {
    let mut merged = match list.take() {
        Value::Array(entries) => entries,
        _ => Vec::new(),
    };
    let says = |entry: &Value, directive: &str| {
        entry
            .get(DIRECTIVE)
            .is_some_and(|said| said.as_str() == Some(directive))
    };
    if patch
        .iter()
        .any(|entry| says(entry, "replace") && entry.get(key).is_none())
    {
        merged.clear();
    }
    let mut positions = Positions::of(&merged, key, effort)?;
    let mut deleted = HashSet::new();
    for entry in patch {
        let fields = as_object(&format!("an entry of {name}"), entry)?;
        if !fields.contains_key(key) {
            if says(entry, "replace") {
                continue;
            }
            return Err(malformed(format!("an entry of {name} has no {key}")));
        }
        let position = positions.find(entry, key, effort)?;
        if says(entry, "delete") {
            deleted.extend(position);
            positions.forget(entry, key);
            continue;
        }
        let position = position.unwrap_or(merged.len());
        if position == merged.len() {
            merged.push(Value::Null);
            positions.note(entry, key, position);
        }
        merge_object(&mut merged[position], fields, effort)?;
    }
    let mut position = 0;
    merged.retain(|_| {
        position += 1;
        !deleted.contains(&(position - 1))
    });
    *list = Value::Array(merged);
    Ok(())
}

/// Where in a list the first entry of each name stands, so that a list of many is gone through once and not for each
/// of them.
struct Positions(HashMap<String, usize>);

impl Positions {
    /// The positions of the entries of `list`, each by what its field `key` says.
    fn of(list: &[Value], key: &str, effort: &mut Effort) -> Result<Positions, PatchError> {
        effort.spend(list.len())?;
        let mut positions = Positions(HashMap::new());
        for (position, entry) in list.iter().enumerate() {
            if let Some(named) = entry.get(key).map(Value::to_string) {
                effort.spend(named.len())?;
                positions.0.entry(named).or_insert(position);
            }
        }
        Ok(positions)
    }

    /// Where the entry stands that is named like `entry`.
    fn find(&self, entry: &Value, key: &str, effort: &mut Effort) -> Result<Option<usize>, PatchError> {
        let Some(named) = entry.get(key).map(Value::to_string) else {
            return Ok(None);
        };
        effort.spend(named.len())?;
        Ok(self.0.get(&named).copied())
    }

    /// Takes note of an entry that was added.
    fn note(&mut self, entry: &Value, key: &str, position: usize) {
        if let Some(named) = entry.get(key) {
            self.0.insert(named.to_string(), position);
        }
    }

    /// Takes note that an entry is to go.
    fn forget(&mut self, entry: &Value, key: &str) {
        if let Some(named) = entry.get(key) {
            self.0.remove(&named.to_string());
        }
    }
}
