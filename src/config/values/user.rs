//! Users.

use super::super::ExpectUser;
use super::super::keys::nearest;
use super::Wrong;

/// Who to become: a name, `uid` or `uid:gid`; never root.
pub(crate) fn user(text: &str) -> Result<String, Wrong> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    let numeric = text.starts_with(|char: char| char.is_ascii_digit());
    let valid = match text.split_once(':') {
        Some((uid, gid)) => number(uid).is_some() && number(gid).is_some(),
        None if numeric => number(text).is_some(),
        None => is_name(text),
    };
    if !valid {
        return Err(Wrong::new(
            "this is no user",
            "write a name, \"uid\" or \"uid:gid\", such as \"1000:1000\"",
        ));
    }
    let uid = text.split(':').next().and_then(number);
    if text == "root" || uid == Some(0) {
        return Err(Wrong::new(
            "nothing here runs as root",
            "name a user that owns nothing, such as one made by `useradd --system lowport`",
        ));
    }
    Ok(text.to_owned())
}

/// Who must be running an upstream: `not-root`, `any`, a name or a uid.
pub(crate) fn expect_user(text: &str) -> Result<ExpectUser, Wrong> {
    let numeric = text.starts_with(|char: char| char.is_ascii_digit());
    match text {
        "not-root" => Ok(ExpectUser::NotRoot),
        "any" => Ok(ExpectUser::Any),
        _ if numeric => text.parse().map(ExpectUser::Uid).map_err(|_| unexpected()),
        // A slip would be a user whom nobody is.
        _ if nearest(text, ["not-root"]).is_some() => {
            Err(Wrong::new("this is no user", "did you mean \"not-root\"?"))
        }
        _ if is_name(text) => Ok(ExpectUser::Name(text.to_owned())),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> Wrong {
    Wrong::new(
        "this is no user",
        "write \"not-root\", \"any\", a name or a uid",
    )
}

/// What useradd takes, and a little more: capitals and dots, for directories of companies.
fn is_name(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=32).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(valid)
}

#[cfg(test)]
mod tests {
    use super::super::refuses;
    use super::*;

    #[test]
    fn users() {
        for text in [
            "lowport",
            "www-data",
            "_x",
            "A.B",
            "1000",
            "1000:1000",
            "65534:0",
        ] {
            assert_eq!(user(text).as_deref(), Ok(text));
        }
        refuses(
            user,
            &[
                ("", "no user; write a name"),
                ("a b", "no user"),
                ("-x", "no user"),
                ("lowport:lowport", "no user"),
                ("1000:", "no user"),
                ("4294967295", "no user"),
                ("99999999999", "no user"),
                ("12ab", "no user"),
                ("root", "as root"),
                ("0", "as root"),
                ("0:0", "as root"),
            ],
        );
    }

    #[test]
    fn expected_users() {
        for (text, meant) in [
            ("not-root", ExpectUser::NotRoot),
            ("any", ExpectUser::Any),
            ("node", ExpectUser::Name("node".into())),
            ("root", ExpectUser::Name("root".into())),
            ("1000", ExpectUser::Uid(1000)),
        ] {
            assert_eq!(expect_user(text), Ok(meant));
        }
        refuses(
            expect_user,
            &[
                ("", "\"not-root\""),
                ("1000:1000", "\"any\""),
                ("a b", "a uid"),
                ("nonroot", "did you mean"),
            ],
        );
    }
}
