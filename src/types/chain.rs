//! Prints an error with all its causes, once, on one line: for the log and the operator, never for a caller.

use std::error::Error;
use std::fmt;

/// `Display` joins the error and its sources with `: `. No error of ours repeats its source in its own text.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl Chain<'_> {
    /// What the error and each of its causes say, the root cause last.
    pub fn said(&self) -> Vec<String> {
        let mut said = vec![self.0.to_string()];
        let mut source = self.0.source();
        while let Some(cause) = source {
            said.push(cause.to_string());
            source = cause.source();
        }
        said
    }
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said().join(": "))
    }
}
