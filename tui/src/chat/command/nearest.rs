//! Which known word was meant.

use super::{TABLE, set};

/// Most edits between a word and the one that was meant.
const EDITS_MAX: usize = 2;

/// The command whose name or alias is most like `word`, slash included.
pub(super) fn command(word: &str) -> Option<&'static str> {
    let names = TABLE.iter().flat_map(|entry| [&[entry.name], entry.aliases].concat());
    nearest(word, names)
}

/// The setting whose name is most like `word`.
pub(super) fn setting(word: &str) -> Option<&'static str> {
    nearest(word, set::TABLE.iter().map(|entry| entry.name))
}

fn nearest(word: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let letters = |word: &str| word.trim_start_matches(['/', '-']).to_lowercase();
    let wanted = letters(word);
    // A long word is nobody's slip of the finger, and distances take the product of the lengths.
    if wanted.is_empty() || wanted.chars().count() > 24 {
        return None;
    }
    let near = names.filter_map(|name| {
        let known = letters(name);
        let edits = distance(&wanted, &known);
        // Of short words, most letters must be right; a beginning is always near.
        let near = edits <= EDITS_MAX && 2 * edits < known.chars().count().max(2);
        let begins = wanted.chars().count() > 1 && known.starts_with(&wanted);
        (near || begins).then_some((if begins { 0 } else { edits }, name))
    });
    near.min_by_key(|(edits, _)| *edits).map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into another
/// (Damerau's distance, each place edited once at most).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}
