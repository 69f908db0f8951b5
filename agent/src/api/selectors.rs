//! Field and label selectors, as lists and watches take them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldSelectorRequirement, LabelSelectorRequirement};

use super::status::Failure;

/// A field of an object that can be selected by: its name, and how to read it (empty where it is not set).
pub(crate) type Field<T> = (&'static str, fn(&T) -> &str);

/// What a field says: empty where it is not set.
pub(crate) fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str)
}

/// Which objects of one kind are asked for.
pub(crate) struct Selector<T> {
    fields: Vec<FieldTerm<T>>,
    labels: Vec<LabelTerm>,
}

struct FieldTerm<T> {
    read: fn(&T) -> &str,
    equal: bool,
    value: String,
}

struct LabelTerm {
    key: String,
    rule: LabelRule,
}

enum LabelRule {
    Exists,
    Absent,
    In(Vec<String>),
    /// Also met where the label is not set.
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl<T> Selector<T> {
    /// Reads the two query parameters; either may be empty, which selects everything.
    pub(crate) fn parse(
        known: &[Field<T>],
        field_selector: &str,
        label_selector: &str,
    ) -> Result<Selector<T>, Failure> {
        Ok(Selector {
            fields: parse_fields(known, field_selector)?,
            labels: parse_labels(label_selector)
                .map_err(|problem| Failure::bad_request(format!("labelSelector: {problem}")))?,
        })
    }

    /// Whether everything is selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.labels.is_empty()
    }

    /// Whether the object with these labels is asked for.
    pub(crate) fn selects(&self, object: &T, labels: Option<&BTreeMap<String, String>>) -> bool {
        let fields = self
            .fields
            .iter()
            .all(|term| ((term.read)(object) == term.value) == term.equal);
        fields && self.labels.iter().all(|term| term.meets(labels))
    }
}

impl LabelTerm {
    fn requirement(self) -> Option<LabelSelectorRequirement> {
        let (operator, values) = match self.rule {
            LabelRule::Exists => ("Exists", None),
            LabelRule::Absent => ("DoesNotExist", None),
            LabelRule::In(values) => ("In", Some(values)),
            LabelRule::NotIn(values) => ("NotIn", Some(values)),
            LabelRule::Greater(_) | LabelRule::Less(_) => return None,
        };
        Some(LabelSelectorRequirement {
            key: self.key,
            operator: operator.to_owned(),
            values,
        })
    }

    fn meets(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let value = labels.and_then(|labels| labels.get(&self.key));
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.rule {
            LabelRule::Exists => value.is_some(),
            LabelRule::Absent => value.is_none(),
            LabelRule::In(values) => value.is_some_and(|value| values.contains(value)),
            LabelRule::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            LabelRule::Greater(bound) => number().is_some_and(|number| number > *bound),
            LabelRule::Less(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

/// A part of a field selector, as it is written.
struct FieldText<'a> {
    name: &'a str,
    equal: bool,
    value: Cow<'a, str>,
}

fn field_texts(selector: &str) -> Result<Vec<FieldText<'_>>, Failure> {
    let terms = split_unescaped(selector).map(|term| {
        let (name, equal, value) = split_operator(term)
            .ok_or_else(|| Failure::bad_request(format!("fieldSelector: {term:?} is not NAME=VALUE")))?;
        let value = unescape(value);
        Ok(FieldText { name, equal, value })
    });
    terms.collect()
}

fn parse_fields<T>(known: &[Field<T>], selector: &str) -> Result<Vec<FieldTerm<T>>, Failure> {
    let mut terms = Vec::new();
    for FieldText { name, equal, value } in field_texts(selector)? {
        let read = known
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, read)| *read);
        let Some(read) = read else {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            return Err(Failure::bad_request(format!(
                "fieldSelector: {name:?} cannot be selected by; what can be: {}",
                names.join(", ")
            )));
        };
        terms.push(FieldTerm {
            read,
            equal,
            value: value.into_owned(),
        });
    }
    Ok(terms)
}

/// What the selectors of a list narrow it to, as far as rights go; read as [`Selector::parse`] reads them. A selector that
/// cannot be read narrows nothing: its request is refused.
#[derive(Debug, Default)]
pub(super) struct Narrowed {
    /// The only name that the objects can have.
    pub(super) name: Option<String>,
    /// What is required of fields.
    pub(super) fields: Vec<FieldSelectorRequirement>,
    /// What is required of labels, without comparisons of numbers, for which a review has no form.
    pub(super) labels: Vec<LabelSelectorRequirement>,
}

impl Narrowed {
    /// Reads both query parameters.
    pub(super) fn by(field_selector: &str, label_selector: &str) -> Narrowed {
        let fields = field_texts(field_selector).unwrap_or_default();
        let labels = parse_labels(label_selector).unwrap_or_default();
        let name = fields
            .iter()
            .find(|field| field.name == "metadata.name" && field.equal)
            .map(|field| field.value.clone().into_owned());
        Narrowed {
            name: name.filter(|name| is_path_segment(name)),
            fields: fields.into_iter().map(FieldText::requirement).collect(),
            labels: labels.into_iter().filter_map(LabelTerm::requirement).collect(),
        }
    }
}

/// Whether a name can stand in a path: kube-apiserver judges no other.
fn is_path_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%'])
}

impl FieldText<'_> {
    fn requirement(self) -> FieldSelectorRequirement {
        FieldSelectorRequirement {
            key: self.name.to_owned(),
            operator: if self.equal { "In" } else { "NotIn" }.to_owned(),
            values: Some(vec![self.value.into_owned()]),
        }
    }
}

/// The parts between commas; in a field selector a backslash makes a comma part of a value.
fn split_unescaped(selector: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    selector
        .split(move |character| {
            let ends = character == ',' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        })
        .filter(|term| !term.is_empty())
}

/// `name=value`, `name==value` or `name!=value`.
fn split_operator(term: &str) -> Option<(&str, bool, &str)> {
    let (name, value) = term.split_once('=')?;
    Some(match name.strip_suffix('!') {
        Some(name) => (name, false, value),
        None => (name, true, value.strip_prefix('=').unwrap_or(value)),
    })
}

fn unescape(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut characters = value.chars();
    let mut plain = String::new();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' {
            characters.next()
        } else {
            Some(character)
        });
    }
    Cow::Owned(plain)
}

fn parse_labels(selector: &str) -> Result<Vec<LabelTerm>, String> {
    let mut terms = Vec::new();
    let mut rest = selector.trim();
    while !rest.is_empty() {
        // The values of a set stand in parentheses, and their commas end no term.
        let set = rest.find('(').filter(|open| !rest[..*open].contains(','));
        let from = match set {
            Some(open) => {
                let length = rest[open..].find(')');
                open + length.ok_or_else(|| format!("{rest:?} has no closing parenthesis"))?
            }
            None => 0,
        };
        let end = rest[from..].find(',').map_or(rest.len(), |comma| from + comma);
        terms.push(parse_label_term(rest[..end].trim())?);
        rest = rest.get(end + 1..).unwrap_or_default().trim();
    }
    Ok(terms)
}

fn parse_label_term(term: &str) -> Result<LabelTerm, String> {
    let (key, rule) = if let Some((head, set)) = term.split_once('(') {
        let values = set
            .strip_suffix(')')
            .ok_or_else(|| format!("{term:?} goes on after its set"))?
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        match head.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => (key, LabelRule::In(values)),
            [key, "notin"] => (key, LabelRule::NotIn(values)),
            _ => return Err(format!("{term:?} is neither KEY in (...) nor KEY notin (...)")),
        }
    } else if let Some((key, equal, value)) = split_operator(term) {
        let values = vec![value.trim().to_owned()];
        let rule = if equal {
            LabelRule::In(values)
        } else {
            LabelRule::NotIn(values)
        };
        (key, rule)
    } else if let Some((key, bound)) = term.split_once('>') {
        (key, LabelRule::Greater(parse_bound(bound)?))
    } else if let Some((key, bound)) = term.split_once('<') {
        (key, LabelRule::Less(parse_bound(bound)?))
    } else if let Some(key) = term.strip_prefix('!') {
        (key, LabelRule::Absent)
    } else {
        (term, LabelRule::Exists)
    };
    let key = key.trim();
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_./".contains(character);
    if key.is_empty() || !key.chars().all(allowed) {
        return Err(format!("{term:?} does not begin with a label's name"));
    }
    Ok(LabelTerm {
        key: key.to_owned(),
        rule,
    })
}

fn parse_bound(bound: &str) -> Result<i64, String> {
    bound
        .trim()
        .parse()
        .map_err(|_| format!("{:?} is not a whole number", bound.trim()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::super::resource::Resource;
    use super::*;

    fn pod() -> Pod {
        let labels = [("app", "web"), ("tier", "front"), ("weight", "7")];
        Pod {
            metadata: ObjectMeta {
                name: Some("web-0".to_owned()),
                namespace: Some("shop".to_owned()),
                labels: Some(
                    labels
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .into(),
                ),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        }
    }

    fn selects(fields: &str, labels: &str) -> bool {
        let selector = Selector::parse(Pod::FIELDS, fields, labels).expect("a selector");
        selector.selects(&pod(), pod().metadata.labels.as_ref())
    }

    #[test]
    fn fields_are_compared_and_an_unset_field_is_empty() {
        for (selector, expected) in [
            ("", true),
            ("metadata.name=web-0", true),
            ("metadata.name==web-0,metadata.namespace=shop", true),
            ("metadata.name=web-0,metadata.namespace=other", false),
            ("metadata.name!=web-0", false),
            ("status.phase=", true),
            ("status.phase!=Running", true),
            (r"metadata.name=web\,0", false),
        ] {
            assert_eq!(selects(selector, ""), expected, "{selector}");
        }
    }

    #[test]
    fn labels_are_compared_by_equality_by_sets_and_by_presence() {
        for (selector, expected) in [
            ("app=web", true),
            ("app==web , tier = front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (api, web),tier notin (back)", true),
            ("app in (api)", false),
            ("other in (web)", false),
            ("other notin (web)", true),
            ("app", true),
            ("!app", false),
            ("!other,app", true),
            ("weight>6,weight<8", true),
            ("weight>7", false),
            ("app>1", false),
        ] {
            assert_eq!(selects("", selector), expected, "{selector}");
        }
    }

    #[test]
    fn rights_are_asked_about_with_the_name_and_the_selectors_of_a_list() {
        let shown = |fields: &str, labels: &str| {
            let Narrowed { name, fields, labels } = Narrowed::by(fields, labels);
            let values = |values: &Option<Vec<String>>| values.clone().unwrap_or_default().join("|");
            let fields = fields
                .iter()
                .map(|one| format!("{} {} {}", one.key, one.operator, values(&one.values)));
            let labels = labels
                .iter()
                .map(|one| format!("{} {} {}", one.key, one.operator, values(&one.values)));
            let (fields, labels): (Vec<_>, Vec<_>) = (fields.collect(), labels.collect());
            format!(
                "{};{};{}",
                name.unwrap_or_default(),
                fields.join(","),
                labels.join(",")
            )
        };
        for (fields, labels, expected) in [
            ("", "", ";;"),
            ("metadata.name=web", "", "web;metadata.name In web;"),
            (
                "status.phase!=Failed,metadata.name==web",
                "",
                "web;status.phase NotIn Failed,metadata.name In web;",
            ),
            ("metadata.name!=web", "", ";metadata.name NotIn web;"),
            ("metadata.name=", "", ";metadata.name In ;"),
            ("metadata.name=..", "", ";metadata.name In ..;"),
            ("metadata.name=a/b", "", ";metadata.name In a/b;"),
            (r"metadata.name=web\,0", "", "web,0;metadata.name In web,0;"),
            // The first counts, as at kube-apiserver; nothing has both names.
            (
                "metadata.name=web,metadata.name=db",
                "",
                "web;metadata.name In web,metadata.name In db;",
            ),
            ("metadata.name", "", ";;"),
            (
                "",
                "app=web,!old,tier in (a,b),x notin (c),y,z>1",
                ";;app In web,old DoesNotExist ,tier In a|b,x NotIn c,y Exists ",
            ),
            ("", "app in (", ";;"),
        ] {
            assert_eq!(shown(fields, labels), expected, "{fields} {labels}");
        }
    }

    #[test]
    fn a_selector_that_cannot_be_read_or_is_not_known_is_refused() {
        for (fields, labels) in [
            ("metadata.name", ""),
            ("spec.unknown=1", ""),
            ("", "app in (web"),
            ("", "app within (web)"),
            ("", "app in (web) x"),
            ("", "=web"),
            ("", "weight>many"),
        ] {
            assert!(
                Selector::parse(Pod::FIELDS, fields, labels).is_err(),
                "{fields} {labels}"
            );
        }
    }
}
