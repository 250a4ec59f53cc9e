//! What XML allows.

/// A document of XML 1.0 without the characters that must not stand in one, however they are written (section 2.2).
/// Titles and texts may hold them, and a single one would have programs refuse the whole.
pub(crate) fn allowed(mut document: String) -> String {
    document.retain(|char| {
        matches!(char, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
    });
    document
}
