//! The block list: passwords that everybody tries first.

use std::cmp::Ordering;

/// One password a line, lower case, in byte order. Where it comes from and its licence: `data/README.md`.
const LIST: &str = include_str!("data/common_passwords.txt");

/// The longest of them, in bytes.
const LONGEST: usize = 45;

/// Code points up to which a repeated unit makes a password common whatever the unit is.
const SHORT_UNIT: usize = 4;

/// Whether the lower-case password is listed, or is a listed one made longer without becoming harder to guess: repeated, set beside
/// another listed one, or followed by digits and punctuation that are at most half of it. A unit of up to four characters over and
/// over counts too.
pub(crate) fn is_common(folded: &str) -> bool {
    is_listed(folded) || is_repetition(folded) || is_pair(folded) || is_padded(folded)
}

/// Halves the list, line by line, until the word or nothing is left.
fn is_listed(word: &str) -> bool {
    let mut rest = if word.len() > LONGEST { "" } else { LIST };
    while !rest.is_empty() {
        let (before, after) = rest.split_at_checked(rest.len() / 2).unwrap_or((rest, ""));
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = after.find('\n').map_or(rest.len(), |newline| before.len() + newline);
        match rest.get(start..end).map(|line| word.cmp(line)) {
            Some(Ordering::Equal) => return true,
            Some(Ordering::Less) => rest = rest.get(..start).unwrap_or(""),
            Some(Ordering::Greater) => rest = rest.get(end + 1..).unwrap_or(""),
            None => return false,
        }
    }
    false
}

fn is_repetition(text: &str) -> bool {
    text.char_indices().map(|(position, _)| position).enumerate().skip(1).any(|(code_points, position)| {
        let Some(unit) = text.get(..position) else { return false };
        position * 2 <= text.len()
            && text.as_bytes().chunks(position).all(|chunk| chunk == unit.as_bytes())
            && (code_points <= SHORT_UNIT || is_listed(unit))
    })
}

fn is_pair(text: &str) -> bool {
    text.char_indices()
        .filter_map(|(position, _)| text.split_at_checked(position))
        .any(|(first, second)| second.len() <= LONGEST && is_listed(first) && is_listed(second))
}

fn is_padded(text: &str) -> bool {
    let stem = text.trim_end_matches(|character: char| !character.is_alphabetic());
    let from_half = text.char_indices().map(|(position, _)| position).filter(|position| {
        *position >= stem.len() && text.get(..*position).is_some_and(|head| head.chars().any(char::is_alphabetic))
    });
    let total = text.chars().count();
    from_half
        .filter_map(|position| text.get(..position))
        .any(|head| head.chars().count() * 2 >= total && is_listed(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_folded_and_long_enough() {
        let lines: Vec<_> = LIST.lines().collect();
        assert!(lines.len() > 3_000);
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(lines.iter().all(|line| line.len() >= 8 && line.is_ascii() && line.to_lowercase() == **line));
        assert!(lines.iter().filter(|line| line.len() >= 15).count() >= 140);
    }

    #[test]
    fn every_line_is_found_and_its_neighbours_are_not() {
        for line in LIST.lines() {
            assert!(is_listed(line) && line.len() <= LONGEST, "{line}");
            assert!(!is_listed(&format!("{line}\u{1}")), "{line}");
        }
        assert!(!is_listed(""));
        assert!(!is_listed("\n"));
        assert!(!is_listed("password\n"));
        assert!(!is_listed("~~~~~~~~~"));
        assert!(!is_listed("пароль"));
    }

    #[test]
    fn a_common_password_made_longer_stays_common() {
        for password in [
            "passwordpassword",
            "passwordpasswordpassword",
            "footballbaseball",
            "password1234567",
            "password!!!!!!!!",
            "q1w2e3r4t5-2026",
            "aaaaaaaaaaaaaaa",
            "éééééééééééééééé",
            "1234123412341234",
            "correcthorsebatterystaple",
        ] {
            assert!(is_common(password), "{password}");
        }
        for password in [
            "",
            "a",
            "tide lemon rocket",
            "sunshine over the hills",
            "password 29384756 10293847",
            "29384756102938475",
            "my own football team",
        ] {
            assert!(!is_common(password), "{password}");
        }
    }
}
