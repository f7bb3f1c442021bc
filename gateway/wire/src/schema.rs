//! The published XML, written from the tables in `messages`, so the two cannot drift: a test
//! compares the file with what this makes. Other people's decoders then prove that the XML says
//! what our bytes are.

use crate::field::{Choice, Kind};
use crate::messages::{BlockSpec, MESSAGES, SCHEMA_ID, SCHEMA_VERSION, Tail};
use std::collections::BTreeMap;
use std::fmt::Write;

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<!-- Written from the message table in gateway/wire; refresh with GRID_REFRESH=1 cargo test -p grid-wire.
     Frame on the wire: u32 length (these 4 bytes and everything after, little-endian), u16 0xEB50
     (little-endian), messageHeader, body. Profile: named types only, explicit offsets, no gaps, no
     nested groups, variable data only in Terminate and DirectoryRequest. -->
"#;

const TYPES: &str = r#"    <composite name="messageHeader">
      <type name="blockLength" primitiveType="uint16"/>
      <type name="templateId" primitiveType="uint16"/>
      <type name="schemaId" primitiveType="uint16"/>
      <type name="version" primitiveType="uint16"/>
    </composite>
    <composite name="groupSizeEncoding">
      <type name="blockLength" primitiveType="uint16"/>
      <type name="numInGroup" primitiveType="uint16"/>
    </composite>
    <composite name="varDataEncoding">
      <type name="length" primitiveType="uint16"/>
      <type name="varData" primitiveType="uint8" length="0"/>
    </composite>
    <type name="u8t" primitiveType="uint8"/>
    <type name="u16t" primitiveType="uint16"/>
    <type name="u16opt" primitiveType="uint16" presence="optional" nullValue="65535"/>
    <type name="u32t" primitiveType="uint32"/>
    <type name="u64t" primitiveType="uint64"/>
    <type name="i64t" primitiveType="int64"/>
    <type name="text64t" primitiveType="char" length="64" characterEncoding="ASCII"/>
"#;

/// The schema as XML.
pub fn xml() -> String {
    let mut out = String::from(HEAD);
    // Writing to a String cannot fail.
    let _ = write_schema(&mut out);
    out
}

fn write_schema(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "<sbe:messageSchema xmlns:sbe=\"http://fixprotocol.io/2016/sbe\" package=\"grid\" id=\"{SCHEMA_ID}\" \
         version=\"{SCHEMA_VERSION}\" semanticVersion=\"1.0\" byteOrder=\"littleEndian\" \
         description=\"Grid binary protocol\">"
    )?;
    writeln!(out, "  <types>")?;
    out.push_str(TYPES);
    for (name, (choices, is_set)) in named_types() {
        let (tag, choice) = if is_set { ("set", "choice") } else { ("enum", "validValue") };
        writeln!(out, "    <{tag} name=\"{name}\" encodingType=\"uint8\">")?;
        for Choice { name, value, doc } in choices {
            writeln!(
                out,
                "      <{choice} name=\"{name}\" description=\"{}\">{value}</{choice}>",
                escape(doc)
            )?;
        }
        writeln!(out, "    </{tag}>")?;
    }
    writeln!(out, "  </types>")?;
    let mut messages: Vec<_> = MESSAGES.iter().collect();
    messages.sort_by_key(|message| message.template);
    for message in messages {
        let BlockSpec { name, doc, size, .. } = message.block;
        writeln!(
            out,
            "  <sbe:message name=\"{name}\" id=\"{}\" blockLength=\"{size}\" description=\"{}\">",
            message.template,
            escape(doc)
        )?;
        let mut id = write_fields(out, "    ", &message.block, 1)?;
        match message.tail {
            Tail::None => {}
            Tail::Group(group, entry) => {
                writeln!(
                    out,
                    "    <group name=\"{group}\" id=\"{id}\" dimensionType=\"groupSizeEncoding\" \
                     blockLength=\"{}\" description=\"{}\">",
                    entry.size,
                    escape(entry.doc)
                )?;
                id = write_fields(out, "      ", &entry, id + 1)?;
                let _ = id;
                writeln!(out, "    </group>")?;
            }
            Tail::Data(name) => {
                writeln!(out, "    <data name=\"{name}\" id=\"{id}\" type=\"varDataEncoding\"/>")?;
            }
        }
        writeln!(out, "  </sbe:message>")?;
    }
    writeln!(out, "</sbe:messageSchema>")
}

fn named_types() -> BTreeMap<&'static str, (&'static [Choice], bool)> {
    let mut types = BTreeMap::new();
    for message in MESSAGES {
        let entry = match message.tail {
            Tail::Group(_, entry) => entry.fields,
            _ => &[],
        };
        for field in message.block.fields.iter().chain(entry) {
            match field.kind {
                Kind::Enum(choices, name) => types.insert(name, (choices, false)),
                Kind::Set(choices, name) => types.insert(name, (choices, true)),
                Kind::Plain(_) | Kind::Words(_) => None,
            };
        }
    }
    types
}

fn write_fields(
    out: &mut String,
    indent: &str,
    block: &BlockSpec,
    first: u16,
) -> Result<u16, std::fmt::Error> {
    let mut id = first;
    for field in block.fields {
        let (name, doc) = (camel(field.name), escape(field.doc));
        let (parts, kind): (&[&str], _) = match field.kind {
            Kind::Plain(kind) | Kind::Enum(_, kind) | Kind::Set(_, kind) => (&[""], kind),
            Kind::Words(parts) => (parts, "u64t"),
        };
        for (index, part) in parts.iter().enumerate() {
            let since = match field.since {
                1 => String::new(),
                version => format!(" sinceVersion=\"{version}\""),
            };
            writeln!(
                out,
                "{indent}<field name=\"{name}{part}\" id=\"{id}\" type=\"{kind}\" offset=\"{}\"{since} description=\"{doc}\"/>",
                field.offset + 8 * index,
            )?;
            id += 1;
        }
    }
    Ok(id)
}

fn escape(doc: &str) -> String {
    doc.trim().replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// `snake_case` to `camelCase`.
pub(crate) fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for letter in name.chars() {
        match (letter, upper) {
            ('_', _) => upper = true,
            (letter, true) => {
                out.push(letter.to_ascii_uppercase());
                upper = false;
            }
            (letter, false) => out.push(letter),
        }
    }
    out
}
