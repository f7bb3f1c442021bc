//! The bytes themselves: what we write is what we read, what the golden files hold, and what no
//! stream of garbage can break. `GRID_REFRESH=1` rewrites schema and golden files, on purpose.

use crate::field::{Value, draw};
use crate::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Compares a file with what it should hold, or writes it when a refresh was asked for.
fn golden(path: &Path, expected: &[u8]) {
    if std::env::var_os("GRID_REFRESH").is_some() {
        std::fs::write(path, expected).unwrap();
    }
    let found = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(found == expected, "{} differs; GRID_REFRESH=1 rewrites it", path.display());
}

fn whole(bytes: &[u8]) -> Message<'_> {
    let (frame, length) = scan(bytes, MAX_FRAME_LEN).unwrap().unwrap();
    assert_eq!(length, bytes.len());
    Message::decode(&frame).unwrap()
}

/// Members in alphabetical order, whatever order the JSON library is built to keep.
fn json(values: &[(String, Value)]) -> serde_json::Value {
    let value = |value: &Value| match value {
        // Numbers above 2^53 as text: JSON readers round them otherwise.
        Value::Number(number) => serde_json::Value::String(number.to_string()),
        Value::Text(text) => serde_json::Value::String(text.clone()),
        Value::Absent => serde_json::Value::Null,
    };
    values
        .iter()
        .map(|(name, found)| (name.clone(), value(found)))
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .collect()
}

#[test]
fn schema_file_is_the_message_table() {
    golden(&home().join("schema/grid.xml"), schema::xml().as_bytes());
}

#[test]
fn golden_files_hold_exactly_what_we_encode() {
    let samples = samples(&mut 0x6772_6964);
    assert_eq!(samples.len(), MESSAGES.len());
    for (name, bytes) in samples {
        golden(&home().join(format!("golden/{name}.bin")), &bytes);
        let message = whole(&bytes);
        let (fields, entries) = message.values();
        let mut expected = BTreeMap::from([
            ("template", name.into()),
            ("fields", json(&fields)),
            ("entries", entries.iter().map(|entry| json(entry)).collect::<Vec<_>>().into()),
        ]);
        if let Message::Terminate(_, data) | Message::DirectoryRequest(_, data) = message {
            let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
            expected.insert("data", hex.into());
        }
        let text = serde_json::to_string_pretty(&expected).unwrap() + "\n";
        golden(&home().join(format!("golden/{name}.json")), text.as_bytes());
    }
}

#[test]
fn schema_offsets_are_the_structs_offsets_without_gaps() {
    let xml = std::fs::read_to_string(home().join("schema/grid.xml")).unwrap();
    let document = roxmltree::Document::parse(&xml).unwrap();
    let width = |kind: &str| match kind {
        "u64t" | "i64t" => 8,
        "u32t" => 4,
        "u16t" | "u16opt" => 2,
        "text64t" => 64,
        _ => 1,
    };
    let check = |block: roxmltree::Node<'_, '_>, spec: &BlockSpec| {
        assert_eq!(block.attribute("blockLength").unwrap(), spec.size.to_string());
        let mut at = 0;
        let mut offsets = Vec::new();
        for field in block.children().filter(|node| node.has_tag_name("field")) {
            let offset: usize = field.attribute("offset").unwrap().parse().unwrap();
            assert_eq!(offset, at, "{} has a gap before {:?}", spec.name, field.attribute("name"));
            offsets.push(offset);
            at += width(field.attribute("type").unwrap());
        }
        assert_eq!(at, spec.size, "{}", spec.name);
        assert!(spec.fields.iter().all(|field| offsets.contains(&field.offset)), "{}", spec.name);
    };
    let messages: Vec<_> =
        document.descendants().filter(|node| node.tag_name().name() == "message").collect();
    assert_eq!(messages.len(), MESSAGES.len());
    for spec in MESSAGES {
        let id = spec.template.to_string();
        let node = messages.iter().find(|node| node.attribute("id") == Some(&id)).unwrap();
        assert_eq!(node.attribute("name"), Some(spec.block.name));
        check(*node, &spec.block);
        if let Tail::Group(_, entry) = spec.tail {
            check(node.children().find(|node| node.has_tag_name("group")).unwrap(), &entry);
        }
    }
}

#[test]
fn messages_survive_the_round_trip() {
    let mut state = 1;
    for _ in 0..200 {
        for (name, bytes) in samples(&mut state) {
            let message = whole(&bytes);
            assert_eq!(message.name(), name);
            let mut again = Vec::new();
            message.encode(&mut again);
            assert_eq!(again, bytes, "{name}");
        }
    }
}

#[test]
fn a_longer_block_from_a_newer_sender_is_read_up_to_what_we_know() {
    for (name, mut bytes) in samples(&mut 2) {
        let expected = whole(&bytes).values();
        let block = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
        bytes.splice(HEADER_LEN + block..HEADER_LEN + block, [0xAA; 16]);
        bytes[6..8].copy_from_slice(&(block as u16 + 16).to_le_bytes());
        bytes[12..14].copy_from_slice(&(SCHEMA_VERSION + 1).to_le_bytes());
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        assert_eq!(whole(&bytes).values(), expected, "{name}");
    }
}

#[test]
fn a_block_of_an_older_sender_is_read_with_zeros_for_what_it_does_not_have() {
    let mut cut = 0;
    for (name, bytes) in samples(&mut 4) {
        let spec = MESSAGES.iter().find(|spec| spec.block.name == name).unwrap();
        let mut fields = spec.block.fields.iter();
        let Some(first_new) = fields.find(|field| field.since > 1) else { continue };
        let block = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
        let mut older = bytes.clone();
        older.drain(HEADER_LEN + first_new.offset..HEADER_LEN + block);
        older[6..8].copy_from_slice(&(first_new.offset as u16).to_le_bytes());
        older[12..14].copy_from_slice(&1_u16.to_le_bytes());
        let length = older.len() as u32;
        older[..4].copy_from_slice(&length.to_le_bytes());
        let mut zeroed = bytes.clone();
        zeroed[HEADER_LEN + first_new.offset..HEADER_LEN + block].fill(0);
        assert_eq!(whole(&older), whole(&zeroed), "{name}");
        cut += 1;
    }
    assert_eq!(cut, 6, "the rejects of logins, Terminate, Reserve, Settle and ExecutionReport have grown");
}

#[test]
fn a_leader_is_named_by_any_address_and_nobody_by_zero() {
    for address in ["127.0.0.1:7000", "10.1.2.3:65535", "[2001:db8::7]:1"] {
        let address: std::net::SocketAddr = address.parse().unwrap();
        let (leader_ip, leader_port) = crate::leader_fields(Some(address));
        assert_eq!(crate::leader_address(leader_ip, leader_port), Some(address));
    }
    assert_eq!(crate::leader_fields(None), (0, 0));
    assert_eq!(crate::leader_address(0, 0), None);
    assert_eq!(crate::leader_address(0, 7), None, "nobody listens at the unspecified address");
    assert_eq!(crate::leader_address(1, 0), None);
}

#[test]
fn a_shorter_block_is_refused() {
    for (name, mut bytes) in samples(&mut 3) {
        let spec = MESSAGES.iter().find(|spec| spec.block.name == name).unwrap();
        let grown = spec.block.fields.iter().find(|field| field.since > 1);
        let block = grown.map_or(spec.block.size, |field| field.offset) as u16;
        bytes[6..8].copy_from_slice(&(block - 1).to_le_bytes());
        let (frame, _) = scan(&bytes, MAX_FRAME_LEN).unwrap().unwrap();
        assert!(matches!(Message::decode(&frame), Err(DecodeError::BlockTooShort { .. })), "{name}");
    }
}

#[test]
fn unknown_enum_values_and_flags_are_refused_by_name_and_the_number_stays_readable() {
    let order = NewOrder { client_seq: 77, ..NewOrder::default() };
    for (offset, kind) in
        [(60, "side"), (61, "orderType"), (62, "timeInForce"), (63, "selfTrade"), (64, "orderFlags")]
    {
        let mut bytes = Vec::new();
        order.encode(&mut bytes);
        bytes[HEADER_LEN + offset] = 0xEE;
        let (frame, _) = scan(&bytes, MAX_FRAME_LEN).unwrap().unwrap();
        let error = Message::decode(&frame).unwrap_err();
        assert!(error.is_value());
        assert_eq!(error, DecodeError::BadValue { message: "NewOrder", bad: BadValue { kind, value: 0xEE } });
        assert_eq!(frame.client_seq(), Some(77));
    }
}

#[test]
fn frames_are_judged_as_soon_as_their_bytes_are_there() {
    let mut bytes = Vec::new();
    NewOrder::default().encode(&mut bytes);
    for length in 0..bytes.len() {
        assert_eq!(scan(&bytes[..length], MAX_FRAME_LEN), Ok(None), "{length} bytes are no frame yet");
    }
    assert_eq!(
        scan(b"GET / HTTP/1.1", MAX_FRAME_LEN),
        Err(FrameError::BadMagic { found: u16::from_le_bytes(*b"/ ") })
    );
    let sofh = |length: u32| [&length.to_le_bytes()[..], &MAGIC.to_le_bytes()].concat();
    assert_eq!(scan(&sofh(u32::MAX), 100), Err(FrameError::TooLong { length: u32::MAX as usize, max: 100 }));
    assert_eq!(scan(&sofh(13), 100), Err(FrameError::TooShort { length: 13 }));
    bytes[10] ^= 1;
    assert!(matches!(scan(&bytes, MAX_FRAME_LEN), Err(FrameError::UnknownSchema { .. })));
}

#[test]
fn tags_hold_printable_ascii_only() {
    assert_eq!(Tag::new("my order 1").unwrap().as_str(), "my order 1");
    assert_eq!(Tag::new(&"x".repeat(64)).unwrap().as_str().len(), 64);
    assert!(Tag::new(&"x".repeat(65)).is_none() && Tag::new("naïve").is_none() && Tag::new("a\0b").is_none());
    let mut bytes = Vec::new();
    NewOrder::default().tagged(Tag::new("ab").unwrap()).encode(&mut bytes);
    let end = bytes.len();
    bytes[end - 1] = b'c';
    let (frame, _) = scan(&bytes, MAX_FRAME_LEN).unwrap().unwrap();
    assert!(Message::decode(&frame).is_err(), "nothing may stand after the padding began");
}

#[test]
fn no_bytes_at_all_make_the_decoder_panic() {
    let mut state = 0xF00D;
    let corpus: Vec<_> = samples(&mut state).into_iter().map(|(_, bytes)| bytes).collect();
    let (mut decoded, mut refused) = (0, 0);
    for round in 0..400_000_u64 {
        let mut bytes = corpus[(round % corpus.len() as u64) as usize].clone();
        for _ in 0..=draw(&mut state) % 4 {
            let at = draw(&mut state) as usize % bytes.len();
            match draw(&mut state) % 5 {
                0 => bytes[at] = draw(&mut state) as u8,
                1 => bytes[at] ^= 1 << (draw(&mut state) % 8),
                2 => bytes.truncate(at.max(1)),
                3 => bytes.insert(at, draw(&mut state) as u8),
                _ => {
                    // A plausible length keeps the frame whole, so that the body is reached.
                    let length = bytes.len() as u32;
                    if let Some(head) = bytes.first_chunk_mut::<4>() {
                        *head = length.to_le_bytes();
                    }
                }
            }
        }
        match scan(&bytes, MAX_FRAME_LEN) {
            Ok(Some((frame, length))) => {
                assert!(length <= bytes.len());
                let _ = frame.client_seq();
                match Message::decode(&frame) {
                    Ok(message) => {
                        decoded += 1;
                        let _ = message.values();
                        message.encode(&mut Vec::new());
                    }
                    Err(_) => refused += 1,
                }
            }
            Ok(None) | Err(_) => refused += 1,
        }
    }
    assert!(decoded > 10_000 && refused > 10_000, "{decoded} decoded, {refused} refused");
}
