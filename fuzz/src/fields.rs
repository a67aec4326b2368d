//! Header fields out of a text: `name: value` lines, as far as they are fields.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The lines of `text` that are fields, in order. Lines end in LF, since an input is shorter that way.
pub fn fields(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n').take(200) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// The items of a comma-separated field, in lower case, empty ones left out (RFC 9110 section 5.6.1).
pub fn items(headers: &HeaderMap, name: &str) -> Vec<Vec<u8>> {
    let values = headers.get_all(name).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|item| item.trim_ascii().to_ascii_lowercase())
        .filter(|item| !item.is_empty())
        .collect()
}

/// The values of a field.
pub fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    let values = headers.get_all(name).iter();
    values.map(HeaderValue::as_bytes).collect()
}
