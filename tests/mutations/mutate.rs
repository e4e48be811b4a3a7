//! A seed with something wrong in it, by key: the same key, the same damage.

use consistency::rng::Key;
use rand::Rng;
use std::ops::Range;

type Random = dyn rand::RngCore;

/// How a file is built, so that damage reaches what lies behind its checksums and lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    Text,
    /// Bytes.
    Binary,
    /// A length of 8 bytes, so much JSON, bytes.
    Safetensors,
    /// Chunks with a checksum each.
    Png,
}

/// What numbers become: as they stand in a file of text.
const NUMBERS: [&str; 16] = [
    "0",
    "-1",
    "1",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "4294967296",
    "99999999999",
    "1e308",
    "-1e308",
    "1e-308",
    "nan",
    "inf",
    "-inf",
    "0.5",
    "65537",
];

/// What any value of a text becomes.
const VALUES: [&str; 8] = ["null", "true", "\"\"", "[]", "{}", "[[]]", "\"nan\"", "[0, 0]"];

/// Openings of what nests.
const DEEP: [&[u8]; 7] = [b"[", b"{", b"{\"a\":", b"[[", b"\x91", b"\x81\xa1a", b"("];

/// `seed` after one to three mutations under `key`.
pub fn mutated(seed: &[u8], format: Format, key: &Key) -> Vec<u8> {
    let mut random = key.generator(0);
    let mut bytes = seed.to_vec();
    let many = [1, 1, 1, 2, 3][random.random_range(0..5)];
    for _ in 0..many {
        // A part that is left consistent with what stands around it, or anything.
        let inside = random.random_bool(0.7);
        match format {
            Format::Text => text(&mut bytes, &mut random),
            Format::Safetensors if inside => header(&mut bytes, &mut random),
            Format::Png if inside => chunk(&mut bytes, &mut random),
            _ => binary(&mut bytes, &mut random),
        }
    }
    bytes
}

fn text(bytes: &mut Vec<u8>, random: &mut Random) {
    match random.random_range(0..10) {
        0..5 => number(bytes, random),
        5 => value(bytes, random),
        6 => long(bytes, random),
        _ => binary(bytes, random),
    }
}

// A run of digits, with its sign, point and exponent.
fn number(bytes: &mut Vec<u8>, random: &mut Random) {
    let part = |b: u8| b.is_ascii_digit() || b".-+eE_".contains(&b);
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + bytes[at..].iter().take_while(|b| part(**b)).count();
        if bytes[at..end].iter().any(u8::is_ascii_digit) {
            found.push(at..end);
        }
        at = end.max(at + 1);
    }
    let Some(range) = pick(&found, random) else { return };
    let digits;
    let to: &[u8] = match random.random_range(0..18) {
        16 => {
            digits = "9".repeat(random.random_range(20..5000));
            digits.as_bytes()
        }
        17 => b"",
        which => NUMBERS[which].as_bytes(),
    };
    bytes.splice(range, to.iter().copied());
}

// What stands between a `=` or `:` and the end of its line.
fn value(bytes: &mut Vec<u8>, random: &mut Random) {
    let signs: Vec<usize> =
        (0..bytes.len()).filter(|i| bytes[*i] == b'=' || bytes[*i] == b':').collect();
    let Some(at) = pick(&signs, random) else { return };
    let stops = |b: &&u8| !b",}]\n".contains(b);
    let end = at + 1 + bytes[at + 1..].iter().take_while(stops).count();
    let to = VALUES[random.random_range(0..VALUES.len())];
    bytes.splice(at + 1..end, to.bytes());
}

// Very many letters where there were some.
fn long(bytes: &mut Vec<u8>, random: &mut Random) {
    let letters: Vec<usize> =
        (0..bytes.len()).filter(|i| bytes[*i].is_ascii_alphabetic()).collect();
    let Some(at) = pick(&letters, random) else { return };
    let count = random.random_range(100..200_000);
    bytes.splice(at..at, std::iter::repeat_n(b'x', count));
}

fn binary(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = place(bytes.len(), random);
    let span = at..(at + random.random_range(1..=64)).min(bytes.len());
    match random.random_range(0..10) {
        0 | 1 => bytes[at] ^= 1 << random.random_range(0..8),
        2 | 3 => bytes[at] = random.random(),
        4 => bytes.truncate(at),
        5 => {
            let new: Vec<u8> = (0..span.len()).map(|_| random.random()).collect();
            bytes.splice(at..at, new);
        }
        6 => {
            let twice = bytes[span].to_vec();
            bytes.splice(at..at, twice);
        }
        7 => drop(bytes.drain(span)),
        8 => integer(bytes, at, random),
        _ => {
            let what = DEEP[random.random_range(0..DEEP.len())];
            let many = what.repeat(random.random_range(10..50_000));
            bytes.splice(at..at, many);
        }
    }
}

// A number of 1 to 8 bytes at its extreme, in either order.
fn integer(bytes: &mut [u8], at: usize, random: &mut Random) {
    let extremes = [0, 1, 0x7fff_ffff, 0xffff_ffff, 99_999_999_999, 1 << 63, u64::MAX, 0x8000];
    let number: u64 = extremes[random.random_range(0..extremes.len())];
    let width = [1, 2, 4, 8][random.random_range(0..4)];
    let little = &number.to_le_bytes()[..width];
    let mut to = little.to_vec();
    if random.random_bool(0.5) {
        to.reverse();
    }
    let end = (at + width).min(bytes.len());
    bytes[at..end].copy_from_slice(&to[..end - at]);
}

// Somewhere: as often near the beginning or the end, where headers are, as anywhere.
fn place(length: usize, random: &mut Random) -> usize {
    let near = length.min(400);
    match random.random_range(0..4) {
        0 => random.random_range(0..near),
        1 => length - 1 - random.random_range(0..near),
        _ => random.random_range(0..length),
    }
}

// The JSON of a safetensors file, whose length is set to what it is then.
fn header(bytes: &mut Vec<u8>, random: &mut Random) {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return };
    let Ok(length) = usize::try_from(u64::from_le_bytes(*length)) else { return };
    let Some((json, data)) = rest.split_at_checked(length) else { return };
    let (mut json, data) = (json.to_vec(), data.to_vec());
    text(&mut json, random);
    *bytes = [(json.len() as u64).to_le_bytes().as_slice(), &json, &data].concat();
}

// A chunk of a PNG, whose length and checksum are set to what they are then.
fn chunk(bytes: &mut Vec<u8>, random: &mut Random) {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = length.iter().fold(0, |all, b| all << 8 | usize::from(*b));
        let end = at + 12 + length;
        if end > bytes.len() {
            break;
        }
        found.push(at..end);
        at = end;
    }
    let Some(range) = pick(&found, random) else { return };
    match random.random_range(0..8) {
        0 => drop(bytes.drain(range)),
        1 => {
            let twice = bytes[range.clone()].to_vec();
            bytes.splice(range.start..range.start, twice);
        }
        _ => {
            // Its name and its data.
            let mut inside = bytes[range.start + 4..range.end - 4].to_vec();
            binary(&mut inside, random);
            let length = (inside.len() as u32).saturating_sub(4).to_be_bytes();
            let sum = crc32(&inside).to_be_bytes();
            bytes.splice(range, [length.as_slice(), &inside, &sum].concat());
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    })
}

fn pick<T: Clone>(from: &[T], random: &mut Random) -> Option<T> {
    if from.is_empty() { None } else { Some(from[random.random_range(0..from.len())].clone()) }
}

#[test]
fn the_same_key_gives_the_same_damage() {
    let seed: Vec<u8> = b"weights = [1.5, 2]\nname = \"three\"\n".repeat(3);
    let key = Key::new(3).stream("test");
    let mut seen = std::collections::BTreeSet::new();
    for step in 0..200 {
        let bytes = mutated(&seed, Format::Text, &key.step(step));
        assert_eq!(bytes, mutated(&seed, Format::Text, &key.step(step)));
        seen.insert(bytes);
    }
    assert!(seen.len() > 150, "{} of 200 differ", seen.len());
    assert_eq!(crc32(b"IEND"), 0xae42_6082);
}
