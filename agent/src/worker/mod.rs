//! One task per pod: observe, plan, act, report.

pub(crate) mod garbage;
pub(crate) mod image_garbage;
pub(crate) mod volumes;
