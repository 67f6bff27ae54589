//! Numbers formatted for people.

/// Adds a comma between thousands: "12,030".
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Bytes in MB, rounded up.
pub fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!(
            [0, 12, 999, 1000, 12_030, 1_234_567].map(grouped),
            ["0", "12", "999", "1,000", "12,030", "1,234,567"]
        );
    }
}
