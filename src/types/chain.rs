//! Prints an error with all its causes, once, on one line: for the log and the operator, never for a caller.

use std::error::Error;
use std::fmt;

/// `Display` joins the error and its sources with `: `. No error of ours repeats its source in its own text.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
