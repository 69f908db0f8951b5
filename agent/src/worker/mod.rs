//! One task per pod: observe, plan, act, report.
