//! Bodies and queries as HTML forms send them, which is how Stripe wants its parameters.

/// `a=1&b%5Bc%5D=x+y`.
pub(crate) fn encode(fields: &[(&str, String)]) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        if !out.is_empty() {
            out.push('&');
        }
        append(&mut out, name);
        out.push('=');
        append(&mut out, value);
    }
    out
}

fn append(out: &mut String, text: &str) {
    for &byte in text.as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => out.push(byte as char),
            b' ' => out.push('+'),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(HEX[usize::from(byte >> 4)] as char);
                out.push(HEX[usize::from(byte & 15)] as char);
            }
        }
    }
}

/// A segment of a path that is nothing but a name.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_escaped() {
        let fields = [("amount", "2000".to_owned()), ("metadata[reload]", "a b&c=é".to_owned())];
        assert_eq!(encode(&fields), "amount=2000&metadata%5Breload%5D=a+b%26c%3D%C3%A9");
        assert!(is_name("pi_3Abc") && !is_name("") && !is_name("pi/../x"));
    }
}
