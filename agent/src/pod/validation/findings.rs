//! What a check collects on its way through an object.

use std::fmt::Display;

use crate::pod::field_error::{Cause, FieldError};

/// The errors found so far.
#[derive(Default)]
pub(super) struct Findings(Vec<FieldError>);

impl Findings {
    pub(super) fn into_errors(self) -> Vec<FieldError> {
        self.0
    }

    /// Notes one error; `message` is a sentence without the field's name.
    pub(super) fn add(&mut self, field: impl Into<String>, cause: Cause, message: impl Into<String>) {
        self.0.push(FieldError::new(field, cause, message));
    }

    pub(super) fn required(&mut self, field: impl Into<String>) {
        self.add(field, Cause::Required, "must be set");
    }

    pub(super) fn invalid(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(field, Cause::Invalid, message);
    }

    pub(super) fn forbidden(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(field, Cause::Forbidden, message);
    }

    /// The value is taken by another entry of `of_what`.
    pub(super) fn duplicate(&mut self, field: impl Into<String>, value: &str, of_what: &str) {
        self.add(
            field,
            Cause::Duplicate,
            format!("{value:?} is the name of another {of_what}"),
        );
    }

    /// Checks a value that must be set and be one of a few.
    pub(super) fn one_of(&mut self, field: &str, value: Option<&str>, allowed: &[&str]) {
        match value.unwrap_or_default() {
            "" => self.required(field),
            value => self.known(field, value, allowed),
        }
    }

    /// Checks a value that must be one of a few.
    pub(super) fn known(&mut self, field: &str, value: &str, allowed: &[&str]) {
        if !allowed.contains(&value) {
            let allowed = allowed
                .iter()
                .filter(|value| !value.is_empty())
                .copied()
                .collect::<Vec<_>>()
                .join(", ");
            let message = format!("{value:?} is not known; it can be {allowed}");
            self.add(field, Cause::NotSupported, message);
        }
    }

    /// Checks the form of a value: `rule` says what is wrong with it, if anything.
    pub(super) fn well_formed(
        &mut self,
        field: impl Into<String>,
        value: &str,
        rule: fn(&str) -> Result<(), &'static str>,
    ) {
        if let Err(reason) = rule(value) {
            self.invalid(field, format!("{value:?} {reason}"));
        }
    }

    /// Checks that a number lies between two others, both inclusive.
    pub(super) fn within<N: PartialOrd + Display + Copy>(
        &mut self,
        field: impl Into<String>,
        value: N,
        least: N,
        most: N,
    ) {
        if value < least || value > most {
            self.invalid(field, format!("{value} is not between {least} and {most}"));
        }
    }
}
