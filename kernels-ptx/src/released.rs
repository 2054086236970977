//! The list of released kernels: which PTX may be taken from a file.
//!
//! PTX in a model's file is a stranger's code. It is run when its SHA-256 stands here, under the
//! contract of the program that reads it.

/// The list, a line each; see the head of the file.
const LIST: &str = include_str!("../released.txt");

/// A kernel of a released version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released<'a> {
    /// SHA-256 of its PTX, 64 digits, lower case.
    pub sha256: &'a str,
    /// Version of the contract that it keeps.
    pub contract: u32,
    /// The version of Tercet that it was first released with.
    pub version: &'a str,
    /// Entry and target: `embed.sm_80`.
    pub name: &'a str,
}

/// Every released kernel, oldest first.
pub fn released() -> impl Iterator<Item = Released<'static>> {
    read(LIST)
}

/// The kernels in the text of a list; lines that say something else are left out.
pub fn read(list: &str) -> impl Iterator<Item = Released<'_>> {
    list.lines().filter_map(line)
}

fn line(line: &str) -> Option<Released<'_>> {
    let mut words = line.split_ascii_whitespace();
    let released = Released {
        sha256: words.next().filter(|word| is_sha256(word))?,
        contract: words.next()?.parse().ok()?,
        version: words.next()?,
        name: words.next()?,
    };
    words.next().is_none().then_some(released)
}

fn is_sha256(word: &str) -> bool {
    word.len() == 64 && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::CONTRACT_VERSION;

    #[test]
    fn every_line_is_a_comment_or_a_kernel() {
        for text in LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let released = line(text).unwrap_or_else(|| panic!("no kernel: {text}"));
            assert!(released.contract <= CONTRACT_VERSION, "of the future: {text}");
        }
    }

    #[test]
    fn lines_are_read_as_they_were_meant() {
        let hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let list = std::format!("# head\n\n{hash} 3 1.2.0 qkv.sm_90a\n");
        let expected = Released { sha256: hash, contract: 3, version: "1.2.0", name: "qkv.sm_90a" };
        assert!(read(&list).eq([expected]), "{list}");
        for wrong in [
            &hash[1..],
            &std::format!("{hash} three 1.2.0 qkv"),
            &std::format!("{hash} 3 1.2.0"),
            &std::format!("{hash} 3 1.2.0 qkv and more"),
            &std::format!("{} 3 1.2.0 qkv", hash.to_uppercase()),
        ] {
            assert_eq!(read(wrong).count(), 0, "{wrong}");
        }
    }
}
