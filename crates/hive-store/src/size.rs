//! Sizes as people read them.

/// A number of bytes in decimal units, as disks are sold and the hub shows them.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let number = bytes as f64;
    let unit = UNITS.into_iter().find(|(unit, _)| number >= *unit);
    unit.map_or_else(|| format!("{bytes} bytes"), |(unit, name)| format!("{:.1} {name}", number / unit))
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_shown_in_the_units_of_the_hub() {
        let shown = [0, 999, 1000, 4_683_074_240, 1_500_000_000_000].map(super::size);
        assert_eq!(shown, ["0 bytes", "999 bytes", "1.0 kB", "4.7 GB", "1.5 TB"]);
    }
}
