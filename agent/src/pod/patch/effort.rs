//! The work that one patch may make. A short one can make a lot: a list of a hundred thousand entries is searched or
//! moved along by each of its operations anew.

use serde_json::Value;

use super::PatchError;

/// How many values one patch may look at or move along. Less than a tenth of a second goes by for as many.
const VALUES: usize = 4_000_000;

/// What is left of the work that a patch may make.
#[derive(Debug)]
pub(super) struct Effort {
    left: usize,
}

impl Default for Effort {
    fn default() -> Effort {
        Effort { left: VALUES }
    }
}

impl Effort {
    /// Takes `values` off what is left; refused where that is less.
    pub(super) fn spend(&mut self, values: usize) -> Result<(), PatchError> {
        self.left = self.left.checked_sub(values).ok_or(PatchError::TooLaborious)?;
        Ok(())
    }

    /// How deep lists and objects stand in each other in `value`; none in a plain one.
    pub(super) fn depth(&mut self, value: &Value) -> Result<usize, PatchError> {
        self.spend(1)?;
        let mut deepest = 0;
        match value {
            Value::Array(entries) => {
                for entry in entries {
                    deepest = deepest.max(self.depth(entry)?);
                }
            }
            Value::Object(fields) => {
                for field in fields.values() {
                    deepest = deepest.max(self.depth(field)?);
                }
            }
            _ => return Ok(0),
        }
        Ok(deepest + 1)
    }
}
