//! What usernames make of every code point: the tables of Unicode behind them, as one stream of bytes.

use crate::Username;
use crate::username::{enforce, stable_skeleton};

/// The planes that hold characters, now or soon.
const CODE_POINTS: [std::ops::RangeInclusive<u32>; 2] = [0..=0x3_FFFF, 0xE_0000..=0xE_0FFF];

/// What hangs on more than one code point: composition, context, direction, the case of a final sigma, and letters that
/// together look like one, and a dot above letters that have one.
const SEQUENCES: [&str; 25] = [
    "u\u{308}",
    "s\u{323}\u{307}",
    "\u{1100}\u{1161}\u{11a8}",
    "ΟΔΟΣ",
    "Σίσυφος",
    "İstanbul",
    "ISPARTA",
    "l·l",
    "a·l",
    "ア・イ",
    "क्\u{200d}ष",
    "a\u{200c}b",
    "ש׳",
    "١٢٣٤a",
    "א1",
    "aא",
    "rnodern",
    "0O1lI|",
    "i\u{307}",
    "j\u{307}",
    "ı\u{307}",
    "ȷ\u{307}",
    "і\u{307}",
    "ј\u{307}",
    "i\u{323}\u{307}",
];

impl Username {
    /// Hands over, piece by piece, what canonical forms and skeletons make of every code point that a username may hold,
    /// and of some sequences.
    ///
    /// Programs whose pieces are the same take the same texts for the same username. A library that brings newer tables
    /// of Unicode may change them, so a store remembers a hash of them, and its keys are made anew when they differ.
    pub fn tables(take: impl FnMut(&[u8])) {
        look_up_each(1, take);
    }

    /// The same of a few thousand code points, spread over all of them, in a sixtieth of the time.
    pub fn some_tables(take: impl FnMut(&[u8])) {
        look_up_each(61, take);
    }
}

/// Looks up every so-manieth code point, and the sequences.
fn look_up_each(step: usize, mut take: impl FnMut(&[u8])) {
    let mut look_up = |text: &str| {
        if let Ok(canonical) = enforce(text)
            && let Ok(skeleton) = stable_skeleton(&canonical)
        {
            // No text holds this byte, so the pieces can be told apart.
            for piece in [text, &canonical, &skeleton] {
                take(piece.as_bytes());
                take(&[0xff]);
            }
        }
    };
    for code_point in CODE_POINTS.into_iter().flatten().step_by(step).filter_map(char::from_u32) {
        look_up(code_point.encode_utf8(&mut [0; 4]));
    }
    SEQUENCES.into_iter().for_each(look_up);
}
