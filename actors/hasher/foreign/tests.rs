//! What other systems made is read and matched by the right password alone, at a bounded cost.

mod vectors;

use proptest::prelude::*;

use super::super::kernel::{HashKernel, Input, Kernel};
use super::super::parameters::HashParameters;
use super::*;
use vectors::*;

/// Reads what was taken in of a text.
fn parse(text: &str) -> Result<ForeignHash, HashProblem> {
    let taken = take_in(text, &Ceiling::default())?;
    ForeignHash::parse(&taken.text, &Ceiling::default())
}

/// Whether a password is that of a text, as a hash thread would find.
fn matches(password: &[u8], text: &str) -> bool {
    match parse(text).unwrap_or_else(|problem| panic!("{text}: {problem:?}")) {
        ForeignHash::Argon2(stored) => {
            let mut tag = vec![0; stored.tag.len()];
            let mut kernel = Kernel::new(HashKernel::Argon2, &HashParameters::cheap_for_tests());
            kernel.compute(&Input::new(&stored.recipe, password, &stored.salt), &mut tag).unwrap();
            tag == stored.tag
        }
        #[cfg(feature = "foreign-hashes")]
        ForeignHash::Other(other) => other.matches(password).unwrap(),
    }
}

/// Each vector matches, and no change of its password does.
fn assert_vectors(vectors: &[Vector]) {
    for (password, text) in vectors {
        assert!(matches(password, text), "{text}");
        let [mut longer, mut changed] = [password.to_vec(), password.to_vec()];
        longer.push(b'z');
        assert!(!matches(&longer, text), "{text}");
        if let Some(first) = changed.first_mut() {
            *first ^= 1;
            assert!(!matches(&changed, text), "{text}");
            assert!(!matches(&password[..password.len() - 1], text), "{text}");
        }
    }
}

/// What a text is refused for.
fn problem(text: &str) -> Option<HashProblem> {
    parse(text).err()
}

#[test]
fn argon2_of_others_matches_and_is_told_from_our_own() {
    assert_vectors(ARGON2);
    for (_, text) in ARGON2 {
        let taken = take_in(text, &Ceiling::default()).ok().unwrap();
        assert!(taken.text.starts_with("argon2$argon2") && taken.scheme == "argon2", "{text}");
    }
    let dear = |text: &str| problem(text) == Some(HashProblem::TooDear);
    for edit in ["m=262145,t=2,p=1", "m=19456,t=11,p=1", "m=19456,t=2,p=9"] {
        assert!(dear(&format!("$argon2id$v=19${edit}$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4")));
    }
}

#[test]
fn what_has_no_shape_is_not_recognised() {
    let long = format!("$1$saltsalt${}", "a".repeat(600));
    for text in ["", "password", "$", "$x$", "$argon2id$", "argon2", "$2x$05$", "{CRYPT}", "{CRYPT}secret", &long] {
        assert_eq!(problem(text), Some(HashProblem::Unrecognised), "{text}");
    }
}

#[cfg(not(feature = "foreign-hashes"))]
#[test]
fn what_is_not_built_in_is_told_as_that() {
    for (prefix, _) in FAMILIES {
        assert_eq!(problem(prefix), Some(HashProblem::NotBuiltIn), "{prefix}");
    }
}

#[cfg(feature = "foreign-hashes")]
mod built_in {
    use super::*;

    const ALL: [&[Vector]; 12] =
        [LDAP, MD5_CRYPT, PHPASS, SHA_CRYPT, PBKDF2, SCRYPT, BCRYPT, DJANGO_BCRYPT, DJANGO, ASPNET, FIREBASE, CRYPT];

    #[test]
    fn ldap_matches_what_others_made() {
        assert_vectors(LDAP);
    }

    #[test]
    fn md5_crypt_matches_what_others_made() {
        assert_vectors(MD5_CRYPT);
    }

    #[test]
    fn phpass_matches_what_others_made() {
        assert_vectors(PHPASS);
    }

    #[test]
    fn sha_crypt_matches_what_others_made() {
        assert_vectors(SHA_CRYPT);
    }

    #[test]
    fn pbkdf2_matches_what_others_made() {
        assert_vectors(PBKDF2);
    }

    #[test]
    fn scrypt_matches_what_others_made() {
        assert_vectors(SCRYPT);
    }

    #[test]
    fn bcrypt_matches_what_others_made() {
        assert_vectors(BCRYPT);
    }

    #[test]
    fn django_s_bcrypt_matches_what_django_made() {
        assert_vectors(DJANGO_BCRYPT);
    }

    #[test]
    fn what_django_s_own_tests_hold_matches() {
        assert_vectors(DJANGO);
    }

    #[test]
    fn asp_net_identity_matches_what_it_made() {
        assert_vectors(ASPNET);
    }

    #[test]
    fn firebase_matches_its_published_sample() {
        assert_vectors(FIREBASE);
    }

    #[test]
    fn what_crypt_of_the_system_and_openssl_made_matches_behind_ldap_s_prefix_too() {
        assert_vectors(CRYPT);
        for (password, text) in CRYPT {
            assert!(matches(password, &format!("{{CRYPT}}{text}")), "{text}");
        }
    }

    #[test]
    fn bcrypt_reads_72_bytes_and_is_told_whether_more_were_cut() {
        for (password, text) in BCRYPT_CUT {
            assert!(!matches(password, text), "what bcrypt does not read is a part of the password");
            // The same hash is that of the first 72 bytes alone, and of whatever follows them where that was cut.
            assert!(matches(&password[..72], text));
            let cut = format!("{{TRUNCATE72}}{text}");
            let mut other = password[..72].to_vec();
            other.extend(b"something else");
            assert!(matches(password, &cut) && matches(&other, &cut) && matches(&password[..72], &cut));
            assert!(!matches(&password[..71], &cut));
            assert!(matches(&other, &format!("bcrypt${text}")), "Django's is of a system that cut");
        }
        let (password, text) = BCRYPT[0];
        let zero = [password, b"\0more"].concat();
        assert!(!matches(&zero, text) && !matches(&zero, &format!("{{TRUNCATE72}}{text}")), "a zero ends nothing here");
    }

    #[test]
    fn no_family_is_read_above_its_ceiling() {
        let digits = |count| "a".repeat(count);
        let (d22, d43, d86) = (digits(22), digits(43), digits(86));
        let tag = "A".repeat(86);
        let bcrypt = |cost: u32| format!("$2b${cost:02}${}u{}", digits(21), digits(31));
        let scrypt = |costs: &str| format!("$scrypt${costs}$c2FsdHNhbHQ$d9ZXYjhleyA7GcpCwYoEl/FrSETjB0ro39/6P+3iFEI");
        let firebase = |costs: &str| FIREBASE[0].1.replace("ln=14,r=8", costs);
        let sha1 = |rounds: u32| format!("$pbkdf2${rounds}$c2FsdA$y5LKPOplRmok7CZp/aqVDVg8zGI");
        let django = |rounds: &str| format!("pbkdf2_sha256${rounds}$salt$r1uLUxoxpP2Ued/qxvmje7UH9PUJBkRrvf9gGPL7Cps=");
        // Two blocks of SHA-1 cost twice.
        let aspnet = |rounds: [u8; 4]| {
            use base64::Engine;
            let blob = [&[1, 0, 0, 0, 0][..], &rounds, &[0, 0, 0, 16], &[7; 16], &[9; 32]].concat();
            base64::engine::general_purpose::STANDARD.encode(blob)
        };
        let pairs = [
            (bcrypt(14), bcrypt(15)),
            (bcrypt(4), bcrypt(31)),
            (format!("bcrypt_sha256${}", bcrypt(14)), format!("bcrypt_sha256${}", bcrypt(15))),
            (scrypt("ln=18,r=8,p=1"), scrypt("ln=18,r=8,p=2")),
            (scrypt("ln=14,r=8,p=16"), scrypt("ln=14,r=8,p=17")),
            (scrypt("ln=18,r=8,p=1"), scrypt("ln=20,r=4,p=1")),
            (scrypt("ln=18,r=8,p=1"), scrypt("ln=63,r=4294967295,p=4294967295")),
            (scrypt("ln=18,r=8,p=1"), scrypt("ln=64,r=8,p=1")),
            (scrypt("ln=1,r=8,p=2"), scrypt("ln=1,r=1048576,p=1")),
            // Whatever is mixed, PBKDF2 is to make no more than 2 MiB of each password.
            (scrypt("ln=1,r=4096,p=4"), scrypt("ln=1,r=262144,p=4")),
            (scrypt("ln=1,r=16384,p=1"), scrypt("ln=1,r=16385,p=1")),
            (scrypt("ln=7,r=1,p=16384"), scrypt("ln=6,r=1,p=16385")),
            (firebase("ln=1,r=16384"), firebase("ln=1,r=16385")),
            (format!("scrypt$262144$salt$8$1${tag}"), format!("scrypt$1073741824$salt$8$1${tag}")),
            (firebase("ln=18,r=8"), firebase("ln=20,r=8")),
            (sha1(2_000_000), sha1(2_000_001)),
            (django("2000000"), django("99999999999")),
            (aspnet(1_000_000_u32.to_be_bytes()), aspnet(1_000_001_u32.to_be_bytes())),
            (format!("$5$rounds=1000000$salt${d43}"), format!("$5$rounds=1000001$salt${d43}")),
            (format!("$6$rounds=1000000$salt${d86}"), format!("$6$rounds=999999999$salt${d86}")),
            (format!("$P$Iabcdefgh{d22}"), format!("$P$Jabcdefgh{d22}")),
        ];
        for (dearest, too_dear) in pairs {
            assert_eq!(problem(&dearest), None, "{dearest}");
            assert_eq!(problem(&too_dear), Some(HashProblem::TooDear), "{too_dear}");
        }
    }

    #[test]
    fn the_memory_of_scrypt_is_held_to_the_ceiling_that_is_set() {
        let text = "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofI";
        let ceiling = |memory_kib| Ceiling { memory_kib, ..Ceiling::default() };
        assert_eq!(take_in(text, &ceiling(15 * 1_024)).err(), Some(HashProblem::TooDear));
        assert!(take_in(text, &ceiling(16 * 1_024)).is_ok());
    }

    #[test]
    fn what_is_nearly_a_shape_is_not_recognised() {
        let texts = [
            // passlib holds these for malformed.
            "{SSHA}ZQK3Yvtvl6wtIRoISgMGPkcWU7Nfq5U=",
            "{SSHA}P90+qijSp8MJ1tN25j5o1Pf=UvlqjXHOGeOckw==",
            "{SSHA256}TFv2RpwyO0U9mA0Hk8FsXRa1I+4dNUtv27Qa8dzGVLinlDI@",
            "$5$rounds=010428$uy/jIAhCetNCTtb0$YWvUOXbkqlqhyoPMpN8BMe.ZGsGx2aBvxTvDFI613c3",
            "$5$rounds=10428$uy/jIAhCetNCTtb0$YWvUOXbkqlqhyoPMpN8BMe.ZGsGx2aBvxTvDFI613c3$",
            "$5$rounds=10428$uy/:jIAhCetNCTtb0$YWvUOXbkqlqhyoPMpN8BMeZGsGx2aBvxTvDFI613c3",
            "$pbkdf2$01212$THDqatpidANpadlLeTeOEg$HV3oi1k5C5LQCgG1BMOL.BX4YZc",
            "$pbkdf2$$THDqatpidANpadlLeTeOEg$HV3oi1k5C5LQCgG1BMOL.BX4YZc",
            "$pbkdf2$1212$THDqatpidANpadlLeTeOEg$HV3oi1k5C5LQCgG1BMOL.BX4YZc$",
            "$scrypt$ln=10,r=1$wvif8/4fg1Cq9V7L2dv73w$bJcLia1lyfQ1X2x0xflehwVXPzWIUQWWdnlGwfVzBeQ",
            "$scrypt$ln=0,r=1,p=1$wvif8/4fg1Cq9V7L2dv73w$bJcLia1lyfQ1X2x0xflehwVXPzWIUQWWdnlGwfVzBeQ",
            "$scrypt$ln=10,r=A,p=1$wvif8/4fg1Cq9V7L2dv73w$bJcLia1lyfQ1X2x0xflehwVXPzWIUQWWdnlGwfVzBeQ",
            "bcrypt_sha256$xyz$2a$06$/3OeRpbOf8/l6nPPRdZPp.nRiyYqPobEZGdNRBWihQhiFDh1ws1tu",
            // ASP.NET Core holds these for failures.
            "AAABAgMEBQYHCAkKCwwNDg+ukCEMDf0yyQ29NYubggE=",
            "AAABAgMEBQYHCAkKCwwNDg+ukCEMDf0yyQ29NYubggHIVY0sdEUfdyeM+E1LtH1uJgAAAAAAAAAAAAA=",
            // Nothing is unsalted.
            "$1$$qRPK7m23GJusamGpoGLby/",
            "$5$$WKPmWjhdlKIIuFrlqlQkkHXJ5TYJGIy7WvFyNTZ7Wf2",
            "$6$rounds=1000$$qFXMvbSw7Ozjk2PzlyjQTwNkdoDEXVCsAzNuv3Ynu5vTeBDeGzXcHxXRVqtFh1RaLoYEVDhSZQVfXc9Sfw2yI.",
            "$pbkdf2$1212$$HV3oi1k5C5LQCgG1BMOL.BX4YZc",
            "pbkdf2_sha256$1212$$r1uLUxoxpP2Ued/qxvmje7UH9PUJBkRrvf9gGPL7Cps=",
            "$scrypt$ln=10,r=1,p=1$$bJcLia1lyfQ1X2x0xflehwVXPzWIUQWWdnlGwfVzBeQ",
            "scrypt$1024$$1$1$bJcLia1lyfQ1X2x0xflehwVXPzWIUQWWdnlGwfVzBeQ",
            "$firebase-scrypt$ln=1,r=1$$Bw==$bJcLia1lyfQ1X2x0xflehwVXPzWIUQWWdnlGwfVzBeQ$bJcLia1lyfQ1X2x0xflehwVXPzWIUQWWdnlGwfVzBeQ",
            // What makes no sense.
            "$2b$03$abcdefghijklmnopqrstuueysyzUfeZaL17rLAG2deFh2Ddd.WuxO",
            "$2b$4$abcdefghijklmnopqrstuueysyzUfeZaL17rLAG2deFh2Ddd.WuxO",
            "$2x$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq",
            "{TRUNCATE72}$6$saltsalt",
            "scrypt$16385$seasalt$8$5$ECMIUp+LMxMSK8xB/IVyba+KYGTI7FTnet025q/1f/vBAVnnP3hdYqJuRi+mJn6ji6ze3Fbb7JEFPKGpuEf5vw==",
            "$6$rounds=999$short$r/LmINukfVk8n/w.uICl7xoIQQg8rXQLdAdW3OfJAQzFYf8n0q3fQbYBb8JR7mylUr5SG2UJ7u2dYQddPAtV40",
            "$1$saltsalt1$NMDeaPY7etnbtEUEzkFaP/",
            "$P$4IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0",
            "$P$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L00",
        ];
        for text in texts {
            assert_eq!(problem(text), Some(HashProblem::Unrecognised), "{text}");
        }
    }

    #[test]
    fn a_password_that_is_read_in_every_round_is_short() {
        let long = [b'a'; 300];
        for (_, text) in [SHA_CRYPT[0], SHA_CRYPT[20], PHPASS[0], MD5_CRYPT[0]] {
            assert!(!matches(&long, text), "{text}");
        }
        // These are hashes of the empty password, which stands for the long one in the computation.
        for (password, text) in ALL.concat() {
            if password.is_empty() && !text.contains("bcrypt_sha256") {
                assert!(!matches(&long, text), "{text}");
            }
        }
    }

    #[test]
    fn every_family_has_a_name_for_signals() {
        for (_, text) in ALL.concat() {
            let taken = take_in(text, &Ceiling::default()).ok().unwrap();
            assert_eq!(Some(taken.scheme), family(&taken.text).or(Some("argon2")), "{text}");
            assert_eq!(taken.scheme == "argon2", text.contains("argon2"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_edit_of_a_good_text_panics_and_what_is_read_is_read_again(
            which in any::<prop::sample::Index>(),
            place in any::<prop::sample::Index>(),
            cut in 0_usize..4,
            inserted in "[$,={}+./0-9a-zA-Zß]{0,6}",
        ) {
            let all = ALL.concat();
            let text = all[which.index(all.len())].1;
            let (head, tail) = text.split_at(place.index(text.len()));
            let edited = format!("{head}{inserted}{}", tail.get(cut..).unwrap_or_default());
            prop_assert!(reads_as_taken_in(&edited));
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(reads_as_taken_in(&String::from_utf8_lossy(&bytes)));
    }
}
