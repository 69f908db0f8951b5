//! `pods/attach` and `pods/exec`.
