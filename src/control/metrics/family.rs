//! What a metric is: one name with its samples, as it crosses the control socket and as it is printed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What its values are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// It may fall.
    #[default]
    Gauge,
    /// It rises until the process ends. In the text its name ends in `_total`.
    Counter,
    Histogram,
}

/// All samples of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Family {
    pub(crate) name: Cow<'static, str>,
    /// One sentence.
    pub(crate) help: Cow<'static, str>,
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    /// At least one where it is shown.
    pub(crate) samples: Vec<Sample>,
}

/// One value, or one distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) labels: BTreeMap<Cow<'static, str>, String>,
    /// Of a histogram: how many there were.
    pub(crate) value: u64,
    /// Of a histogram.
    #[serde(default)]
    pub(crate) durations: Option<Durations>,
}

/// Integers, since not every reader of JSON gives back the fraction that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Durations {
    /// All together.
    pub(crate) sum_nanoseconds: u64,
    /// The last one, without a bound, is what is left of [`Sample::value`].
    pub(crate) buckets: Vec<Bucket>,
}

/// So many took no longer, and longer than the bound before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    pub(crate) up_to_nanoseconds: u64,
    pub(crate) count: u64,
}

impl Family {
    pub(super) const fn new(name: &'static str, help: &'static str) -> Self {
        Self::of(Kind::Gauge, name, help)
    }

    pub(super) const fn of(kind: Kind, name: &'static str, help: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), help: Cow::Borrowed(help), kind, samples: Vec::new() }
    }

    pub(super) fn is(name: &'static str, help: &'static str, value: impl Into<u64>) -> Self {
        Self::new(name, help).with(&[], value)
    }

    pub(super) fn with(mut self, labels: &[(&'static str, &str)], value: impl Into<u64>) -> Self {
        self.samples.push(Sample::new(labels, value.into(), None));
        self
    }

    /// How many series it is for whoever collects it.
    #[cfg(test)]
    pub(super) fn series(&self) -> usize {
        // Of a histogram also the one without a bound, the sum and the count.
        let of = |sample: &Sample| sample.durations.as_ref().map_or(1, |durations| durations.buckets.len() + 3);
        self.samples.iter().map(of).sum()
    }
}

impl Sample {
    pub(super) fn new(labels: &[(&'static str, &str)], value: u64, durations: Option<Durations>) -> Self {
        let labels = labels.iter().map(|(name, value)| (Cow::Borrowed(*name), (*value).to_owned())).collect();
        Self { labels, value, durations }
    }
}
