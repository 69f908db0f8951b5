//! Requests and limits: the names of resources, and how much of them.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::findings::Findings;
use super::names;
use crate::pod::field_error::Cause;
use crate::pod::quantity::Amount;

/// The resources that a container can have from any node, besides huge pages.
const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const HUGE_PAGES: &str = "hugepages-";

pub(super) fn check(resources: &ResourceRequirements, path: &str, findings: &mut Findings) {
    for (name, quantity) in resources.limits.iter().flatten() {
        entry(name, quantity, &format!("{path}.limits[{name}]"), findings);
    }
    for (name, quantity) in resources.requests.iter().flatten() {
        let path = format!("{path}.requests[{name}]");
        let requested = entry(name, quantity, &path, findings);
        let limit = resources.limits.as_ref().and_then(|limits| limits.get(name));
        match limit.map(|limit| (limit, Amount::parse(&limit.0).ok())) {
            Some((limit, amount)) if can_be_overcommitted(name) => {
                if requested > amount && amount.is_some() {
                    findings.invalid(
                        path,
                        format!("{} is more than the limit of {}", quantity.0, limit.0),
                    );
                }
            }
            Some((limit, amount)) => {
                if requested.is_some() && amount.is_some() && requested != amount {
                    findings.invalid(
                        path,
                        format!("{} must be equal to the limit of {}", quantity.0, limit.0),
                    );
                }
            }
            None if can_be_overcommitted(name) => {}
            None => findings.add(path, Cause::Required, "needs a limit of the same amount"),
        }
    }
}

/// Checks one entry and reads its amount.
fn entry(name: &str, quantity: &Quantity, path: &str, findings: &mut Findings) -> Option<Amount> {
    findings.well_formed(path, name, names::qualified_name);
    if !name.contains('/') && !STANDARD.contains(&name) && !name.starts_with(HUGE_PAGES) {
        let message = format!(
            "{name:?} is not a resource of a container; it can have {}",
            STANDARD.join(", ")
        );
        findings.invalid(path, message);
    }
    amount(quantity, path, findings)
}

/// Checks that the text is an amount, and not a negative one.
pub(super) fn amount(quantity: &Quantity, path: &str, findings: &mut Findings) -> Option<Amount> {
    match Amount::parse(&quantity.0) {
        Err(error) => {
            findings.invalid(path, error.to_string());
            None
        }
        Ok(amount) if amount < Amount::ZERO => {
            findings.invalid(path, format!("{} is less than nothing", quantity.0));
            None
        }
        Ok(amount) => Some(amount),
    }
}

/// Whether more than there is can be promised: not so for huge pages and what devices offer.
fn can_be_overcommitted(name: &str) -> bool {
    !name.contains('/') && !name.starts_with(HUGE_PAGES)
}
