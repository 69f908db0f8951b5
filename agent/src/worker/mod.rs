//! One task per pod: observe, plan, act, report.
pub(crate) mod volumes;
