//! Flags as kube-apiserver understands them.

/// The words of a command line, read as kube-apiserver does it (spf13/pflag): `--name=value` or `--name value`, `_` for `-` in a name
/// (k8s.io/component-base `cli/flag`, `WordSepNormalizeFunc`), and no flags behind `--`.
pub(in crate::ctl) struct Flags(pub(in crate::ctl) Vec<String>);

impl Flags {
    /// Every value that a flag is given, in their order.
    pub(in crate::ctl) fn all<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        let end = self.0.iter().position(|word| word == "--").unwrap_or(self.0.len());
        let words = &self.0[..end];
        words.iter().enumerate().filter_map(move |(at, word)| {
            let (flag, value) = word.split_once('=').map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
            let is_it = flag.strip_prefix("--").is_some_and(|flag| flag.replace('_', "-") == name);
            is_it.then(|| value.or_else(|| words.get(at + 1).map(String::as_str)).unwrap_or_default())
        })
    }

    /// Of several the last one counts.
    pub(in crate::ctl) fn last(&self, name: &str) -> Option<&str> {
        self.all(name).next_back()
    }
}
