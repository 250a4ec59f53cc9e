//! Where the next page of a list begins: opaque to clients, and good for one list only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use read_model::{ListName, Place};

/// Says how the rest is written, so that a later form can tell the cursors of this one.
const VERSION: u8 = 1;

/// The cursor behind a place.
pub(crate) fn encode(list: &ListName, place: Place) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(format!("{list}\n{place}").as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The place that a cursor of this list stands behind; `None` if it is another list's, or no cursor.
pub(crate) fn decode(list: &ListName, cursor: &str) -> Option<Place> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (version, text) = bytes.split_first()?;
    let (name, place) = std::str::from_utf8(text).ok()?.split_once('\n')?;
    (*version == VERSION && name == list.to_string()).then(|| place.parse().ok())?
}

#[cfg(test)]
mod tests {
    use domain::post::TagSlug;

    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place_in_its_list_alone() {
        let place: Place = "000650f7c1a2b3c4:0192f0c1-2d3e-7f4a-8b5c-6d7e8f901234".parse().unwrap();
        let rust = ListName::Tag(TagSlug::of("rust").unwrap());
        let cursor = encode(&rust, place);
        assert_eq!(decode(&rust, &cursor), Some(place));
        assert_eq!(decode(&ListName::Published, &cursor), None);
        assert_eq!(decode(&ListName::Tag(TagSlug::of("rust-lang").unwrap()), &cursor), None);
    }

    #[test]
    fn what_is_no_cursor_leads_nowhere() {
        let list = ListName::Published;
        let other_version = URL_SAFE_NO_PAD
            .encode(b"\x02published\n000650f7c1a2b3c4:0192f0c1-2d3e-7f4a-8b5c-6d7e8f901234");
        let no_place = URL_SAFE_NO_PAD.encode(b"\x01published\nlast");
        for bad in ["", "AQ", "?", "AXB1Ymxpc2hlZAo=", &other_version, &no_place] {
            assert_eq!(decode(&list, bad), None, "{bad}");
        }
    }
}
