//! Bodies that try to make the relay panic, wait, compute or allocate.

use super::*;
use crate::api::cursor::CursorKey;
use crate::api::limits::BATCH_ITEMS_MAX;
use crate::api::{decode_ack, decode_pull, decode_stream};

/// Asserts that the body is refused with such a text.
#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    let error = decode(bytes).unwrap_err();
    assert!(error.contains(expected), "{error}, not {expected}");
}

/// A push with another field, whose value is `bytes`.
fn push_with_bytes(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut request = bytes_of(&push());
    assert_eq!(request[0], 0xa5, "a map with five entries");
    request[0] = 0xa6;
    [request, bytes_of(&text(name)), bytes.to_vec()].concat()
}

/// A push, in which the value of a field is replaced by `bytes`.
fn push_with_value(name: &str, bytes: &[u8]) -> Vec<u8> {
    let request = bytes_of(&push_with(name, text(MARKED)));
    let marked = bytes_of(&text(MARKED));
    let at = request.windows(marked.len()).position(|window| window == marked).unwrap();
    [&request[..at], bytes, &request[at + marked.len()..]].concat()
}

#[test]
fn no_part_of_a_body_is_a_body() {
    let body = push_with_bytes("y", b"\x9f\x5f\x41a\xff\xbf\x01\x02\xff\xff");
    assert!(decode(&body).is_ok());
    for end in 0..body.len() {
        let error = decode(&body[..end]).unwrap_err();
        assert!(error.starts_with("the body is not the expected CBOR: the body ends "), "{end}: {error}");
    }
    let expected = format!("more bytes after the value at offset {}", body.len());
    refused(&[body.as_slice(), b"\0"].concat(), &expected);
    refused(&[body.as_slice(), &body].concat(), &expected);
}

#[test]
fn declared_lengths_are_not_believed() {
    let lengths: [&[u8]; 5] = [
        b"\x1a\x7f\xff\xff\xff",
        b"\x1a\xff\xff\xff\xff",
        b"\x1b\0\0\0\x01\0\0\0\0",
        b"\x1b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    for length in lengths {
        for major in 2..=5 {
            let mut value = length.to_vec();
            value[0] |= major << 5;
            for tail in [&b""[..], b"\0", b"\0\0", b"\x60\0"] {
                let value = [&value, tail].concat();
                for body in [
                    value.clone(),
                    push_with_bytes("y", &value),
                    push_with_value("recipient", &value),
                    push_with_value("meta", &value),
                    push_with_value("ciphertext", &value),
                ] {
                    decode(&body).unwrap_err();
                }
                decode_items(&[b"\xa1\x65items", &value[..]].concat()).unwrap_err();
                decode_ack(
                    &encoded(&[b"\xa2\x69recipient\x61a\x63ack", &value[..]].concat()),
                    &CursorKey::new(&[7; 32]),
                )
                .unwrap_err();
            }
        }
    }
}

/// `open` and `close`, so many times, around a zero.
fn nested(open: &[u8], close: &[u8], depth: usize) -> Vec<u8> {
    [open.repeat(depth), b"\0".to_vec(), close.repeat(depth)].concat()
}

#[test]
fn nesting_is_bounded() {
    for (open, close) in [
        (&b"\x81"[..], &b""[..]),
        (b"\x9f", b"\xff"),
        (b"\xa1\0", b""),
        (b"\xbf\0", b"\xff"),
        (b"\xa1", b"\0"),
        (b"\xc1", b""),
        (b"\x81\xa1\0\xc1", b""),
    ] {
        let levels = open.iter().filter(|byte| **byte != 0).count();
        // The push itself is one level.
        let deepest = (127 - 1) / levels;
        decode(&push_with_bytes("y", &nested(open, close, deepest))).unwrap();
        refused(&push_with_bytes("y", &nested(open, close, deepest + 1)), "nested too deeply at offset");
        for depth in [deepest + 1, 1_000_000] {
            for body in
                [nested(open, close, depth), push_with_value("recipient", &nested(open, close, depth))]
            {
                decode(&body).unwrap_err();
            }
        }
    }
}

#[test]
fn tags_around_a_known_value_are_bounded_and_ignored() {
    for tags in [1, 126] {
        let recipient = [b"\xd9\xd9\xf7".repeat(tags), b"\x61a".to_vec()].concat();
        assert_eq!(decode(&push_with_value("recipient", &recipient)).unwrap().recipient.as_str(), "a");
    }
    refused(&push_with_value("recipient", &nested(b"\xc0", b"", 127)), "nested too deeply");
    // As CBOR that describes itself (RFC 8949, section 3.4.6), and as a typed array (RFC 8746).
    assert!(decode(&[b"\xd9\xd9\xf7".to_vec(), bytes_of(&push())].concat()).is_ok());
    assert_eq!(decode(&push_with_value("ciphertext", b"\xd8\x40\x42ab")).unwrap().payload, "ab");
    // A bignum stays a byte string.
    let bignum = Value::Tag(2, Box::new(Value::Bytes(vec![1; 9])));
    refused(
        &bytes_of(&push_with("meta", map([("total_len", bignum)]))),
        "meta.total_len: expected a whole number from 0 to 18446744073709551615, found a byte string at offset",
    );
}

#[test]
fn arrays_and_maps_may_have_indefinite_lengths() {
    let mut body = bytes_of(&push());
    body[0] = 0xbf;
    body.push(0xff);
    assert_eq!(decode(&body), decode_value(&push()));
    let item = [b"\xa1\x65items\x9f", &body[..], b"\xff"].concat();
    assert_eq!(decode_items(&item).unwrap(), ["alice"]);
}

#[test]
fn strings_of_indefinite_length_are_only_skipped() {
    for name in ["recipient", "ciphertext"] {
        for chunks in [&b"\x5f\x41a\xff"[..], b"\x7f\x61a\xff", b"\x5f\xff", b"\x5f"] {
            refused(&push_with_value(name, chunks), "a string of indefinite length");
        }
    }
    let key = b"\xa1\x7f\x69recipient\xff\x61a";
    refused(key, "a string of indefinite length, which the relay does not read at offset 1");
    let many_empty = [&b"\x5f"[..], &b"\x40".repeat(1_000_000), b"\xff"].concat();
    decode(&push_with_bytes("y", &many_empty)).unwrap();
    decode(&push_with_bytes("y", b"\x7f\x61a\x60\xff")).unwrap();
    let wrong: [&[u8]; 5] =
        [b"\x5f\x61a\xff", b"\x7f\x41a\xff", b"\x5f\x5f\xff\xff", b"\x5f\0\xff", b"\x5f\x81\x40\xff"];
    for wrong in wrong {
        refused(&push_with_bytes("y", wrong), "a string contains something else than its chunks");
    }
    refused(&push_with_bytes("y", b"\x7f\x61\xff\xff"), "a text string is not UTF-8");
}

/// serde would take a number for the position of a field, and bytes for its name.
#[test]
fn keys_are_text() {
    let keys: [&[u8]; 8] =
        [b"\0", b"\x01", b"\x20", b"\x49recipient", b"\xf6", b"\x80", b"\xa0", b"\xc0\x69recipient"];
    for key in keys {
        let body = [b"\xa1", key, b"\x65alice"].concat();
        refused(&body, "the body is not the expected CBOR: a key that is not a text string at offset 1");
    }
    refused(b"\xa1\x62\xff\xfe\0", "a text string is not UTF-8 at offset 1");
    // Other objects within an unknown field may have any keys.
    decode(&push_with_bytes("y", b"\xa2\0\0\x81\0\0")).unwrap();
}

#[test]
fn repeated_keys_are_refused_as_in_json() {
    let twice = |name: &str| push_with_bytes(name, b"\x61b");
    for name in ["recipient", "message_id"] {
        refused(&twice(name), &format!("duplicate field `{name}` at offset 0"));
    }
    decode(&twice("x")).unwrap();
    let Value::Map(mut fields) = meta() else { unreachable!() };
    fields.push(fields[1].clone());
    refused(&bytes_of(&push_with("meta", Value::Map(fields))), "duplicate field `total_len`");
}

#[test]
fn values_of_other_types_are_refused_with_field_and_rule() {
    let check = |bytes: &[u8], found: &str| {
        let body = push_with_value("recipient", bytes);
        refused(&body, &format!("recipient: expected a string, found {found} at offset 11"));
    };
    check(b"\0", "a number");
    check(b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "a number");
    check(b"\x20", "a negative number");
    check(b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", "a negative number");
    check(b"\xf9\x3c\0", "a floating-point number");
    check(b"\xfa\x7f\xc0\0\0", "a floating-point number");
    check(b"\xfb\x3f\xf0\0\0\0\0\0\0", "a floating-point number");
    check(b"\xf4", "a boolean");
    check(b"\xf6", "null");
    check(b"\xf7", "null");
    check(b"\x46m4rk3d", "a byte string");
    check(b"\x80", "an array");
    check(b"\xa0", "an object");
    let whole = |bytes: &[u8], found: &str| {
        let body = [b"\xa2\x69recipient\x61a\x63max", bytes].concat();
        let error = decode_pull(&encoded(&body), &CursorKey::new(&[7; 32])).unwrap_err().to_string();
        assert_eq!(error, format!("max: expected a positive whole number, found {found} at offset 17"));
    };
    whole(b"\xfb\x3f\xf0\0\0\0\0\0\0", "a floating-point number");
    whole(b"\xf9\xfc\0", "a floating-point number");
    whole(b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", "a negative number");
    whole(b"\xc2\x49\x01\0\0\0\0\0\0\0\0", "a byte string");
}

#[test]
fn optional_fields_may_be_null_or_undefined() {
    for nothing in [b"\xf6", b"\xf7"] {
        let body = [b"\xa3\x69recipient\x61a\x66cursor", &nothing[..], b"\x63max", nothing].concat();
        let request = decode_pull(&encoded(&body), &CursorKey::new(&[7; 32])).unwrap();
        assert_eq!((request.pull.after, request.pull.items_max), (None, None));
        let body = [b"\xa2\x69recipient\x61a\x6ckeepalive_ms", &nothing[..]].concat();
        decode_stream(&encoded(&body), &CursorKey::new(&[7; 32])).unwrap();
    }
}

#[test]
fn bytes_without_a_meaning_are_refused_everywhere() {
    for first in 0..=u8::MAX {
        let is_reserved = matches!(first & 0x1f, 28..=30) || matches!(first, 0x1f | 0x3f | 0xdf);
        let is_reserved = is_reserved || matches!(first, 0xe0..=0xf3 | 0xf8);
        if !is_reserved {
            continue;
        }
        let value = [&[first][..], &[0; 16]].concat();
        for body in [value.clone(), push_with_bytes("y", &value), push_with_value("recipient", &value)] {
            refused(&body, "a byte that cannot begin a value");
        }
    }
    refused(b"", "the body ends where a value is expected at offset 0");
    for (value, expected) in [
        (&b"\xff"[..], "a break where a value is expected"),
        (b"\x81\xff", "a break where a value is expected"),
        (b"\xbf\0\xff", "a break where a value is expected"),
        (b"\xc0\xff", "a break where a value is expected"),
    ] {
        refused(&push_with_bytes("y", value), expected);
        decode(value).unwrap_err();
    }
}

#[test]
fn text_is_utf_8_wherever_it_is() {
    for wrong in [&b"\x61\xff"[..], b"\x62\xc0\x80", b"\x63\xed\xa0\x80", b"\x61\xc3"] {
        refused(&push_with_value("recipient", wrong), "a text string is not UTF-8 at offset 11");
        refused(&push_with_bytes("y", wrong), "a text string is not UTF-8");
        refused(&push_with_bytes("y", &[b"\x81\xa1", wrong, b"\0"].concat()), "a text string is not UTF-8");
    }
}

#[test]
fn many_small_unknown_fields_are_skipped() {
    let count = 100_000_u32;
    let head = [&b"\xba"[..], &(count + 4).to_be_bytes()].concat();
    let fields = bytes_of(&push()).split_off(1);
    let fields = fields.strip_suffix(b"\x61x\xf6").unwrap();
    let body = [&head, fields, &b"\x61y\0".repeat(count as usize)].concat();
    assert_eq!(decode(&body), decode_value(&push()));
}

#[test]
fn a_batch_has_at_most_256_items_however_small() {
    let batch = |count: usize| {
        let head = [&b"\xa1\x65items\x9a"[..], &u32::try_from(count).unwrap().to_be_bytes()].concat();
        [head, b"\xa0".repeat(count)].concat()
    };
    let few = decode_items(&batch(BATCH_ITEMS_MAX)).unwrap();
    assert_eq!(few.len(), BATCH_ITEMS_MAX);
    for many in [BATCH_ITEMS_MAX + 1, 100_000] {
        let error = decode_items(&batch(many)).unwrap_err();
        let expected = "items: expected an array of at most 256 objects, found more at offset";
        assert!(error.starts_with(expected), "{error}");
    }
    for (whole, expected) in [
        (&b"\x80"[..], "the body: expected an object, found an array"),
        (b"\xa0", "missing field `items`"),
        (b"\xa1\x65items\xa0", "items: expected an array of at most 256 objects, found an object"),
        (b"\xa1\x65items\x81\x81", "the body ends where a value is expected"),
        (b"\xa1\x65items\x80\0", "more bytes after the value"),
        (b"\xa2\x65items\x80\x65items\x80", "duplicate field `items`"),
    ] {
        let error = decode_items(whole).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let large = Value::Array(vec![push_with("ciphertext", Value::Bytes(vec![0; 64])); 5]);
    let error = decode_items(&bytes_of(&map([("items", large)]))).unwrap_err();
    assert!(error.contains("larger than 256 bytes together"), "{error}");
}

#[test]
fn one_format_is_not_the_other() {
    let json = br#"{"recipient":"alice"}"#;
    assert!(decode_pull(&encoded(json), &CursorKey::new(&[7; 32])).is_err());
    let cbor = bytes_of(&push());
    assert!(decode_push(&Encoded::new(Format::Json, cbor), PAYLOAD_MAX).is_err());
}
