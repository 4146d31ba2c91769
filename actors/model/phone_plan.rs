//! Numbering plans: where a phone number belongs, and what kind of line it is.

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberType, Region};
use serde::{Deserialize, Serialize};

use crate::Phone;

/// What kind of line a number is, by the plan of its country (ITU-T E.164, metadata of libphonenumber).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PhoneKind {
    /// A line at a place.
    FixedLine,
    /// A mobile phone.
    Mobile,
    /// One of the two: the plan, such as the one of North America, does not tell them apart.
    FixedLineOrMobile,
    /// The called side pays.
    TollFree,
    /// The calling side pays more than for other calls, and the called side earns by it.
    PremiumRate,
    /// Both sides pay.
    SharedCost,
    /// A line over the internet.
    Voip,
    /// A number that follows a person; calling it may cost like a premium rate.
    Personal,
    /// A pager.
    Pager,
    /// One number for the places of a company (universal access number).
    UniversalAccess,
    /// Where a voice mailbox is listened to.
    Voicemail,
    /// The plan does not say.
    Unknown,
}

impl PhoneKind {
    /// The stable word, the same as the serialised form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FixedLine => "fixed_line",
            Self::Mobile => "mobile",
            Self::FixedLineOrMobile => "fixed_line_or_mobile",
            Self::TollFree => "toll_free",
            Self::PremiumRate => "premium_rate",
            Self::SharedCost => "shared_cost",
            Self::Voip => "voip",
            Self::Personal => "personal",
            Self::Pager => "pager",
            Self::UniversalAccess => "universal_access",
            Self::Voicemail => "voicemail",
            Self::Unknown => "unknown",
        }
    }
}

impl From<PhoneNumberType> for PhoneKind {
    fn from(kind: PhoneNumberType) -> Self {
        match kind {
            PhoneNumberType::FixedLine => Self::FixedLine,
            PhoneNumberType::Mobile => Self::Mobile,
            PhoneNumberType::FixedLineOrMobile => Self::FixedLineOrMobile,
            PhoneNumberType::TollFree => Self::TollFree,
            PhoneNumberType::PremiumRate => Self::PremiumRate,
            PhoneNumberType::SharedCost => Self::SharedCost,
            PhoneNumberType::VoIP => Self::Voip,
            PhoneNumberType::PersonalNumber => Self::Personal,
            PhoneNumberType::Pager => Self::Pager,
            PhoneNumberType::UAN => Self::UniversalAccess,
            PhoneNumberType::VoiceMail => Self::Voicemail,
            PhoneNumberType::Unknown => Self::Unknown,
        }
    }
}

impl Phone {
    /// The region that the number belongs to (ISO 3166-1 alpha-2, such as `GB`); `001` for numbers of no country, such
    /// as those of satellites. `None` if no plan knows the number.
    #[must_use]
    pub fn region(&self) -> Option<String> {
        PHONE_NUMBER_UTIL.get_region_for_number(&self.number()?).map(|region| region.to_string())
    }

    /// The calling code of its country, such as 44. Several regions may share one, as those of North America do.
    #[must_use]
    pub fn calling_code(&self) -> Option<u16> {
        u16::try_from(self.number()?.country_code).ok()
    }

    /// What kind of line it is.
    #[must_use]
    pub fn kind(&self) -> PhoneKind {
        self.number().map_or(PhoneKind::Unknown, |number| PHONE_NUMBER_UTIL.get_number_type(&number).into())
    }

    /// Whether there is such a region (`GB`) or calling code (`+44`). Lower case is none.
    #[must_use]
    pub fn is_area(area: &str) -> bool {
        if let Some(code) = area.strip_prefix('+') {
            let fits = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_digit()) && !code.starts_with('0');
            let known = |code| PHONE_NUMBER_UTIL.get_regions_for_country_calling_code(code).is_some();
            return fits && code.parse().is_ok_and(known);
        }
        let is_upper = area.bytes().all(|byte| byte.is_ascii_uppercase());
        let known = |region| PHONE_NUMBER_UTIL.get_country_code_for_region(region).is_some();
        is_upper && Region::from_code(area).is_ok_and(known)
    }

    fn number(&self) -> Option<PhoneNumber> {
        PHONE_NUMBER_UTIL.parse(self.canonical(), None).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_and_kind_are_those_of_the_plan() {
        // The examples of libphonenumber's own metadata and tests.
        for (number, region, code, kind) in [
            ("+447912345678", "GB", 44, PhoneKind::Mobile),
            ("+442070313000", "GB", 44, PhoneKind::FixedLine),
            ("+447781123456", "GG", 44, PhoneKind::Mobile),
            ("+448001234567", "GB", 44, PhoneKind::TollFree),
            ("+449187654321", "GB", 44, PhoneKind::PremiumRate),
            ("+33810123456", "FR", 33, PhoneKind::SharedCost),
            ("+445631231234", "GB", 44, PhoneKind::Voip),
            ("+447031231234", "GB", 44, PhoneKind::Personal),
            ("+447640123456", "GB", 44, PhoneKind::Pager),
            ("+445512345678", "GB", 44, PhoneKind::UniversalAccess),
            ("+12015550123", "US", 1, PhoneKind::FixedLineOrMobile),
            ("+19002345678", "US", 1, PhoneKind::PremiumRate),
            ("+14165550123", "CA", 1, PhoneKind::FixedLineOrMobile),
            ("+18765230123", "JM", 1, PhoneKind::FixedLineOrMobile),
            ("+4915123456789", "DE", 49, PhoneKind::Mobile),
            ("+499001234567", "DE", 49, PhoneKind::PremiumRate),
            ("+393123456789", "IT", 39, PhoneKind::Mobile),
            ("+77710009998", "KZ", 7, PhoneKind::Mobile),
            ("+979123456789", "001", 979, PhoneKind::PremiumRate),
        ] {
            let phone = Phone::parse(number).unwrap_or_else(|reason| panic!("{number}: {reason}"));
            let found = (phone.region(), phone.calling_code(), phone.kind());
            assert_eq!(found, (Some(region.to_owned()), Some(code), kind), "{number}");
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        let nowhere = Phone::from_stored("+4".to_owned(), String::new());
        assert_eq!((nowhere.region(), nowhere.calling_code(), nowhere.kind()), (None, None, PhoneKind::Unknown));
    }

    #[test]
    fn an_area_is_a_region_or_a_calling_code() {
        for area in ["GB", "US", "GG", "+44", "+1", "+881", "+979"] {
            assert!(Phone::is_area(area), "{area}");
        }
        for none in ["", "+", "gb", "XX", "UK", "GBR", "001", "44", "+999", "+044", "++44", "+4 4", "+99999999999", "*"]
        {
            assert!(!Phone::is_area(none), "{none}");
        }
    }
}
