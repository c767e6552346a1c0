//! Scalars as `TensorBoard` reads them: event records in the `TFRecord` framing. Knows no metric and no clock.
//!
//! About a hundred lines instead of a crate: those that exist bring a protobuf compiler or image codecs, for three
//! fields of one message. The wall time of an event is its step, because a result must not depend on a clock;
//! `TensorBoard` then shows steps on both axes.

/// The whole records of a file of ours up to `step`; the version record alone for an empty file. A torn record and
/// what follows it are left out.
pub fn records_until(mut bytes: &[u8], step: u64) -> Vec<u8> {
    const OVERHEAD: usize = 16;
    let mut kept = version_record();
    while let Some(len) = bytes.first_chunk().map(|raw| u64::from_le_bytes(*raw) as usize) {
        let Some((record, rest)) = len
            .checked_add(OVERHEAD)
            .and_then(|len| bytes.split_at_checked(len))
        else {
            break;
        };
        // Length and its checksum are 12 bytes, the event's first key is one; then comes the wall time, our step.
        let wall_time = record
            .get(13..)
            .and_then(<[u8]>::first_chunk)
            .map(|raw| f64::from_le_bytes(*raw));
        if wall_time.is_some_and(|wall_time| (1.0..=step as f64).contains(&wall_time)) {
            kept.extend(record);
        }
        bytes = rest;
    }
    kept
}

/// The record every event file begins with.
fn version_record() -> Vec<u8> {
    let mut event = Vec::new();
    put_double(&mut event, 1, 0.0);
    put_bytes(&mut event, 3, b"brain.Event:2");
    frame(&event)
}

/// One scalar of one step as a record.
pub fn scalar_record(step: u64, tag: &str, value: f32) -> Vec<u8> {
    let mut summary_value = Vec::new();
    put_bytes(&mut summary_value, 1, tag.as_bytes());
    put_key(&mut summary_value, 2, WIRE_32);
    summary_value.extend(value.to_le_bytes());
    let mut summary = Vec::new();
    put_bytes(&mut summary, 1, &summary_value);
    let mut event = Vec::new();
    put_double(&mut event, 1, step as f64);
    put_key(&mut event, 2, WIRE_VARINT);
    put_varint(&mut event, step);
    put_bytes(&mut event, 5, &summary);
    frame(&event)
}

const WIRE_VARINT: u64 = 0;
const WIRE_64: u64 = 1;
const WIRE_BYTES: u64 = 2;
const WIRE_32: u64 = 5;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_key(out: &mut Vec<u8>, field: u64, wire: u64) {
    put_varint(out, field << 3 | wire);
}

fn put_double(out: &mut Vec<u8>, field: u64, value: f64) {
    put_key(out, field, WIRE_64);
    out.extend(value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(out, field, WIRE_BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// `TFRecord` framing: length, its checksum, the data, its checksum.
fn frame(data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u64).to_le_bytes();
    let mut record = len.to_vec();
    record.extend(masked_crc(&len).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// CRC-32C, rotated and shifted as `TFRecord` asks for, so that a checksum of data with checksums in it stays useful.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads back what the writer wrote, by the format's description and not by the writer's code.
    fn parse(mut bytes: &[u8]) -> Vec<(u64, String, f32)> {
        let mut scalars = Vec::new();
        while !bytes.is_empty() {
            let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let stored = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let expected = |part: &[u8]| {
                let crc = crc32c::crc32c(part);
                crc.rotate_left(17).wrapping_add(0xa282_ead8)
            };
            assert_eq!(stored(8), expected(&bytes[..8]));
            let event = &bytes[12..12 + len];
            assert_eq!(stored(12 + len), expected(event));
            if event[9] == 0x10 {
                // After the wall time: step as a varint (below 128 in this test), then the summary.
                let (step, value) = (u64::from(event[10]), &event[13..]);
                // value: 0x0a, length, 0x0a, length of tag, tag, 0x15, float.
                let tag_len = value[3] as usize;
                let tag = String::from_utf8(value[4..4 + tag_len].to_vec()).unwrap();
                let float = f32::from_le_bytes(value[5 + tag_len..9 + tag_len].try_into().unwrap());
                scalars.push((step, tag, float));
            } else {
                assert_eq!(&event[9..], b"\x1a\x0dbrain.Event:2");
            }
            bytes = &bytes[16 + len..];
        }
        scalars
    }

    #[test]
    fn records_are_read_back() {
        let mut file = version_record();
        file.extend(scalar_record(7, "eval/mse", 0.25));
        file.extend(scalar_record(100, "train/loss", -3.5));
        let expected = [
            (7, "eval/mse".to_owned(), 0.25),
            (100, "train/loss".to_owned(), -3.5),
        ];
        assert_eq!(parse(&file), expected);
    }

    #[test]
    fn records_after_a_step_are_forgotten() {
        let kept = [version_record(), scalar_record(7, "loss", 1.0)].concat();
        let mut file = kept.clone();
        file.extend(scalar_record(8, "loss", 2.0));
        file.extend(&scalar_record(8, "torn", 2.0)[..20]);
        assert_eq!(records_until(&file, 7), kept);
        assert_eq!(records_until(&[], 7), version_record());
        assert_eq!(parse(&records_until(&file, 8)).len(), 2);
    }

    #[test]
    fn the_checksum_is_the_published_one() {
        // The first record of every file that TensorFlow writes begins with the length 24 and this checksum.
        let crc = masked_crc(&24_u64.to_le_bytes());
        assert_eq!(crc.to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
    }
}
