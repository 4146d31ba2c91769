//! E-mail: a real mail server, with TLS and AUTH.

use crate::counterpart;

#[test]
fn the_mail_server_is_installed() {
    let version = counterpart::python().args(["-c", "import aiosmtpd; print(aiosmtpd.__version__)"]).output().unwrap();
    assert_eq!(String::from_utf8(version.stdout).unwrap().trim(), "1.4.6");
}
