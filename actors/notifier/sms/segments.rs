//! Segments: how many text messages a text is sent and paid as (3GPP TS 23.038 and 23.040).

/// The basic alphabet of GSM 7-bit, without its escape character.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?\
                     ¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// What the extension table adds; each takes two places.
const EXTENSION: &str = "\u{c}^{}\\[~]|€";

/// How many segments a text takes. One too, if it is empty.
pub(super) fn count(text: &str) -> usize {
    let septets: Option<Vec<usize>> = text.chars().map(septets_of).collect();
    match septets {
        Some(sizes) => packed(&sizes, 160, 153),
        None => packed(&text.chars().map(char::len_utf16).collect::<Vec<_>>(), 70, 67),
    }
}

/// `None` for a character that GSM 7-bit has not.
fn septets_of(character: char) -> Option<usize> {
    match character {
        _ if BASIC.contains(character) => Some(1),
        _ if EXTENSION.contains(character) => Some(2),
        _ => None,
    }
}

/// What does not fit into one is divided, each part a little shorter by its header. No character is cut in two.
fn packed(sizes: &[usize], alone: usize, divided: usize) -> usize {
    if sizes.iter().sum::<usize>() <= alone {
        return 1;
    }
    let (mut segments, mut used) = (1, 0);
    for size in sizes {
        if used + size > divided {
            (segments, used) = (segments + 1, 0);
        }
        used += size;
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_counted_as_networks_do() {
        assert_eq!(BASIC.chars().count(), 127);
        for (text, segments) in [
            (String::new(), 1),
            ("x".repeat(160), 1),
            ("x".repeat(161), 2),
            ("ä\n".repeat(153), 2),
            ("x".repeat(307), 3),
            ("x".repeat(459), 3),
            ("x".repeat(460), 4),
            ("€".repeat(80), 1),
            ("€".repeat(81), 2),
            // 153 is odd: an escaped character does not straddle, so each segment takes 76.
            ("€".repeat(152), 2),
            ("€".repeat(153), 3),
            ("ç".repeat(70), 1),
            ("ç".repeat(71), 2),
            ("ж".repeat(134), 2),
            ("ж".repeat(135), 3),
            (["x".repeat(70).as_str(), "“"].concat(), 2),
            ("😀".repeat(35), 1),
            ("😀".repeat(36), 2),
            ("😀".repeat(66), 2),
            ("😀".repeat(67), 3),
        ] {
            assert_eq!(count(&text), segments, "{} of {:?}", text.chars().count(), text.chars().next());
        }
    }
}
