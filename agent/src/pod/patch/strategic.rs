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
/// What a key begins with that lists what is to be taken out of the list of plain values it goes on with.
const DELETE_VALUES: &str = "$deleteFromPrimitiveList/";

/// How Kubernetes merges a list that it does not replace (`patchStrategy=merge` of its Go types).
#[derive(Clone, Copy)]
enum Merge {
    /// Objects, by what this field says (`patchMergeKey`).
    ByKey(&'static str),
    /// Plain values, each of them once.
    Values,
}

impl Merge {
    /// How the list of this name is merged in a pod; none where it is replaced.
    fn of(list: &str) -> Option<Merge> {
        let key = match list {
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "volumes"
            | "env"
            | "imagePullSecrets"
            | "resourceClaims"
            | "schedulingGates" => "name",
            "ports" => "containerPort",
            "volumeMounts" => "mountPath",
            "volumeDevices" => "devicePath",
            "hostAliases" => "ip",
            "topologySpreadConstraints" => "topologyKey",
            "ownerReferences" => "uid",
            "finalizers" => return Some(Merge::Values),
            _ => return None,
        };
        Some(Merge::ByKey(key))
    }

    /// What tells an entry from the others of its list; none where its key is missing.
    fn identity(self, entry: &Value) -> Option<String> {
        match self {
            Merge::ByKey(key) => entry.get(key).map(Value::to_string),
            Merge::Values => Some(entry.to_string()),
        }
    }
}

/// Merges `patch` into `object`, which becomes an object where it is none.
pub(super) fn merge_object(
    object: &mut Value,
    patch: &Map<String, Value>,
    effort: &mut Effort,
) -> Result<(), PatchError> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(directive) if directive == "replace" => {
            let mut fields = patch.clone();
            fields.swap_remove(DIRECTIVE);
            *object = Value::Object(fields);
            return Ok(());
        }
        Some(directive) if directive == "delete" => {
            *object = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => return Err(malformed(format!("there is no {DIRECTIVE}: {other}"))),
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else {
        return Ok(());
    };
    retain_keys(fields, patch, effort)?;
    let mut ordered = HashSet::new();
    for (name, order) in patch {
        if let Some(list) = name.strip_prefix(ORDER) {
            merge_in_order(fields, list, patch.get(list), order, effort)?;
            ordered.insert(list);
        }
    }
    for (name, value) in patch {
        if name == RETAIN || name.starts_with(ORDER) || ordered.contains(name.as_str()) {
            continue;
        }
        match name.strip_prefix(DELETE_VALUES) {
            Some(list) => delete_values(fields, list, value, effort)?,
            // A directive that nobody knows is a field that nobody knows.
            None => merge_field(fields, name, value, effort)?,
        }
    }
    Ok(())
}

/// Removes the fields that the patch does not retain, where it says which it does. It may set no other.
fn retain_keys(
    fields: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    effort: &mut Effort,
) -> Result<(), PatchError> {
    let Some(retained) = patch.get(RETAIN) else {
        return Ok(());
    };
    let Some(retained) = retained.as_array() else {
        return Err(malformed(format!("{RETAIN} is not a list")));
    };
    effort.spend(retained.len() + fields.len() + patch.len())?;
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let sets_another = |(name, value): (&String, &Value)| {
        let is_field = !value.is_null() && !name.starts_with('$');
        (is_field && !retained.contains(name.as_str())).then(|| name.clone())
    };
    if let Some(name) = patch.iter().find_map(sets_another) {
        return Err(malformed(format!("{name:?} is set and not in {RETAIN}")));
    }
    fields.retain(|name, _| retained.contains(name.as_str()));
    Ok(())
}

/// Merges `patch` into the field `name`.
fn merge_field(
    fields: &mut Map<String, Value>,
    name: &str,
    patch: &Value,
    effort: &mut Effort,
) -> Result<(), PatchError> {
    if patch.is_null() {
        // Not by closing up: the order of fields means nothing, and a patch may remove a hundred thousand of them.
        fields.swap_remove(name);
        return Ok(());
    }
    match (fields.get_mut(name), patch, Merge::of(name)) {
        (Some(object @ Value::Object(_)), Value::Object(patch), _) => merge_object(object, patch, effort)?,
        (Some(Value::Array(entries)), Value::Array(patch), Some(merge)) => {
            let before = std::mem::take(entries);
            *entries = merge_list(before, name, merge, patch, effort)?;
        }
        (Some(Value::Array(entries)), Value::Array(patch), None) => entries.clone_from(patch),
        _ => match without_directives(patch) {
            Some(value) => {
                fields.insert(name.to_owned(), value);
            }
            None => {
                fields.swap_remove(name);
            }
        },
    }
    Ok(())
}

/// A value of the patch for a field that is not there yet: without nulls, and without what says what is to be done with
/// it, as there is nothing that it could be done with.
fn without_directives(value: &Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => None,
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let kept = fields.filter_map(|(name, value)| Some((name.clone(), without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(entries) => Some(Value::Array(
            entries.iter().filter_map(without_directives).collect(),
        )),
        plain => Some(plain.clone()),
    }
}

/// Takes the values that `deleted` lists out of a list of plain values, whether or not that list is merged.
fn delete_values(
    fields: &mut Map<String, Value>,
    list: &str,
    deleted: &Value,
    effort: &mut Effort,
) -> Result<(), PatchError> {
    let entries = fields.get_mut(list).and_then(Value::as_array_mut);
    let (Some(deleted), Some(entries)) = (deleted.as_array(), entries) else {
        return Ok(());
    };
    let is_plain = |entry: &Value| !entry.is_object() && !entry.is_array();
    if !entries.iter().chain(deleted).all(is_plain) {
        return Err(malformed(format!("{list} is not a list of plain values")));
    }
    let deleted = Positions::of(deleted, Merge::Values, effort)?;
    let mut is_deleted = Vec::with_capacity(entries.len());
    for entry in entries.iter() {
        is_deleted.push(deleted.find(entry, Merge::Values, effort)?.is_some());
    }
    let mut deleted = is_deleted.into_iter();
    entries.retain(|_| !deleted.next().unwrap_or_default());
    Ok(())
}

/// Merges `patch`, if there is one, into a list, and puts it into `order`: entries that `order` does not name keep
/// theirs.
fn merge_in_order(
    fields: &mut Map<String, Value>,
    list: &str,
    patch: Option<&Value>,
    order: &Value,
    effort: &mut Effort,
) -> Result<(), PatchError> {
    let Some(order) = order.as_array() else {
        return Err(malformed(format!("{ORDER}{list} is not a list")));
    };
    let is_list = |value: Option<&Value>| value.is_none_or(Value::is_array);
    if !is_list(patch) || !is_list(fields.get(list)) {
        return Err(malformed(format!(
            "{ORDER}{list} is there, and {list} is not a list"
        )));
    }
    let Some(merge) = Merge::of(list) else {
        // What is replaced has the order in which it is sent.
        return patch.map_or(Ok(()), |patch| merge_field(fields, list, patch, effort));
    };
    let mut ordered = Vec::with_capacity(order.len());
    for entry in order {
        let identity = identity(entry, &format!("{ORDER}{list}"), merge)?;
        effort.spend(identity.len() + 1)?;
        ordered.push(identity);
    }
    if let Some(patch) = patch.and_then(Value::as_array) {
        require_order(&ordered, patch, list, merge, effort)?;
    }
    let order = Positions::by(ordered);
    let before = match fields.get(list).and_then(Value::as_array) {
        Some(entries) => Positions::of(entries, merge, effort)?,
        None => Positions(HashMap::new()),
    };
    if let Some(patch) = patch {
        merge_field(fields, list, patch, effort)?;
    }
    if let Some(entries) = fields.get_mut(list).and_then(Value::as_array_mut) {
        let merged = std::mem::take(entries);
        *entries = arrange(merged, list, merge, &order, &before, effort)?;
    }
    Ok(())
}

/// The list `name` with `patch` merged into it. What the patch names comes in its order: see [`arrange`].
fn merge_list(
    mut merged: Vec<Value>,
    name: &str,
    merge: Merge,
    patch: &[Value],
    effort: &mut Effort,
) -> Result<Vec<Value>, PatchError> {
    let mut named: Vec<&Value> = Vec::new();
    let mut deleted = HashSet::new();
    let mut replaces = false;
    for entry in patch {
        let fields = match merge {
            Merge::ByKey(_) => Some(as_object(&format!("an entry of {name}"), entry)?),
            Merge::Values if entry.is_object() || entry.is_array() => {
                return Err(malformed(format!("an entry of {name} is no plain value")));
            }
            Merge::Values => None,
        };
        match fields.and_then(|fields| fields.get(DIRECTIVE)) {
            None => named.push(entry),
            Some(directive) if directive == "replace" => replaces = true,
            Some(directive) if directive == "delete" => {
                deleted.insert(identity(entry, name, merge)?);
            }
            Some(other) => return Err(malformed(format!("there is no {DIRECTIVE}: {other}"))),
        }
    }
    if replaces {
        // The list is what the patch has beside its directives.
        return Ok(named.into_iter().cloned().collect());
    }
    if !deleted.is_empty() {
        effort.spend(merged.len())?;
        merged.retain(|entry| {
            merge
                .identity(entry)
                .is_none_or(|identity| !deleted.contains(&identity))
        });
    }
    let before = Positions::of(&merged, merge, effort)?;
    let mut positions = before.clone();
    let mut order = Positions(HashMap::new());
    for (rank, entry) in named.into_iter().enumerate() {
        let identity = identity(entry, name, merge)?;
        effort.spend(identity.len())?;
        order.0.entry(identity.clone()).or_insert(rank);
        match positions
            .0
            .get(&identity)
            .and_then(|position| merged.get_mut(*position))
        {
            Some(there) => {
                if let Some(fields) = entry.as_object() {
                    merge_object(there, fields, effort)?;
                }
            }
            None => {
                positions.0.insert(identity, merged.len());
                merged.push(entry.clone());
            }
        }
    }
    arrange(merged, name, merge, &order, &before, effort)
}

fn identity(entry: &Value, name: &str, merge: Merge) -> Result<String, PatchError> {
    merge.identity(entry).ok_or_else(|| match merge {
        Merge::ByKey(key) => malformed(format!("an entry of {name} has no {key}")),
        Merge::Values => malformed(format!("an entry of {name} has no value")),
    })
}

/// Puts the entries that `order` names into that order, and the others into the one `before`, in which they are.
///
/// Where the two rows are joined, one of the others comes first only if it was there before and stood in front of the
/// next one that is named. So what is new, and named, comes before all others: as kube-apiserver joins them.
fn arrange(
    entries: Vec<Value>,
    name: &str,
    merge: Merge,
    order: &Positions,
    before: &Positions,
    effort: &mut Effort,
) -> Result<Vec<Value>, PatchError> {
    let mut named = Vec::new();
    let mut others = Vec::new();
    let count = entries.len();
    for entry in entries {
        let identity = identity(&entry, name, merge)?;
        effort.spend(identity.len())?;
        let place = before.0.get(&identity).copied();
        match order.0.get(&identity) {
            Some(rank) => named.push((*rank, place, entry)),
            None => others.push((place, entry)),
        }
    }
    named.sort_by_key(|(rank, ..)| *rank);
    if others.iter().any(|(place, _)| place.is_none()) {
        move_up(&mut others, effort)?;
    }
    let mut arranged = Vec::with_capacity(count);
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let Some((_, next, _)) = named.peek() {
        let stood_in_front =
            |other: &(Option<usize>, Value)| other.0.zip(*next).is_some_and(|(other, next)| other < next);
        match others.next_if(stood_in_front) {
            Some((_, entry)) => arranged.push(entry),
            None => arranged.extend(named.next().map(|(_, _, entry)| entry)),
        }
    }
    arranged.extend(others.map(|(_, entry)| entry));
    Ok(arranged)
}

/// Sorts entries by their places as kube-apiserver does where some have none, which happens where the patch gives an
/// order that names nothing: each moves up past those behind it in place, and past each neighbour if one of the two has
/// no place.
fn move_up(entries: &mut [(Option<usize>, Value)], effort: &mut Effort) -> Result<(), PatchError> {
    for end in 1..entries.len() {
        let mut at = end;
        let stands_before = |one: &(Option<usize>, Value), other: &(Option<usize>, Value)| {
            one.0.zip(other.0).is_none_or(|(one, other)| one < other)
        };
        while at > 0 && stands_before(&entries[at], &entries[at - 1]) {
            effort.spend(1)?;
            entries.swap(at, at - 1);
            at -= 1;
        }
    }
    Ok(())
}

/// Where in a list the first entry of each identity stands, so that a list of many is gone through once and not for
/// each of them.
#[derive(Clone)]
struct Positions(HashMap<String, usize>);

impl Positions {
    /// The positions of the entries of `list`.
    fn of(list: &[Value], merge: Merge, effort: &mut Effort) -> Result<Positions, PatchError> {
        effort.spend(list.len())?;
        let mut positions = Positions(HashMap::new());
        for (position, entry) in list.iter().enumerate() {
            if let Some(identity) = merge.identity(entry) {
                effort.spend(identity.len())?;
                positions.0.entry(identity).or_insert(position);
            }
        }
        Ok(positions)
    }

    /// The positions of the entries with these identities, in this order.
    fn by(identities: Vec<String>) -> Positions {
        let mut positions = Positions(HashMap::new());
        for (position, identity) in identities.into_iter().enumerate() {
            positions.0.entry(identity).or_insert(position);
        }
        positions
    }

    /// Where the entry stands that is the same as `entry`.
    fn find(&self, entry: &Value, merge: Merge, effort: &mut Effort) -> Result<Option<usize>, PatchError> {
        let Some(identity) = merge.identity(entry) else {
            return Ok(None);
        };
        effort.spend(identity.len())?;
        Ok(self.0.get(&identity).copied())
    }
}

/// Refuses a patch of the list `name` that has entries which `order`, their identities, does not name, or has them in
/// another order. An entry may stand in both more than once: kubectl sends that for a name which the list has already.
fn require_order(
    order: &[String],
    patch: &[Value],
    name: &str,
    merge: Merge,
    effort: &mut Effort,
) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for entry in patch.iter().filter(|entry| entry.get(DIRECTIVE).is_none()) {
        let wanted = merge.identity(entry);
        loop {
            effort.spend(1)?;
            let Some(next) = rest.next() else {
                return Err(malformed(format!(
                    "the order of {name} is not that of {ORDER}{name}"
                )));
            };
            if wanted.as_ref() == Some(next) {
                break;
            }
        }
    }
    Ok(())
}
