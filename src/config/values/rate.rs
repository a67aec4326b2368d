//! So much in a time.

use std::time::Duration;

use super::{Wrong, size};

/// More requests in a time than anybody means; a bound so that arithmetic on it cannot overflow.
const MOST: u32 = 1_000_000;

/// Requests in a time, 1 to 1,000,000: `100/s`, `600/m`, `1000/h`; `None` for `0`.
pub(crate) fn rate(text: &str) -> Result<Option<(u32, Duration)>, Wrong> {
    const HELP: &str = "rates look like \"100/s\", \"600/m\" or \"1000/h\"";
    if text == "0" {
        return Ok(None);
    }
    let Some((number, unit)) = text.split_once('/') else {
        return Err(match text.parse::<u32>() {
            Ok(number) => Wrong::new("the time is missing", format!("write \"{number}/s\"")),
            Err(_) => Wrong::new("this is no rate", HELP),
        });
    };
    let seconds = match unit.trim_start() {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(Wrong::new("there is no such unit", HELP)),
    };
    let number = number.trim_end();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::new("this is no rate", HELP));
    }
    match number.parse() {
        Ok(number @ 1..=MOST) => Ok(Some((number, Duration::from_secs(seconds)))),
        _ => Err(Wrong::new(
            format!("must be 1 to {MOST}"),
            "write 0 for no limit",
        )),
    }
}

/// Bytes a second: `500B/s`, `1KiB/s`; `None` for `0`.
pub(crate) fn speed(text: &str) -> Result<Option<u64>, Wrong> {
    const HELP: &str = "write a size a second, such as \"500B/s\" or \"1KiB/s\"";
    if text == "0" {
        return Ok(None);
    }
    let Some((number, unit)) = text.split_once('/') else {
        return Err(Wrong::new("the time is missing", HELP));
    };
    if unit.trim_start() != "s" {
        return Err(Wrong::new("this is not a second", HELP));
    }
    match size(number.trim_end())? {
        0 => Err(Wrong::new(
            "nothing a second is no rate",
            "write 0 for no limit",
        )),
        bytes => Ok(Some(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::refuses;
    use super::*;

    #[test]
    fn rates() {
        for (text, requests, seconds) in [
            ("1/s", 1, 1),
            ("100 / s", 100, 1),
            ("600/m", 600, 60),
            ("1000000/h", 1_000_000, 3600),
        ] {
            let expected = (requests, Duration::from_secs(seconds));
            assert_eq!(rate(text), Ok(Some(expected)), "{text}");
        }
        assert_eq!(rate("0"), Ok(None));
        refuses(
            rate,
            &[
                ("", "no rate; rates look like"),
                ("fast", "no rate"),
                ("100", "time is missing; write \"100/s\""),
                ("100/d", "no such unit; rates look like"),
                ("100/sec", "no such unit"),
                ("/s", "no rate"),
                ("-1/s", "no rate"),
                ("+1/s", "no rate"),
                ("1.5/s", "no rate"),
                ("0/s", "1 to 1000000; write 0 for no limit"),
                ("1000001/s", "1 to 1000000"),
                ("99999999999/s", "1 to 1000000"),
            ],
        );
    }

    #[test]
    fn speeds() {
        for (text, bytes) in [("500B/s", 500), ("1KiB/s", 1024), ("2MB / s", 2_000_000)] {
            assert_eq!(speed(text), Ok(Some(bytes)), "{text}");
        }
        assert_eq!(speed("0"), Ok(None));
        refuses(
            speed,
            &[
                ("500", "time is missing; write a size a second"),
                ("1KiB/m", "not a second"),
                ("0B/s", "no rate; write 0"),
                ("1k/s", "two things"),
                ("slow/s", "no size"),
            ],
        );
    }
}
