//! Text of any length that compresses like text: words, some of them often.

use crate::random::Random;

const BYTES: usize = 1 << 20;
const WORDS: usize = 4000;

/// A long text, of which pieces are cut.
#[derive(Debug)]
pub(crate) struct Prose(String);

impl Prose {
    pub(crate) fn new() -> Self {
        let mut random = Random::new(0);
        let words: Vec<String> = (0..WORDS).map(|_| word(&mut random)).collect();
        let mut text = String::with_capacity(BYTES + 16);
        while text.len() < BYTES {
            // The cube of a number below one is mostly small: the first words come often.
            let word = (random.part().powi(3) * WORDS as f64) as usize;
            text += &words[word];
            text.push(' ');
        }
        Self(text)
    }

    /// So many bytes, from anywhere.
    pub(crate) fn cut(&self, bytes: usize, random: &mut Random) -> String {
        let bytes = bytes.min(self.0.len());
        let from = random.below(self.0.len() - bytes + 1);
        // All of it is ASCII, so there is a character at every byte.
        self.0[from..from + bytes].to_owned()
    }
}

fn word(random: &mut Random) -> String {
    const SYLLABLES: [&str; 24] = [
        "be", "gin", "at", "the", "ning", "and", "go", "on", "till", "you", "come", "to", "end",
        "ra", "so", "mi", "ver", "ly", "ten", "pa", "lu", "sha", "kes", "wri",
    ];
    let count = 1 + random.below(4);
    (0..count).map(|_| SYLLABLES[random.below(SYLLABLES.len())]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_as_long_as_it_was_asked_for_and_no_two_are_the_same() {
        let (prose, mut random) = (Prose::new(), Random::new(1));
        for bytes in [0, 1, 1500, BYTES] {
            assert_eq!(prose.cut(bytes, &mut random).len(), bytes);
        }
        assert_ne!(prose.cut(1500, &mut random), prose.cut(1500, &mut random));
    }
}
