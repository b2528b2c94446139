//! What docker and podman have and this has not, and what there is instead.

/// Returns what to say of an option that there is not.
pub(crate) fn complaint(option: &str) -> String {
    let name = option.split('=').next().unwrap_or(option);
    let mut hints = include_str!("refused.txt").lines().filter_map(|line| line.split_once(": "));
    let hint = hints.find(|(hinted, _)| *hinted == name).map_or("see run --help", |(_, hint)| hint);
    format!("no option {name}: {hint}")
}
