//! OpenMetrics 1.0 (prometheus/OpenMetrics, specification/OpenMetrics.md). The textfile collector of node_exporter, which reads the older
//! text format 0.0.4, takes it too: what is new in it are comments there, and counters have the name that they have.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Durations, Family, Kind, Sample};

/// Of the text, for HTTP.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The families as text, with its last line.
pub(crate) fn text(families: Vec<Family>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(All(families)));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct All(Vec<Family>);

impl Collector for All {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, kind, samples } in &self.0 {
            let kind = match kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for sample in samples {
                let labels: Vec<_> = sample.labels.iter().map(|(name, value)| (&**name, value.as_str())).collect();
                let mut metric = metric.encode_family(&labels)?;
                match (kind, &sample.durations) {
                    (MetricType::Histogram, Some(durations)) => {
                        let buckets = buckets(sample, durations);
                        let sum = seconds(durations.sum_nanoseconds);
                        metric.encode_histogram::<NoLabelSet>(sum, sample.value, &buckets, None)?;
                    }
                    (MetricType::Counter, _) => metric.encode_counter::<NoLabelSet, _, u64>(&sample.value, None)?,
                    _ => metric.encode_gauge(&sample.value)?,
                }
            }
        }
        Ok(())
    }
}

fn buckets(sample: &Sample, durations: &Durations) -> Vec<(f64, u64)> {
    let bounded = durations.buckets.iter().map(|bucket| (seconds(bucket.up_to_nanoseconds), bucket.count));
    let above = sample.value.saturating_sub(durations.buckets.iter().map(|bucket| bucket.count).sum());
    bounded.chain([(f64::INFINITY, above)]).collect()
}

#[expect(clippy::cast_precision_loss, reason = "exact to a microsecond for a hundred years")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::super::{Bucket, up_family};
    use super::*;

    #[test]
    fn what_would_end_a_label_or_a_line_is_escaped() {
        let family = Family::new("x", "h").with(&[("a", "q\"b\\n\nü"), ("b", "")], 2_u64);
        let expected = "# HELP x h\n# TYPE x gauge\nx{a=\"q\\\"b\\\\n\\nü\",b=\"\"} 2\n# EOF\n";
        assert_eq!(text(vec![family]), expected);
    }

    #[test]
    fn a_daemon_that_is_away_is_one_sample() {
        assert!(text(vec![up_family(false)]).ends_with("\nnodeseal_up 0\n# EOF\n"));
    }

    #[test]
    fn a_counter_has_its_ending_and_a_histogram_its_bounds_in_seconds() {
        let counter = Family::of(Kind::Counter, "c", "h").with(&[], 3_u64);
        let bucket = |up_to_nanoseconds, count| Bucket { up_to_nanoseconds, count };
        let durations =
            Durations { sum_nanoseconds: 1_500_000_000, buckets: vec![bucket(100_000, 1), bucket(200_000, 2)] };
        let mut histogram = Family::of(Kind::Histogram, "t_seconds", "h");
        histogram.samples.push(Sample::new(&[("m", "x")], 4, Some(durations)));
        assert_eq!(histogram.series(), 5);
        let expected = "# HELP c h\n# TYPE c counter\nc_total 3\n# HELP t_seconds h\n# TYPE t_seconds histogram\n\
                        t_seconds_sum{m=\"x\"} 1.5\nt_seconds_count{m=\"x\"} 4\nt_seconds_bucket{le=\"0.0001\",m=\"x\"} 1\n\
                        t_seconds_bucket{le=\"0.0002\",m=\"x\"} 3\nt_seconds_bucket{le=\"+Inf\",m=\"x\"} 4\n# EOF\n";
        assert_eq!(text(vec![counter, histogram]), expected);
    }
}
