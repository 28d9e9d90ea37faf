//! Reads extended header records with the program's reader and with a naive one.

#![no_main]

use deploy_shell::archive::pax::Pax;
use deploy_shell::archive::time::Mtime;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let records = records(bytes);
    let ours = Pax::from_records(bytes);
    let naive = records.as_ref().and_then(|records| allowed(records));
    assert_eq!(ours.as_ref().ok(), naive.as_ref(), "{ours:?}");

    let harmless = |records: &Vec<(String, Vec<u8>)>| {
        let mut keys = records.iter().map(|(key, _)| key);
        keys.all(|key| key == "comment" || is_harmless_vendor_key(key))
    };
    let global = Pax::check_global(bytes);
    assert_eq!(
        global.is_ok(),
        records.as_ref().is_some_and(harmless),
        "{global:?}"
    );
});

/// Returns all records; none if one of them is malformed.
fn records(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let space = at + bytes[at..].iter().position(|byte| *byte == b' ')?;
        let end = at + number(&bytes[at..space], 9999)? as usize;
        if space + 1 >= end || end > bytes.len() || bytes[end - 1] != b'\n' {
            return None;
        }
        let body = &bytes[space + 1..end - 1];
        let equals = body.iter().position(|byte| *byte == b'=')?;
        let key = String::from_utf8(body[..equals].to_vec()).ok()?;
        if key.is_empty() || !key.chars().all(|letter| matches!(letter, '!'..='~')) {
            return None;
        }
        records.push((key, body[equals + 1..].to_vec()));
        at = end;
    }
    Some(records)
}

/// Reads decimal digits in their only accepted spelling.
fn number(digits: &[u8], max: u64) -> Option<u64> {
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (value <= max && value.to_string().as_bytes() == digits).then_some(value)
}

/// Returns what the records set; none if one of them is not allowed.
fn allowed(records: &[(String, Vec<u8>)]) -> Option<Pax> {
    let mut pax = Pax::default();
    for (index, (key, value)) in records.iter().enumerate() {
        if records[..index].iter().any(|(before, _)| before == key) {
            return None;
        }
        match key.as_str() {
            "path" => pax.path = Some(value.clone()),
            "linkpath" => pax.linkpath = Some(value.clone()),
            "size" => pax.size = Some(number(value, u64::MAX)?),
            "mtime" => pax.mtime = Some(time(value)?),
            "SCHILY.acl.access" => pax.acl = Some(value.clone()),
            "atime" | "ctime" | "uid" | "gid" | "uname" | "gname" => {}
            "comment" | "charset" => {}
            "hdrcharset" if value == b"BINARY" || value == b"ISO-IR 10646 2000 UTF-8" => {}
            _ if is_harmless_vendor_key(key) => {}
            _ => return None,
        }
    }
    Some(pax)
}

/// Reads `-?[0-9]+([.][0-9]*)?`, digit by digit; none over 63 bits. All times before the
/// epoch are equal.
fn time(value: &[u8]) -> Option<Mtime> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let (mut seconds, mut nanoseconds) = (0_i64, 0_u32);
    // The value of the next digit after the point, in nanoseconds.
    let mut unit = None;
    for (index, byte) in digits.iter().enumerate() {
        match (byte, unit) {
            (b'0'..=b'9', None) => {
                let digit = i64::from(byte - b'0');
                seconds = seconds.checked_mul(10)?.checked_add(digit)?;
            }
            (b'0'..=b'9', Some(value)) => {
                nanoseconds += u32::from(byte - b'0') * value;
                unit = Some(value / 10);
            }
            (b'.', None) if index > 0 => unit = Some(100_000_000),
            _ => return None,
        }
    }
    if digits.is_empty() {
        return None;
    }
    if digits.len() < value.len() {
        (seconds, nanoseconds) = (-1, 0);
    }
    Some(Mtime {
        seconds,
        nanoseconds,
    })
}

/// Returns whether a key is `VENDOR.keyword` and no sparse map or part of a file.
fn is_harmless_vendor_key(key: &str) -> bool {
    let changes = [
        "GNU.sparse",
        "GNU.volume.",
        "SCHILY.realsize",
        "SUN.holesdata",
    ];
    let mut parts = key.splitn(2, '.');
    let vendor = parts.next().unwrap_or_default();
    let capitals = vendor
        .chars()
        .enumerate()
        .all(|(index, letter)| match letter {
            'A'..='Z' => true,
            '0'..='9' | '_' | '-' => index > 0,
            _ => false,
        });
    !vendor.is_empty()
        && capitals
        && parts.next().is_some_and(|keyword| !keyword.is_empty())
        && (key == "GNU.volume.label" || !changes.iter().any(|start| key.starts_with(start)))
}
