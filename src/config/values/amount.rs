//! Sizes and times.

use std::time::Duration;

use super::Wrong;

/// Bytes: `16KiB`, `1MB`; without a unit `1024`.
pub(crate) fn size(text: &str) -> Result<u64, Wrong> {
    const HELP: &str = "sizes look like \"16KiB\", \"64MiB\" or 1048576 (bytes)";
    let (number, unit) = split(text).ok_or_else(|| Wrong::new("this is no size", HELP))?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "kib" => 1 << 10,
        "mb" => 1_000_000,
        "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        short @ ("k" | "m" | "g") => {
            let help = format!("write \"{number}{}iB\"", short.to_ascii_uppercase());
            return Err(Wrong::new("this unit can mean two things", help));
        }
        _ => return Err(Wrong::new("there is no such unit", HELP)),
    };
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| Wrong::new("this is too large", ""))
}

/// For people: in the largest binary unit that leaves no fraction.
pub(crate) fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes} bytes")
}

/// The longest time that can be meant.
const MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A time, 1 ms to 24 h: `250ms`, `10s`, `5m`, `1h`.
pub(crate) fn time(text: &str) -> Result<Duration, Wrong> {
    const HELP: &str = "times look like \"250ms\", \"10s\", \"5m\" or \"1h\"";
    let (number, unit) = split(text).ok_or_else(|| Wrong::new("this is no time", HELP))?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => {
            let help = format!("write \"{number}s\" for seconds, \"{number}ms\" for milliseconds");
            return Err(Wrong::new("the unit is missing", help));
        }
        _ => return Err(Wrong::new("there is no such unit", HELP)),
    };
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|number| number.checked_mul(millis))
        .map(Duration::from_millis)
        .filter(|time| !time.is_zero() && *time <= MAX)
        .ok_or_else(|| Wrong::new("must be 1ms to 24h", ""))
}

/// Digits, and the unit that follows.
fn split(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (!number.is_empty()).then_some((number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::super::refuses;
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("1kB", 1000),
            ("16KiB", 16 << 10),
            ("16 kib", 16 << 10),
            ("1MB", 1_000_000),
            ("64MiB", 64 << 20),
            ("2GB", 2_000_000_000),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        refuses(
            size,
            &[
                ("", "no size"),
                ("big", "no size; sizes look like"),
                ("-1", "no size"),
                ("1.5MiB", "no such unit; sizes look like"),
                ("64m", "two things; write \"64MiB\""),
                ("1TiB", "no such unit"),
                ("1MiB ", "no such unit"),
                ("99999999999999999999", "too large"),
                ("18446744073709551615KiB", "too large"),
                ("1é", "no such unit"),
            ],
        );
    }

    #[test]
    fn sizes_are_shown_as_one_writes_them() {
        for text in ["8KiB", "1MiB", "64MiB", "3GiB", "1025 bytes", "0 bytes"] {
            let bytes = size(text.trim_end_matches(" bytes")).unwrap();
            assert_eq!(show_size(bytes), text);
        }
    }

    #[test]
    fn times() {
        for (text, millis) in [
            ("1ms", 1),
            ("250ms", 250),
            ("10s", 10_000),
            ("10 s", 10_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        refuses(
            time,
            &[
                ("", "no time"),
                ("soon", "no time; times look like"),
                ("10", "unit is missing; write \"10s\""),
                ("0s", "1ms to 24h"),
                ("25h", "1ms to 24h"),
                ("99999999999999999999h", "1ms to 24h"),
                ("18446744073709551615h", "1ms to 24h"),
                ("1.5s", "no such unit"),
                ("10sec", "no such unit; times look like"),
                ("1m30s", "no such unit"),
                ("-1s", "no time"),
            ],
        );
    }
}
